# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines of a fleet as the rows of a table, worst first; in a large fleet, those that are alike share a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.plugin_utils.fleet import (
    Condition,
    Environment,
    Fleet,
    Holding,
    Machine,
    Standing,
)
from ansible_collections.haku.river.plugins.plugin_utils.human import short_duration, utc

FULL = 0.9
"""How much of a disk is in use when that is worth a warning."""

# So many machines have a row each, whatever they have in common.
_SINGLE_ROWS = 60
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]*:[0-9a-f:]+:[0-9a-f]+\b")
_KINDS = {
    Standing.CURRENT: ("c", "✓"),
    Standing.MISSING: ("m", "–"),
    Standing.UNKNOWN: ("m", "?"),
    Standing.UNNEEDED: ("m", ""),
    Standing.BEHIND: ("s", ""),
    Standing.AHEAD: ("s", ""),
    Standing.UNPUBLISHED: ("u", ""),
}


@dataclass(frozen=True)
class Cell:
    """What a machine has of an environment: a class for the style, a word, and the whole of it."""

    kind: str
    text: str
    title: str


@dataclass(frozen=True)
class Row:
    """Machines that are alike; `cells` are empty where they could not be asked."""

    machines: tuple[Machine, ...]
    cells: tuple[Cell, ...]

    @property
    def problem(self) -> str:
        """What is wrong with all of them."""
        return _common_cause(self.machines)

    @property
    def fullest(self) -> Machine | None:
        """The machine with the fullest disk, of those whose disk is known."""
        known = [machine for machine in self.machines if machine.disk]
        return max(known, key=_fullness, default=None)


@dataclass(frozen=True)
class Complaint:
    """What is wrong, and with which machines."""

    cause: str
    machines: tuple[Machine, ...]


def rows(fleet: Fleet) -> dict[Condition, list[Row]]:
    """The rows by the condition of their machines, the worst first."""
    alone = len(fleet.machines) <= _SINGLE_ROWS
    found: dict[Condition, dict[object, list[Machine]]] = {condition: {} for condition in Condition}
    for machine in fleet.machines:
        signature = machine.name if alone else _signature(fleet, machine)
        found[fleet.condition(machine)].setdefault(signature, []).append(machine)
    return {
        condition: [Row(tuple(alike), _cells(fleet, alike[0])) for alike in groups.values()]
        for condition, groups in found.items()
        if groups
    }


def complaints(fleet: Fleet) -> list[Complaint]:
    """What is wrong, by cause, the most frequent first; an address in it does not make it another cause."""
    by_cause: dict[str, list[Machine]] = {}
    for machine in fleet.machines:
        if machine.problem:
            by_cause.setdefault(_cause(machine), []).append(machine)
    frequent_first = sorted(by_cause.values(), key=len, reverse=True)
    return [Complaint(_common_cause(machines), tuple(machines)) for machines in frequent_first]


def full_disks(fleet: Fleet) -> tuple[Machine, ...]:
    """The machines whose disk is nearly full, the fullest first."""
    full = (machine for machine in fleet.machines if machine.disk and machine.disk.used >= FULL)
    return tuple(sorted(full, key=_fullness, reverse=True))


def _signature(fleet: Fleet, machine: Machine) -> object:
    versions = [_held(machine, environment).version for environment in fleet.environments]
    return (machine.role, machine.told, _cause(machine), machine.note, tuple(versions))


def _cause(machine: Machine) -> str:
    return _ADDRESS.sub("…", machine.problem or "").replace(machine.name, "…")


def _common_cause(machines: Sequence[Machine]) -> str:
    """The words of machines whose causes are the same but for names and addresses."""
    words = {machine.problem or "" for machine in machines}
    return words.pop() if len(words) == 1 else _cause(machines[0])


def _cells(fleet: Fleet, machine: Machine) -> tuple[Cell, ...]:
    return tuple(_one_each(fleet, machine)) if machine.told else ()


def _one_each(fleet: Fleet, machine: Machine) -> Iterator[Cell]:
    for environment in fleet.environments:
        version = _held(machine, environment).version
        kind, text = _KINDS[machine.standing(environment)]
        title = "" if version is None or text else f"{utc(version)} UTC"
        age = short_duration(fleet.generated - version) if version is not None else ""
        yield Cell(kind, text or age, title)


def _held(machine: Machine, environment: Environment) -> Holding:
    return machine.holdings.get(environment.name, Holding(None))


def _fullness(machine: Machine) -> float:
    return machine.disk.used if machine.disk else 0.0
