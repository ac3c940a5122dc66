# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How cost grows: with the size of the environment, the number of Runners, and what is in the shared directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.lab.engines import Engine
from tests.lab.host import run

from . import results
from .bare import make_bare
from .contenders import Contender, DockerCommands, HakuRiverCollection
from .measure import Run, run_module, together
from .results import Case, Sample
from .shared import Shared
from .steps import observed, sample, turns

_VERSIONS_OF_EACH = 10
_MORE_THAN_A_SECOND = 1.1


def sizes(engine: Engine, shared: Shared, scales: Sequence[int], rounds: int) -> Iterator[Sample]:
    """Synchronise the same change of environments of several sizes, the former version being there."""
    make_bare(engine)
    pairs = []
    try:
        for size in sorted(scales, reverse=True):  # the largest has the layers of all
            ours = HakuRiverCollection(engine, shared, f"ours-x{size}", size)
            _package_twice(ours)
            ours.remove_container()
            pairs += [(size, contender) for contender in (ours, DockerCommands(engine, shared, ours))]
        for size, contender in turns(pairs, rounds):
            contender.restore()
            yield observed(contender, results.SIZE, partial(contender.load, newest=True), size)
    finally:
        make_bare(engine)
        _empty(shared)


def runners(engines: Sequence[Engine], shared: Shared, scales: Sequence[int], rounds: int) -> Iterator[Sample]:
    """Have several Runners synchronise a change at once.

    A Runner is an engine and an environment: two on one engine have different ones, so that neither finds the other's
    new layer. All of them share the processors of this machine, which real Runners do not.
    """
    for engine in engines:
        make_bare(engine)
    try:
        ours: list[Contender] = []
        for slug in ("runners-a", "runners-b"):
            packager = HakuRiverCollection(engines[0], shared, slug)
            _package_twice(packager)
            packager.remove_container()
            ours += [HakuRiverCollection(engine, shared, slug) for engine in engines]
        theirs: list[Contender] = [DockerCommands(runner.engine, shared, runner) for runner in ours]
        for runner in ours:
            runner.restore()
        for scale, fleet in turns([(scale, fleet[:scale]) for scale in scales for fleet in (ours, theirs)], rounds):
            for runner in fleet:
                runner.restore()
            case = Case(results.RUNNERS, f"{len(engines)} engines", shared.kind, fleet[0].name, scale)
            yield sample(case, shared, partial(_at_once, [partial(runner.load, newest=True) for runner in fleet]))
    finally:
        for engine in engines:
            make_bare(engine)
        _empty(shared)


def directory(engine: Engine, shared: Shared, scales: Sequence[int], rounds: int) -> Iterator[Sample]:
    """Synchronise with nothing to do, in directories with ever more versions of ever more environments."""
    make_bare(engine)
    ours = HakuRiverCollection(engine, shared, "versions")
    try:
        ours.create()
        ours.package()
        ours.load(newest=True)
        newest = ours.tarballs[-1]
        for scale in scales:
            _fill(ours.directory / str(scale), newest, scale)
        for scale in turns(scales, rounds):
            case = Case(results.DIRECTORY, engine.name, shared.kind, ours.name, scale)
            options = {**ours.options, "container_dir": str(scale)}
            yield sample(case, shared, partial(run_module, "haku.river.haku_sync", **options))
    finally:
        make_bare(engine)
        _empty(shared)


def _package_twice(contender: Contender) -> None:
    contender.create()
    contender.package()
    contender.change()
    time.sleep(_MORE_THAN_A_SECOND)
    contender.package()


def _at_once(loads: Sequence[Callable[[], Run]]) -> Run:
    """Run all at the same time; `seconds` is what the slowest took, `process_seconds` the time until all were done."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(loads)) as pool:
        done = list(pool.map(lambda load: load(), loads))
    process_seconds = time.monotonic() - began
    both = together(*done)
    slowest = max(run.seconds for run in done)
    return Run(slowest, process_seconds, both.peak_memory_bytes, both.read_bytes, both.written_bytes)


def _fill(folder: Path, newest: Path, count: int) -> None:
    """Make a directory of `count` versions, ten of each environment; all but the newest of ours are only names."""
    folder.mkdir()
    os.link(newest, folder / newest.name)
    environment, _dash, timestamp = newest.stem.rpartition("-")
    for number in range(1, count):
        other, age = divmod(number, _VERSIONS_OF_EACH)
        name = f"{environment}-{other}" if other else environment
        (folder / f"{name}-{int(timestamp) - age}.tar").touch()


def _empty(shared: Shared) -> None:
    run("rm", "-rf", *(path for path in shared.path.iterdir() if path.is_dir()))
