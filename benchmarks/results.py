# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was measured: samples, their medians, and the ratios between contenders."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FIRST_PACKAGE = "first package"
CHANGE_PACKAGE = "package after a 3 MB change"
FIRST_SYNC = "first sync"
CHANGE_SYNC = "sync of that change"
NOTHING_SYNC = "sync with nothing to do"
NOTHING_ANSIBLE = "nothing to do, with Ansible's start-up"
NOTHING_BY_SSH = "nothing to do, with Ansible's start-up, by SSH"
SIZE = "sync of that change, by size of the environment"
RUNNERS = "sync of that change, by number of Runners"
DIRECTORY = "sync with nothing to do, by number of versions in the directory"
LOGIN = "new VPS, until a command has run in it by SSH"

NOTHING_SHARED = "-"
"""In place of the kind of shared directory, where it has no part in a step."""

_METRICS = (
    "seconds",
    "process_seconds",
    "durable_seconds",
    "away_seconds",
    "peak_memory_bytes",
    "shared_read_bytes",
    "shared_written_bytes",
    "new_space_bytes",
    "new_layers_bytes",
)


@dataclass(frozen=True, order=True)
class Case:
    """What is measured: a step by a contender on an engine and a shared directory; `scale` is what cost grows with."""

    step: str
    engine: str
    shared: str
    contender: str
    scale: int = 1

    def by(self, contender: str) -> Case:
        """The same, done by another contender."""
        return Case(self.step, self.engine, self.shared, contender, self.scale)

    def at(self, scale: int) -> Case:
        """The same at another scale."""
        return Case(self.step, self.engine, self.shared, self.contender, scale)


@dataclass(frozen=True)
class Sample:
    """One measured run of a case.

    `seconds` is the work alone (for a command line all of it, for a module without Python's start and imports),
    `process_seconds` the whole command, `durable_seconds` the work and what the disk has left to do after it. What was
    read from and written to the shared directory is counted at its device, after the page cache; `new_space_bytes` is
    what the file system has less afterwards, `new_layers_bytes` the layers that the former version does not have.
    `told` is what the module says itself.
    """

    case: Case
    seconds: float
    process_seconds: float
    peak_memory_bytes: int | None = None
    shared_read_bytes: int | None = None
    shared_written_bytes: int | None = None
    new_space_bytes: int | None = None
    new_layers_bytes: int | None = None
    durable_seconds: float | None = None
    away_seconds: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


class Results:
    """All samples of a benchmark, in the order in which they were taken."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples = list(samples)

    @property
    def cases(self) -> list[Case]:
        """The cases that have a sample, in the order of their first one."""
        return list(dict.fromkeys(sample.case for sample in self.samples))

    def of(self, case: Case) -> list[Sample]:
        """A case's samples."""
        return [sample for sample in self.samples if sample.case == case]

    def median(self, case: Case, metric: str = "seconds") -> float | None:
        """The median of a metric over a case's samples; None where it was not measured."""
        values = [value for sample in self.of(case) if (value := getattr(sample, metric)) is not None]
        return statistics.median(values) if values else None

    def ratio(self, numerator: Case, denominator: Case, metric: str = "seconds") -> float | None:
        """How much more of a metric one case takes than another, by their medians; None if either was not measured."""
        above, below = self.median(numerator, metric), self.median(denominator, metric)
        return above / below if above is not None and below else None

    def documents(self) -> list[dict[str, Any]]:
        """Cases with medians and runs, for JSON."""
        return [
            {
                **asdict(case),
                "runs": len(self.of(case)),
                "median": {name: value for name in _METRICS if (value := self.median(case, name)) is not None},
                "samples": [_sample_document(sample) for sample in self.of(case)],
            }
            for case in self.cases
        ]


def _sample_document(sample: Sample) -> dict[str, Any]:
    values = {name: value for name in _METRICS if (value := getattr(sample, name)) is not None}
    return {**values, **({"told": dict(sample.told)} if sample.told else {})}
