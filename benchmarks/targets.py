# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What haku.river promises of its speed, and whether a run of the benchmark saw it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import results
from .contenders import DOCKER, HAKU_RIVER, HAKU_RIVER_ONE_CONTAINER, HAKURIVER
from .results import Case, Results
from .steps import PING

_MIB = 1 << 20
_KIB = 1 << 10
_RATIO, _BYTES, _SECONDS = "×", "bytes", "s"


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; `measured` is None where the run had no such step.

    `unit` is `×` for a ratio, `bytes` or `s`; `at_least` says on which side of `limit` the promise is kept.
    """

    what: str
    where: str
    limit: float
    measured: float | None
    unit: str = _RATIO
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the promise is kept; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def verdicts(seen: Results) -> list[Verdict]:
    """Judge everything that was measured, engine by engine; targets of steps that were left out are not there."""
    found: list[Verdict] = []
    for engine in dict.fromkeys(case.engine for case in seen.cases):
        found += [
            *_packaging(seen, engine),
            *_synchronising(seen, engine),
            *_growth(seen, engine),
            _login(seen, engine),
            _nothing(seen, engine),
        ]
    found += _memory(seen)
    return [verdict for verdict in found if verdict.measured is not None]


def _packaging(seen: Results, engine: str) -> Iterator[Verdict]:
    first = Case(results.FIRST_PACKAGE, engine, "xfs", HAKU_RIVER)
    yield _faster(seen, "first package: faster than commit and save", first, DOCKER, 3)
    for shared, than_hakuriver, than_docker in (("xfs", 20, 8), ("ext4", 8, 4)):
        change = Case(results.CHANGE_PACKAGE, engine, shared, HAKU_RIVER)
        yield _faster(
            seen, "package after a change: faster than HakuRiver's procedure", change, HAKURIVER, than_hakuriver
        )
        yield _faster(seen, "package after a change: faster than commit and save", change, DOCKER, than_docker)
        away = seen.median(change, "away_seconds")
        yield Verdict("package after a change: the env container away", f"{engine}, {shared}", 2, away, _SECONDS)
        if shared == "xfs":  # ext4 has no reflinks
            space = _difference(seen.median(change, "new_space_bytes"), seen.median(change, "new_layers_bytes"))
            what = "package after a change: new disk space beyond the new layer"
            yield Verdict(what, f"{engine}, {shared}", _MIB, space, _BYTES)


def _synchronising(seen: Results, engine: str) -> Iterator[Verdict]:
    change = Case(results.CHANGE_SYNC, engine, "xfs", HAKU_RIVER)
    yield _faster(seen, "sync of a change: faster than `docker load` of the same tarball", change, DOCKER, 10)
    yield _faster(seen, "sync of a change: faster than the load in HakuRiver's procedure", change, HAKURIVER, 40)
    asked = _told_bytes(seen, change)
    read = _difference(asked, seen.median(change, "new_layers_bytes"))
    yield Verdict("sync of a change: bytes read beyond the new layers", f"{engine}, xfs", 256 * _KIB, read, _BYTES)
    first = Case(results.FIRST_SYNC, engine, "xfs", HAKU_RIVER)
    ratio = seen.ratio(first, first.by(DOCKER))
    yield Verdict("first sync: time, of that of `docker load`", f"{engine}, xfs", 1.05, ratio)
    read = _told_bytes(seen, Case(results.NOTHING_SYNC, engine, "xfs", HAKU_RIVER))
    yield Verdict("nothing to do: bytes read of tarballs", f"{engine}, xfs", 0, read, _BYTES)


def _growth(seen: Results, engine: str) -> Iterator[Verdict]:
    size = Case(results.SIZE, engine, "xfs", HAKU_RIVER)
    what = "the same change on an environment 4 times as large: sync time"
    yield Verdict(what, f"{engine}, xfs", 1.2, seen.ratio(size.at(4), size))
    versions = Case(results.DIRECTORY, engine, "xfs", HAKU_RIVER)
    what = "1,000 versions of 100 environments: time of a sync with nothing to do, of that with one version"
    yield Verdict(what, f"{engine}, xfs", 1.2, seen.ratio(versions.at(1000), versions, "process_seconds"))


def _login(seen: Results, engine: str) -> Verdict:
    took = seen.median(Case(results.LOGIN, engine, results.NOTHING_SHARED, HAKU_RIVER), "process_seconds")
    return Verdict(results.LOGIN, engine, 3, took, _SECONDS)


def _nothing(seen: Results, where: str) -> Verdict:
    nothing = Case(results.NOTHING_BY_SSH, where, results.NOTHING_SHARED, HAKU_RIVER)
    ratio = seen.ratio(nothing, nothing.by(PING))
    return Verdict("nothing to do: wall time, of that of ansible.builtin.ping", where, 1.3, ratio)


def _memory(seen: Results) -> Iterator[Verdict]:
    ours = [sample for sample in seen.samples if sample.case.contender in (HAKU_RIVER, HAKU_RIVER_ONE_CONTAINER)]
    # What Ansible itself needs on the controller is not ours.
    modules = [sample for sample in ours if sample.case.step != results.NOTHING_ANSIBLE]
    peaks = [sample.peak_memory_bytes for sample in modules if sample.peak_memory_bytes]
    yield Verdict("peak memory of any package or sync", "all", 100_000_000, max(peaks, default=None), _BYTES)


def _faster(seen: Results, what: str, ours: Case, than: str, limit: float) -> Verdict:
    return Verdict(what, f"{ours.engine}, {ours.shared}", limit, seen.ratio(ours.by(than), ours), at_least=True)


def _told_bytes(seen: Results, case: Case) -> float | None:
    """The most that the module says it has read."""
    return max((sample.told["bytes_read"] for sample in seen.of(case) if "bytes_read" in sample.told), default=None)


def _difference(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else max(above - below, 0)
