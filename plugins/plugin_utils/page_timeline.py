# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of an environment along time, as a drawing: where each stands, and how many machines have it.

All environments share one axis, so that the drawings can be compared. It ends now and grows by the logarithm of the
age, for what came this morning and what came last year to be told apart on the same few centimetres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.plugin_utils.fleet import Environment, Fleet, Version
from ansible_collections.haku.river.plugins.plugin_utils.human import ago, count, size, utc

_HOUR, _DAY = 3600, 86400
_TICKS = (
    (0, "now"),
    (_DAY, "1 day"),
    (7 * _DAY, "1 week"),
    (30 * _DAY, "1 month"),
    (91 * _DAY, "3 months"),
    (365 * _DAY, "1 year"),
    (3 * 365 * _DAY, "3 years"),
    (10 * 365 * _DAY, "10 years"),
)
# Ages well below this are drawn as on an even axis.
_EVEN_SECONDS = 12 * _HOUR
_SHORTEST_SECONDS = 14 * _DAY
# In percent of the drawing's width: its ends, and the room that a character takes on a phone.
_LEFT, _RIGHT = 3.0, 97.0
_CHARACTER = 2.6
_SHORTEST_PIXELS, _TALLEST_PIXELS = 8, 36

Span = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled place on the axis; `x` is in percent of the width."""

    x: float
    label: str

    @property
    def anchor(self) -> str:
        """Where the label's text is held, so that it stays inside the drawing."""
        return _anchor(self.x)


@dataclass(frozen=True)
class Mark:
    """A version: `x` in percent, `height` in pixels above the axis, `kind` `newest`, `older` or `unused`."""

    x: float
    height: int
    kind: str
    label: str
    title: str

    @property
    def anchor(self) -> str:
        """Where the label's text is held, so that it stays inside the drawing."""
        return _anchor(self.x)


@dataclass(frozen=True)
class Timeline:
    """What is drawn; `summary` is for those who do not see it."""

    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    summary: str


class Axis:
    """The axis that all environments of a fleet share."""

    def __init__(self, fleet: Fleet) -> None:
        self._now = fleet.generated
        versions = (version for environment in fleet.environments for version in environment.versions)
        oldest = max((self._now - version.timestamp for version in versions), default=0)
        self._longest = max(oldest, _SHORTEST_SECONDS)
        self.ticks = tuple(self._ticks())

    def x(self, timestamp: int) -> float:
        """The place of a time, in percent."""
        return self._at(max(self._now - timestamp, 0))

    def _at(self, age_seconds: float) -> float:
        share = math.log1p(age_seconds / _EVEN_SECONDS) / math.log1p(self._longest / _EVEN_SECONDS)
        return round(_RIGHT - share * (_RIGHT - _LEFT), 1)

    def _ticks(self) -> Iterator[Tick]:
        """What there is room for, the ends first."""
        taken: list[Span] = []
        now, *between, last = (Tick(self._at(age), label) for age, label in _TICKS if age <= self._longest)
        for tick in (now, last, *between):
            if _has_room(tick.x, tick.label, taken):
                yield tick


def timeline(fleet: Fleet, environment: Environment, axis: Axis) -> Timeline:
    """Draw the versions of an environment; the higher, the more machines have it."""
    newest = environment.newest
    users = {version: len(fleet.having(environment, version)) for version in environment.versions}
    most = max([*users.values(), 1])
    labelled = _labelled(axis, users, newest)
    marks = tuple(
        Mark(
            x=axis.x(version.timestamp),
            height=_SHORTEST_PIXELS + round(number / most * (_TALLEST_PIXELS - _SHORTEST_PIXELS)) if number else 0,
            kind="newest" if version == newest else "older" if number else "unused",
            label=f"{number:,}" if version in labelled else "",
            title=_title(fleet, version, number),
        )
        # The newest comes last, and so on top.
        for version, number in reversed(users.items())
    )
    return Timeline(axis.ticks, marks, "; ".join(mark.title for mark in reversed(marks)))


def _labelled(axis: Axis, users: Mapping[Version, int], newest: Version | None) -> set[Version]:
    """The versions that have users, and room for a label beside those of the newest and of newer ones."""
    taken: list[Span] = []
    first = sorted(users, key=lambda version: (version != newest, -version.timestamp))
    return {it for it in first if users[it] and _has_room(axis.x(it.timestamp), f"{users[it]:,}", taken)}


def _has_room(x: float, text: str, taken: list[Span]) -> bool:
    """Whether a text does not touch others; if so, its place is taken."""
    width = len(text) * _CHARACTER
    start = {"start": x, "middle": x - width / 2, "end": x - width}[_anchor(x)]
    if any(start < end and other < start + width for other, end in taken):
        return False
    taken.append((start, start + width))
    return True


def _title(fleet: Fleet, version: Version, number: int) -> str:
    tarball = size(version.size_bytes) if version.size_bytes is not None else ""
    parts = [
        f"{utc(version.timestamp)} UTC",
        ago(version.timestamp, fleet.generated),
        f"on {count(number, 'machine')}",
        tarball if version.is_published else "not published any more",
    ]
    return ", ".join(filter(None, parts))


def _anchor(x: float) -> str:
    return "start" if x < 10 else "end" if x > 90 else "middle"
