# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as one web page, complete in itself: no script, and nothing that has to be fetched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils import human
from ansible_collections.haku.river.plugins.plugin_utils.fleet import (
    Condition,
    Environment,
    Fleet,
    Machine,
    Standing,
    Version,
)
from ansible_collections.haku.river.plugins.plugin_utils.page_rows import FULL, complaints, full_disks, rows
from ansible_collections.haku.river.plugins.plugin_utils.page_timeline import Axis, Timeline, timeline
from jinja2 import Environment as Templates, FileSystemLoader, StrictUndefined

_TEMPLATE = "page.html.j2"
_LABELS = {
    Condition.PROBLEM: "with a problem",
    Condition.STALE: "stale",
    Condition.LACKING: "without an image",
    Condition.CURRENT: "current",
}
# From so many machines on, their tiles are smaller.
_TILE_SIZES = ((400, "tiny"), (80, "small"), (16, "medium"), (0, "large"))


@dataclass(frozen=True)
class Tile:
    """A machine at a glance."""

    condition: str
    title: str


@dataclass(frozen=True)
class Share:
    """How many machines are in a condition."""

    condition: str
    label: str
    number: int


@dataclass(frozen=True)
class Card:
    """An environment: its versions, a drawing of them, and how many machines are where."""

    environment: Environment
    drawing: Timeline
    versions: tuple[tuple[Version, tuple[Machine, ...]], ...]
    image_bytes: int | None
    adoption: str


def page(fleet: Fleet) -> str:
    """The page. Whatever comes from machines is escaped by the template, without exception."""
    templates = Templates(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(utc=human.utc, size=human.size)
    axis = Axis(fleet)
    return (
        templates.get_template(_TEMPLATE)
        .render(
            fleet=fleet,
            verdict=verdict(fleet),
            shares=_shares(fleet),
            tiles=_tiles(fleet),
            tile_size=next(name for least, name in _TILE_SIZES if len(fleet.machines) >= least),
            complaints=complaints(fleet),
            full_disks=full_disks(fleet),
            full=FULL,
            cards=[_card(fleet, environment, axis) for environment in fleet.environments],
            rows=rows(fleet),
            labels=_LABELS,
            totals=_totals(fleet),
            ago=lambda timestamp: human.ago(timestamp, fleet.generated),
            count=human.count,
        )
        .lstrip()
    )


def verdict(fleet: Fleet) -> str:
    """What the page says, in a few words."""
    total = len(fleet.machines)
    well = sum(fleet.condition(machine) is Condition.CURRENT for machine in fleet.machines)
    if not total:
        return "No machine was found"
    if well == total:
        return "The machine is current" if total == 1 else f"All {total:,} machines are current"
    if total == 1:
        return "The machine needs attention"
    needy = total - well
    return f"{needy:,} of {human.count(total, 'machine')} need{'s' if needy == 1 else ''} attention"


def _shares(fleet: Fleet) -> list[Share]:
    numbers = Counter(fleet.condition(machine) for machine in fleet.machines)
    return [
        Share(condition.value, label, numbers[condition]) for condition, label in _LABELS.items() if numbers[condition]
    ]


def _tiles(fleet: Fleet) -> list[Tile]:
    tiles = {condition: list[Tile]() for condition in Condition}
    for machine in fleet.machines:
        condition = fleet.condition(machine)
        tiles[condition].append(Tile(condition.value, f"{machine.name}: {_LABELS[condition]}"))
    return [tile for alike in tiles.values() for tile in alike]


def _card(fleet: Fleet, environment: Environment, axis: Axis) -> Card:
    held = [machine.holdings[environment.name] for machine in fleet.machines if environment.name in machine.holdings]
    newest = environment.newest
    sizes = [it.size_bytes for it in held if it.size_bytes is not None and newest and it.version == newest.timestamp]
    versions = tuple((version, fleet.having(environment, version)) for version in environment.versions)
    return Card(
        environment,
        timeline(fleet, environment, axis),
        versions,
        max(sizes, default=None),
        _adoption(fleet, environment),
    )


def _adoption(fleet: Fleet, environment: Environment) -> str:
    numbers = Counter(machine.standing(environment) for machine in fleet.machines)
    stale = numbers[Standing.BEHIND] + numbers[Standing.AHEAD]
    parts = [
        (numbers[Standing.CURRENT], "current"),
        (stale, "stale"),
        (numbers[Standing.UNPUBLISHED], "with an image"),
        (numbers[Standing.MISSING], "without an image"),
        (numbers[Standing.UNKNOWN], "not known"),
    ]
    return ", ".join(f"{number:,} {words}" for number, words in parts if number)


def _totals(fleet: Fleet) -> dict[str, Any]:
    published = [
        version for environment in fleet.environments for version in environment.versions if version.is_published
    ]
    return {
        "versions": len(published),
        "bytes": sum(version.size_bytes or 0 for version in published),
        "sized": any(version.size_bytes is not None for version in published),
    }
