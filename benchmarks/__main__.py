# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the figures and write the report: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab import engines as lab
from tests.lab.engines import RELEASES, Engine
from tests.lab.host import LabError, exclusive
from tests.lab.session import session

from . import chart, growth, machine, report, runners, shared, steps, targets, vps, workload
from .measure import CHECKOUT, BenchmarkError
from .results import Results, Sample

_PARTS = ("steps", "ext4", "sizes", "runners", "directory", "ssh", "vps")
_NAME = "benchmarks"


def main() -> int:
    """Do what the command line asks and return the exit code; a missed target counts only with `--strict`."""
    asked = _parser().parse_args()
    if os.geteuid() != 0:
        print("error: the benchmark starts engines and mounts file systems, which only root can", file=sys.stderr)
        return 1
    try:
        with session(sweeping=False), exclusive("benchmarks"):
            found = lab.start(RELEASES)
            about = machine.describe(found.values())
            results = Results(_measure(asked, found))
    except (LabError, BenchmarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    judged = targets.verdicts(results)
    _write(asked.output, about, results, judged)
    print(report.targets(judged))
    return 1 if asked.strict and any(verdict.met is False for verdict in judged) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure haku.river beside other ways.")
    parser.add_argument("--quick", action="store_true", help="each step once, to see that all works; figures are rough")
    parser.add_argument("--strict", action="store_true", help="fail if a target is missed")
    parser.add_argument("--engines", nargs="+", choices=RELEASES, default=["d28", "d28c"], help="default: d28 d28c")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, help="what to measure; default: all")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs", help="the directory of the report")
    return parser


def _measure(asked: argparse.Namespace, found: dict[str, Engine]) -> Iterator[Sample]:
    """Take the samples of all the parts that are asked for."""
    rounds = steps.QUICK if asked.quick else steps.Rounds()
    engines = [found[name] for name in asked.engines]
    sizes = workload.SIZES[:2] if asked.quick else workload.SIZES
    fleets = (1, 2) if asked.quick else (1, 2, 4, 8)
    if "vps" in asked.parts:
        for engine in engines:
            yield from vps.logins(engine, rounds.nothing)
    if "ssh" in asked.parts:
        yield from runners.nothing_to_do(2 * rounds.nothing)
    if {"ssh", "vps"} >= set(asked.parts):
        return
    workload.tarball()
    if not {"ext4", "ssh", "vps"} >= set(asked.parts):
        with shared.mounted("xfs") as xfs:
            for engine in engines if "steps" in asked.parts else ():
                yield from steps.compare(engine, xfs, rounds, packaging_only=False)
            if "sizes" in asked.parts:
                yield from growth.sizes(engines[0], xfs, sizes, rounds.change)
            if "directory" in asked.parts:
                yield from growth.directory(engines[0], xfs, (1, 10, 100, 1000), 2 * rounds.nothing)
            if "runners" in asked.parts:
                others = [engine for engine in found.values() if engine != engines[0]]
                yield from growth.runners([engines[0], *others], xfs, fleets, rounds.slow_change)
    if "ext4" in asked.parts:
        with shared.mounted("ext4") as ext4:
            yield from steps.compare(engines[0], ext4, rounds, packaging_only=True)


def _write(directory: Path, about: dict[str, object], results: Results, judged: Sequence[targets.Verdict]) -> None:
    """Write the report as JSON, Markdown and SVG."""
    directory.mkdir(parents=True, exist_ok=True)
    command = " ".join(("python -m benchmarks", *_arguments_to_show()))
    document = {
        "command": command,
        "machine": about,
        "targets": [{**vars(verdict), "met": verdict.met} for verdict in judged],
        "measurements": results.documents(),
    }
    picture = directory / f"{_NAME}.svg"
    (directory / f"{_NAME}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / f"{_NAME}.md").write_text(report.markdown(about, results, judged, command, picture.name))
    picture.write_text(chart.svg(about, results))


def _arguments_to_show() -> list[str]:
    """The command line without the place of the report, which is somebody's path."""
    shown = list(sys.argv[1:])
    if "--output" in shown:
        at = shown.index("--output")
        del shown[at : at + 2]
    return shown


if __name__ == "__main__":
    sys.exit(main())
