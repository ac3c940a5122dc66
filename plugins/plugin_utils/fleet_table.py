# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as a table for the terminal: a row for each machine, a column for each environment."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from ansible_collections.haku.river.plugins.plugin_utils.fleet import (
    Condition,
    Environment,
    Fleet,
    Machine,
    Standing,
)
from ansible_collections.haku.river.plugins.plugin_utils.human import count, printable, utc

_GAP = "  "
_HEADER_CHARACTERS = 22
_MARKS = {
    Standing.BEHIND: "stale",
    Standing.AHEAD: "stale",
    Standing.MISSING: "-",
    Standing.UNKNOWN: "?",
}
_LEGEND = {
    "stale": "stale: another version than the newest",
    "-": "-: no image",
    "?": "?: not known",
}

Column = Sequence[str]


def table(fleet: Fleet, width: int) -> str:
    """The fleet in lines of at most `width` characters, as far as its names allow.

    Environments that do not fit beside each other follow below. What is wrong, and what has happened, stands under the
    table, machine by machine, and the sum of it all in the last line.
    """
    first = ["Machine", "(newest)", *(printable(machine.name) for machine in fleet.machines)]
    columns = [_column(fleet, environment) for environment in fleet.environments]
    blocks = [_lines([first, *block]) for block in _blocks(first, columns, width)]
    remarks = [line for machine in fleet.machines for line in _remarks(machine, width)]
    parts = ["\n".join(block) for block in blocks] if fleet.machines else []
    parts += ["\n".join(remarks)] if remarks else []
    ending = [*_legend(fleet, width), *_wrapped(summary(fleet), width)]
    return "\n\n".join([*parts, "\n".join(ending)])


def summary(fleet: Fleet) -> str:
    """One sentence: how many machines are not as they should be, and why."""
    conditions = Counter(fleet.condition(machine) for machine in fleet.machines)
    wrong = [
        count(conditions[Condition.PROBLEM], "has a problem", "have a problem"),
        count(conditions[Condition.STALE], "is stale", "are stale"),
        count(conditions[Condition.LACKING], "lacks an environment", "lack an environment"),
    ]
    told = ", ".join(words for words in wrong if not words.startswith("0 "))
    machines = count(len(fleet.machines), "machine")
    return f"Of {machines}, {told}." if told else f"{machines}, nothing to do."


def _column(fleet: Fleet, environment: Environment) -> list[str]:
    """The environment's name, its newest version, and what each machine has of it."""
    minutes = [utc(version.timestamp) for version in environment.versions]
    seconds = len(set(minutes)) < len(minutes)
    newest = environment.newest
    cells = [_cell(environment, machine, seconds) for machine in fleet.machines]
    return [environment.name, utc(newest.timestamp, seconds) if newest else "-", *cells]


def _cell(environment: Environment, machine: Machine, seconds: bool) -> str:
    holding = machine.holdings.get(environment.name)
    mark = _MARKS.get(machine.standing(environment), "")
    if holding is None or holding.version is None:
        return mark
    return f"{utc(holding.version, seconds)} {mark}".rstrip()


def _blocks(first: Column, columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """The columns in groups that each fit beside the first one."""
    block: list[Column] = []
    for column in columns:
        if block and sum(_width(it) + len(_GAP) for it in [*block, column]) + _width(first) > width:
            yield block
            block = []
        block.append(column)
    if block:
        yield block


def _lines(columns: Sequence[Column]) -> list[str]:
    widths = [_width(column) for column in columns]
    headers = [_header(column) for column in columns]
    height = max(map(len, headers))
    heads = [[""] * (height - len(header)) + header for header in headers]
    rows = [*zip(*heads), *zip(*(column[1:] for column in columns))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _width(column: Column) -> int:
    return max(map(len, [*_header(column), *column[1:]]))


def _header(column: Column) -> list[str]:
    """A name as lines, parted at its hyphens where it is long."""
    return textwrap.wrap(column[0], _HEADER_CHARACTERS) or [""]


def _remarks(machine: Machine, width: int) -> Iterator[str]:
    for remark in (machine.note, machine.problem):
        if remark:
            text = f"{printable(machine.name)}: {printable(remark)}"
            yield from _wrapped(text, width, indent=_GAP)


def _legend(fleet: Fleet, width: int) -> list[str]:
    standings = {machine.standing(environment) for environment in fleet.environments for machine in fleet.machines}
    marks = {_MARKS[standing] for standing in standings if standing in _MARKS}
    words = "; ".join(["Times are UTC", *(meaning for mark, meaning in _LEGEND.items() if mark in marks)])
    return _wrapped(f"{words}.", width) if fleet.environments else []


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The text in lines; a word that is longer than a line stays whole, to be copied."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
