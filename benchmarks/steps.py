# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps in which haku.river is set beside the other ways: packaging and synchronising, first, changed, unchanged.

The contenders take turns, and each round begins with another one, so that whatever slows the machine slows them alike.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.engines import Engine
from tests.lab.host import run

from . import results
from .bare import make_bare
from .contenders import (
    CommunityModules,
    Contender,
    DockerCommands,
    HakuRiverCollection,
    HakuRiverCollectionOneContainer,
    HakuRiverServer,
    RegistryCommands,
)
from .measure import Run, run_command
from .registry import registry
from .results import Case, Sample
from .shared import Shared

T = TypeVar("T")

PING = "ansible.builtin.ping"

# What a module says of itself that a reader of the figures may want to know.
_TOLD = (
    "action",
    "bytes_read",
    "bytes_total",
    "bytes_written",
    "bytes_cloned",
    "layers_from",
    "layers_loaded",
    "layers_reused",
    "published",
    "rebased",
    "seconds",
    "size_bytes",
)
_MORE_THAN_A_SECOND = 1.1


@dataclass(frozen=True)
class Rounds:
    """How often each step is measured; `slow` is for contenders whose figures are far off and take long to get.

    All are measured in all rounds of `change_sync`: ours is so short that whatever else the machine does shows in it,
    and that has to meet all of them alike.
    """

    first: int = 3
    change: int = 5
    change_sync: int = 7
    nothing: int = 5
    slow: int = 1
    slow_change: int = 2


QUICK = Rounds(first=1, change=1, change_sync=1, nothing=2, slow=1, slow_change=1)
"""As often as it takes to see that all works."""


def compare(engine: Engine, shared: Shared, rounds: Rounds, packaging_only: bool) -> Iterator[Sample]:
    """Measure all steps on one engine; `packaging_only` leaves out what the kind of shared directory has no part in."""
    make_bare(engine)
    ours = HakuRiverCollection(engine, shared)
    contenders: list[Contender] = [ours, DockerCommands(engine, shared, ours), HakuRiverServer(engine, shared)]
    try:
        if packaging_only:
            yield from _package(contenders, rounds)
            return
        alone = HakuRiverCollectionOneContainer(engine, shared)
        with registry(engine):
            contenders += [CommunityModules(engine, shared, ours), RegistryCommands(engine, shared)]
            yield from _package([*contenders, alone], rounds)
            alone.remove()
            yield from _synchronise(engine, contenders, rounds)
            yield from _nothing_to_do(ours, contenders, rounds)
    finally:
        make_bare(engine)
        run("rm", "-rf", *(path for path in shared.path.iterdir() if path.is_dir()))


def _package(contenders: Sequence[Contender], rounds: Rounds) -> Iterator[Sample]:
    for contender in turns(contenders, rounds.first, rounds.slow):
        contender.create()
        yield observed(contender, results.FIRST_PACKAGE, contender.package)
    for contender in turns(contenders, rounds.change, rounds.slow_change):
        contender.change()
        # Nobody packages twice in a second; haku.river would wait for the next one, as a version is one.
        time.sleep(_MORE_THAN_A_SECOND)
        yield observed(contender, results.CHANGE_PACKAGE, contender.package)
        contender.tidy()


def _synchronise(engine: Engine, contenders: Sequence[Contender], rounds: Rounds) -> Iterator[Sample]:
    # The first load pays for what engine and file system have left to do from before; it is nobody's.
    make_bare(engine)
    contenders[0].load(newest=True)
    for contender in turns(contenders, rounds.first, rounds.slow):
        make_bare(engine)
        yield observed(contender, results.FIRST_SYNC, partial(contender.load, newest=True))
    for contender in turns(contenders, rounds.change_sync):
        contender.restore()
        yield observed(contender, results.CHANGE_SYNC, partial(contender.load, newest=True))


def _nothing_to_do(ours: HakuRiverCollection, contenders: Sequence[Contender], rounds: Rounds) -> Iterator[Sample]:
    for contender in contenders:
        contender.load(newest=True)
    for contender in turns(contenders, rounds.nothing, rounds.slow_change):
        yield observed(contender, results.NOTHING_SYNC, contender.again)
    for _round in range(rounds.nothing):
        yield observed(
            ours,
            results.NOTHING_ANSIBLE,
            lambda: run_command(*ansible("haku.river.haku_sync", ours.options)),
        )
        case = Case(results.NOTHING_ANSIBLE, ours.engine.name, ours.shared.kind, PING)
        yield sample(case, ours.shared, lambda: run_command(*ansible("ansible.builtin.ping", {})))


def ansible(module: str, options: Mapping[str, Any]) -> list[str | Path]:
    """The command line that has Ansible run a module on this machine, with this interpreter."""
    program = Path(sys.executable).with_name("ansible")
    interpreter = f"ansible_python_interpreter={sys.executable}"
    where = ["--inventory", "localhost,", "--connection", "local", "--extra-vars", interpreter]
    arguments = ["--args", json.dumps(options)] if options else []
    return [program, "localhost", *where, "--module-name", module, *arguments]


def observed(contender: Contender, step: str, act: Callable[[], Run], scale: int = 1) -> Sample:
    """Measure one step of a contender."""
    case = Case(step, contender.engine.name, contender.shared.kind, contender.name, scale)
    taken = sample(case, contender.shared, act)
    # Only now, as this reads in the tarballs.
    return replace(taken, new_layers_bytes=contender.new_layers_bytes())


def sample(case: Case, shared: Shared, act: Callable[[], Run]) -> Sample:
    """Measure: nothing is left to be written when it begins, and no tarball is in the page cache."""
    shared.forget_cached()
    used, traffic = shared.used_bytes, shared.traffic
    done = act()
    began = time.monotonic()
    new_space = shared.used_bytes - used  # waits until all has arrived, so it comes first
    durable_seconds = done.seconds + time.monotonic() - began
    moved = shared.traffic.since(traffic)
    taken = Sample(
        case,
        seconds=done.seconds,
        process_seconds=done.process_seconds,
        peak_memory_bytes=done.peak_memory_bytes,
        shared_read_bytes=moved.read_bytes,
        shared_written_bytes=moved.written_bytes,
        new_space_bytes=new_space,
        durable_seconds=durable_seconds,
        away_seconds=done.result.get("away_seconds"),
        told={name: done.result[name] for name in _TOLD if name in done.result},
    )
    print(
        f"{case.engine:<5} {case.shared:<5} {case.step} ({case.scale}): {case.contender} {done.seconds:.2f} s",
        file=sys.stderr,
        flush=True,
    )
    return taken


def turns(taking_turns: Sequence[T], rounds: int, slow_rounds: int | None = None) -> Iterator[T]:
    """Take turns: each round begins with another one, and slow contenders leave out the later rounds."""
    for number in range(rounds):
        late = slow_rounds is not None and number >= slow_rounds
        present = [one for one in taking_turns if not (late and getattr(one, "slow", False))]
        start = number % len(present)
        yield from (*present[start:], *present[:start])
