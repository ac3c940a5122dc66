# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report: what was measured as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import results
from .contenders import COMMUNITY, DOCKER, HAKU_RIVER, HAKU_RIVER_ONE_CONTAINER, HAKURIVER, REGISTRY
from .results import Case, Results
from .steps import PING
from .targets import Verdict

STEPS = (
    results.FIRST_PACKAGE,
    results.CHANGE_PACKAGE,
    results.FIRST_SYNC,
    results.CHANGE_SYNC,
    results.NOTHING_SYNC,
)
OTHERS = (HAKURIVER, DOCKER, COMMUNITY, REGISTRY)

_GROWTH = (results.SIZE, results.RUNNERS, results.DIRECTORY)
_MISSING = "-"

_METHOD = f"""\
- All contenders are measured in one run and take turns, so that what slows the machine slows them alike. Figures are
  medians; `benchmarks.json` has every run.
- A ratio is their time divided by haku.river's: above 1, haku.river is faster.
- The time of a module (haku.river's and community.docker's alike) is that of its work, without Python's start and
  imports; that of a command line is all of it. "Whole process" has the start in it for all. Ansible's own start-up
  comes on top of either module: see the lines "{results.NOTHING_ANSIBLE}", where Ansible runs on this one machine and
  has no way to go, and "{results.NOTHING_BY_SSH}", where it goes to machines as it does to Runners.
- Before each measurement all writing has ended and no tarball is in the page cache. haku.river's time includes making
  the tarball durable (fsync), which no other contender does; "on the disk" is the time until nothing is left to be
  written, which is when a power failure takes nothing away any more.
- **{HAKURIVER}**'s procedure is run with the Docker SDK as its server does it: stop (its container is `sleep infinity`
  without an init, so this takes 10 s), commit, save, remove the image, start. Its container stands on the public
  image with the pip packages in it, so its commit is one flat layer on the base.
- **{HAKU_RIVER_ONE_CONTAINER}** is haku.river's first package of such a container; after a change, its next one.
- **{DOCKER}** and **{COMMUNITY}** commit and save a container that stands on the same two layers as haku.river's, and
  load the very tarballs that haku.river has packaged. No module commits: `docker commit` is part of both.
- **{REGISTRY}** is Debian's `docker-registry` on the engine's loopback address: commit and push, pull. Its storage is
  not the shared directory, so nothing is counted there. It needs a server that runs, which the others do not.
- Bytes are counted at the shared directory's block device, read-ahead included.
- "Away" is how long nobody could work in the container: stopped, or paused for `docker commit`.
- With nothing to do, `docker load` and `docker_image_load` load again, as they do not look; HakuRiver compares times.
- A VPS is made of an image that is there, on an engine that reaches no other machine, beside what people do by hand:
  `docker run` of the same image, with a command that makes a host key, writes the public key and starts the server.
- Runners are engines on this one machine and share its processors, so their times grow where those of machines would
  not. A directory of 1,000 versions has 10 of each of 100 environments.
"""


def markdown(machine: Mapping[str, Any], seen: Results, verdicts: Sequence[Verdict], command: str, chart: str) -> str:
    """Write the report; `chart` is the file name of the picture that stands in it."""
    parts = [
        "<!-- Made by `make bench`; do not edit. -->",
        "# Benchmarks",
        f"Made with `{command}` on {machine['date']}. {_machine(machine)}",
        f"![Seconds of each step, beside the other ways to move an environment]({chart})",
        "## Beside the other ways",
        *_comparisons(machine, seen),
        "## How cost grows",
        *_growths(seen),
        *_aside(seen, results.NOTHING_BY_SSH),
        *_aside(seen, results.LOGIN),
        "## Targets",
        targets(verdicts),
        "## How it is measured",
        _METHOD.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def targets(verdicts: Iterable[Verdict]) -> str:
    """A table of what is promised and what was seen."""
    rows = [
        [
            verdict.what,
            verdict.where,
            f"{'≥' if verdict.at_least else '≤'} {_quantity(verdict.limit, verdict.unit)}",
            _quantity(verdict.measured, verdict.unit),
            {True: "met", False: "**not met**", None: _MISSING}[verdict.met],
        ]
        for verdict in verdicts
    ]
    return table(["target", "on", "wanted", "measured", ""], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def seconds(value: float | None) -> str:
    """A time with two or three digits: `31 s`, `1.63 s`, `75 ms`."""
    if value is None:
        return _MISSING
    if value >= 10:
        return f"{value:.0f} s"
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"


def ratio(value: float | None) -> str:
    """A ratio with two or three digits: `142×`, `8.2×`, `0.95×`."""
    if value is None:
        return _MISSING
    if value >= 10:
        return f"{value:.0f}×"
    return f"{value:.1f}×" if value >= 2 else f"{value:.2f}×"


def size(value: float | None) -> str:
    """A number of bytes: `694 MB`, `3.0 MB`, `213 kB`, `0`."""
    if value is None:
        return _MISSING
    for unit, bytes_in_it in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= bytes_in_it:
            number = value / bytes_in_it
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return f"{value:.0f}" if value == 0 else f"{value:.0f} B"


def _quantity(value: float | None, unit: str) -> str:
    return {"×": ratio, "bytes": size, "s": seconds}[unit](value)


def _machine(machine: Mapping[str, Any]) -> str:
    environment = machine["environment"]
    pip = ", ".join(f"{name} {version}" for name, version in environment["pip"].items())
    return (
        f"Machine: {machine['cores']} cores ({machine['processor']}), {size(machine['memory_bytes'])} of memory, "
        f"{machine['system']}, kernel {machine['kernel']}; engines on {machine['engine_storage']}, the shared "
        f"directory on {machine['shared_directory']}. Absolute times are this machine's; the ratios are the point.\n\n"
        f"Environment: Debian with Python, and {pip} by pip; {size(environment['files_bytes'])} in "
        f"{environment['files_and_directories']:,} files and directories, two layers. The change is "
        f"{size(environment['change_bytes'])} of new random data in a few files."
    )


def _comparisons(machine: Mapping[str, Any], seen: Results) -> Iterable[str]:
    compared = (HAKU_RIVER, *OTHERS, HAKU_RIVER_ONE_CONTAINER, PING)
    steps = (*STEPS, results.NOTHING_ANSIBLE)
    for engine, shared in dict.fromkeys((case.engine, case.shared) for case in seen.cases if case.step in steps):
        about = machine["engines"].get(engine, {})
        kind = {"xfs": "XFS", "ext4": "ext4"}[shared]
        docker = f"Docker {about.get('version')}, {about.get('image_store')} image store"
        yield f"### {engine}: {docker}, shared directory on {kind}"
        rows, details = [], []
        for step in steps:
            ours = Case(step, engine, shared, HAKU_RIVER)
            if not seen.of(ours):
                continue
            if step in STEPS:
                cells = [_beside(seen, ours, other) for other in OTHERS]
                rows.append([step, seconds(seen.median(ours)), *cells])
            details += [_detail(seen, case, step) for name in compared if seen.of(case := ours.by(name))]
        yield table(["step", HAKU_RIVER, *OTHERS], rows)
        times = ("time", "whole process", "ratio", "on the disk", "ratio", "away")
        header = ["step", "by", *times, "peak memory", "read", "written", "new space"]
        yield f"<details><summary>Time, bytes, memory</summary>\n\n{table(header, details)}\n\n</details>"


def _beside(seen: Results, ours: Case, other: str) -> str:
    theirs = ours.by(other)
    return f"{seconds(seen.median(theirs))}, **{ratio(seen.ratio(theirs, ours))}**" if seen.of(theirs) else _MISSING


def _detail(seen: Results, case: Case, step: str) -> list[str]:
    of_the_shared_directory = ("shared_read_bytes", "shared_written_bytes", "new_space_bytes")
    return [
        step,
        case.contender,
        seconds(seen.median(case)),
        seconds(seen.median(case, "process_seconds")),
        ratio(seen.ratio(case, case.by(HAKU_RIVER))),
        seconds(seen.median(case, "durable_seconds")),
        ratio(seen.ratio(case, case.by(HAKU_RIVER), "durable_seconds")),
        seconds(seen.median(case, "away_seconds")),
        size(seen.median(case, "peak_memory_bytes")),
        *(size(seen.median(case, metric)) for metric in of_the_shared_directory),
    ]


def _aside(seen: Results, step: str) -> Iterable[str]:
    cases = sorted(case for case in seen.cases if case.step == step)
    if cases:
        rows = [
            [
                case.contender,
                case.engine,
                seconds(seen.median(case)),
                seconds(seen.median(case, "process_seconds")),
                ratio(seen.ratio(case, case.by(HAKU_RIVER), "process_seconds")),
            ]
            for case in cases
        ]
        yield f"## {step[0].upper()}{step[1:]}"
        yield table(["by", "on", "time", "whole process", "ratio"], rows)


def _growths(seen: Results) -> Iterable[str]:
    for step in _GROWTH:
        cases = sorted(case for case in seen.cases if case.step == step)
        if not cases:
            continue
        rows = []
        for case in sorted(cases, key=lambda case: (case.contender != HAKU_RIVER, case.scale)):
            smallest = min(other.scale for other in cases if other.contender == case.contender)
            metrics = ("seconds", "process_seconds")
            times = [
                f"{seconds(seen.median(case, metric))}, {ratio(seen.ratio(case, case.at(smallest), metric))}"
                for metric in metrics
            ]
            read = size(seen.median(case, "shared_read_bytes"))
            rows.append([f"{case.scale:,}", case.contender, case.engine, *times, read])
        yield f"### {step[0].upper()}{step[1:]}"
        yield table(["", "by", "on", "time, of the smallest's", "whole process, of the smallest's", "read"], rows)
