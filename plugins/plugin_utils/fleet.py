# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as it was found: its machines, the versions of its environments, and how the two compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class Standing(Enum):
    """How what a machine has of an environment compares with what is published."""

    CURRENT = "current"
    BEHIND = "behind"
    AHEAD = "not published any more"
    MISSING = "no image"
    UNPUBLISHED = "nothing is published"
    UNNEEDED = "not needed"
    UNKNOWN = "not known"


class Condition(Enum):
    """How a machine does, the worst first."""

    PROBLEM = "problem"
    STALE = "stale"
    LACKING = "lacking"
    CURRENT = "current"


@dataclass(frozen=True)
class Version:
    """A version of an environment. `size_bytes` is its tarball's, None where that is gone or does not tell."""

    timestamp: int
    is_published: bool
    size_bytes: int | None = None


@dataclass(frozen=True)
class Environment:
    """An environment, with its versions, newest first: those that are published, and those that machines have."""

    name: str
    versions: tuple[Version, ...]

    @property
    def newest(self) -> Version | None:
        """The newest version that is published."""
        return next((version for version in self.versions if version.is_published), None)


@dataclass(frozen=True)
class Holding:
    """What a machine has of an environment: the current image's version and size."""

    version: int | None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Disk:
    """The file system of a machine's images."""

    path: str
    total_bytes: int
    free_bytes: int

    @property
    def used(self) -> float:
        """How full it is, from 0 to 1."""
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes else 1.0


@dataclass(frozen=True)
class Machine:
    """A machine: what it has, what is wrong with it, and what has just happened on it (`note`)."""

    name: str
    role: str
    problem: str | None
    note: str | None
    holdings: Mapping[str, Holding]
    disk: Disk | None
    engine: str | None

    @property
    def is_runner(self) -> bool:
        """Whether environments are distributed to it."""
        return "runner" in self.role

    @property
    def told(self) -> bool:
        """Whether it could be asked what it has."""
        return self.problem is None or self.engine is not None or bool(self.holdings)

    def standing(self, environment: Environment) -> Standing:
        """How its image of an environment compares with what is published."""
        if not self.told:
            return Standing.UNKNOWN
        holding = self.holdings.get(environment.name)
        newest = environment.newest
        version = holding.version if holding else None
        if version is not None and newest is None:
            return Standing.UNPUBLISHED
        if newest and version == newest.timestamp:
            return Standing.CURRENT
        if not self.is_runner or newest is None:
            return Standing.UNNEEDED
        if version is None:
            return Standing.MISSING
        return Standing.BEHIND if version < newest.timestamp else Standing.AHEAD


@dataclass(frozen=True)
class Fleet:
    """All of it, as it was at a time (`generated`, in Unix seconds)."""

    generated: int
    shared_dir: str
    environments: tuple[Environment, ...]
    machines: tuple[Machine, ...]

    def condition(self, machine: Machine) -> Condition:
        """How a machine does."""
        standings = {machine.standing(environment) for environment in self.environments}
        if machine.problem:
            return Condition.PROBLEM
        if standings & {Standing.BEHIND, Standing.AHEAD}:
            return Condition.STALE
        return Condition.LACKING if Standing.MISSING in standings else Condition.CURRENT

    def having(self, environment: Environment, version: Version) -> tuple[Machine, ...]:
        """The machines whose current image of an environment is that version."""
        return tuple(
            machine
            for machine in self.machines
            if (holding := machine.holdings.get(environment.name)) and holding.version == version.timestamp
        )


def parse_fleet(data: Mapping[str, Any]) -> Fleet:
    """Read the fleet data that plays make; `LookupError`, `TypeError` or `ValueError` if it is none.

    What is null may also be missing or empty, as templates make of it. Machines and environments come in the order of
    their names, numbers in them by value.
    """
    machines = [_machine(str(name), values) for name, values in data["machines"].items()]
    published = data.get("environments") or {}
    names = {str(name) for name in published} | {name for machine in machines for name in machine.holdings}
    return Fleet(
        generated=int(data["generated"]),
        shared_dir=str(data.get("shared_dir") or ""),
        environments=tuple(
            _environment(name, published.get(name) or {}, machines) for name in sorted(names, key=natural)
        ),
        machines=tuple(sorted(machines, key=lambda machine: natural(machine.name))),
    )


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort by this for names to stand as people count: gpu2 before gpu10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(True, 0, part) if not part.isdigit() else (False, int(part), part) for part in parts]


def _environment(name: str, values: Mapping[str, Any], machines: list[Machine]) -> Environment:
    versions = values.get("versions") or values.get("all_versions") or ()
    published = {int(version["timestamp"]): _optional(int, version.get("size")) for version in versions}
    held = {machine.holdings[name].version for machine in machines if name in machine.holdings}
    timestamps = sorted(published.keys() | {version for version in held if version is not None}, reverse=True)
    return Environment(name, tuple(Version(it, it in published, published.get(it)) for it in timestamps))


def _machine(name: str, values: Mapping[str, Any]) -> Machine:
    engine = values.get("engine") or {}
    return Machine(
        name=name,
        role=str(values.get("role") or ""),
        problem=_optional(str, values.get("problem")),
        note=_optional(str, values.get("note")),
        holdings={str(key): _holding(value) for key, value in (values.get("environments") or {}).items()},
        disk=_optional(_disk, values.get("disk")),
        engine=f"{engine['version']}, {engine['storage']}" if engine else None,
    )


def _holding(values: Mapping[str, Any]) -> Holding:
    return Holding(_optional(int, values.get("version")), _optional(int, values.get("size")))


def _disk(values: Mapping[str, Any]) -> Disk:
    return Disk(str(values["path"]), int(values["total"]), int(values["free"]))


def _optional(convert: Callable[[Any], T], value: Any) -> T | None:
    return None if value in (None, "") else convert(value)
