# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The chart: seconds of each step as bars, an SVG that follows the reader's light or dark background."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from .contenders import HAKU_RIVER
from .report import OTHERS, STEPS, ratio, seconds, size
from .results import Case, Results

_COLUMN_WIDTH, _GAP = 500, 40
_NAME_WIDTH, _BAR_WIDTH = 140, 220
_TOP, _HEADING, _STEP_HEIGHT, _ROW_HEIGHT, _BAR_HEIGHT = 74, 34, 34, 21, 13
_LEAST_BAR = 2  # a bar that cannot be seen is not one

_STYLE = """
  text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; }
  .title { font-size: 19px; font-weight: 650; } .quiet { fill: #636c76; } .engine { font-size: 15px; font-weight: 650; }
  .step { font-weight: 600; } .ours { font-weight: 650; }
  .bar { fill: #b6bfc9; } .bar.ours { fill: #0e8a7d; } .line { stroke: #d0d7de; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #8d96a0; } .bar { fill: #57606a; } .bar.ours { fill: #3fc7b5; }
    .line { stroke: #30363d; }
  }
"""


def svg(machine: Mapping[str, Any], seen: Results) -> str:
    """Draw the steps on XFS, a column for each engine; every step has a scale of its own."""
    engines = list(dict.fromkeys(case.engine for case in seen.cases if case.step in STEPS and case.shared == "xfs"))
    width = max(len(engines), 2) * (_COLUMN_WIDTH + _GAP) - _GAP
    body: list[str] = []
    height = 0
    for number, engine in enumerate(engines):
        about = machine["engines"][engine]
        column = _Column(number * (_COLUMN_WIDTH + _GAP))
        column.heading(f"Docker {about['version']}, {about['image_store']} image store")
        for step in STEPS:
            column.step(step, seen, Case(step, engine, "xfs", HAKU_RIVER))
        body += column.elements
        height = max(height, int(column.y))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 8}" width="{width}" role="img">',
        "<title>Seconds of each step, beside the other ways to move an environment</title>",
        f"<style>{_STYLE}</style>",
        _text(
            0, 22, f"Moving an environment of {size(machine['environment']['files_bytes'])}, changed by 3 MB", "title"
        ),
        _text(
            0,
            45,
            "Seconds, shorter is better; × is how much longer than haku.river. Each step has its own scale.",
            "quiet",
        ),
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class _Column:
    """What is drawn for one engine, from the top down."""

    def __init__(self, x: float) -> None:
        self.x = x
        self.y = float(_TOP)
        self.elements: list[str] = []

    def heading(self, text: str) -> None:
        self.elements.append(_text(self.x, self.y + 8, text, "engine"))
        line = self.y + 18
        self.elements.append(f'<path class="line" d="M{self.x} {line}h{_COLUMN_WIDTH}"/>')
        self.y += _HEADING - 8

    def step(self, name: str, seen: Results, ours: Case) -> None:
        """Draw one step's bars; contenders that were not measured are left out."""
        cases = [case for contender in (HAKU_RIVER, *OTHERS) if seen.of(case := ours.by(contender))]
        if not cases:
            return
        longest = max(seen.median(case) or 0 for case in cases)
        self.elements.append(_text(self.x, self.y + 22, name[0].upper() + name[1:], "step"))
        self.y += _STEP_HEIGHT
        for case in cases:
            self.elements += self._row(case, seen, ours, longest)
            self.y += _ROW_HEIGHT

    def _row(self, case: Case, seen: Results, ours: Case, longest: float) -> Iterator[str]:
        taken = seen.median(case) or 0
        length = max(taken / longest * _BAR_WIDTH, _LEAST_BAR)
        kind = " ours" if case == ours else ""
        baseline = self.y + _BAR_HEIGHT - 2
        yield _text(self.x, baseline, case.contender, f"name{kind or ' quiet'}")
        left = self.x + _NAME_WIDTH
        yield f'<rect class="bar{kind}" x="{left}" y="{self.y}" width="{length:.1f}" height="{_BAR_HEIGHT}" rx="2"/>'
        beside = "" if case == ours else f"  ·  {ratio(seen.ratio(case, ours))}"
        yield _text(left + length + 8, baseline, f"{seconds(taken)}{beside}", f"value{kind}")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
