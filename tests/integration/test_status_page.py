# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a fleet, in a real browser: for every eye, on every screen, whatever machines are called."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.filter.fleet_page import FilterModule

from tests import fleets
from tests.fleets import DAY, GIGABYTE, HOUR, NOW, Data, fleet, holding, machine, unreachable, versions
from tests.lab.browser import Browser, browsing

fleet_page = FilterModule().filters()["fleet_page"]

HOSTILE = fleet(
    {
        "<script>alert(1)</script>": versions("a", NOW),
        "</style><style>*{display:none}": versions("b", NOW - DAY),
        '" onmouseover="alert(2)" x="': versions("c", NOW - DAY),
        "n" * 200: versions("d", NOW - 5 * DAY),
    },
    {
        "<img src=x onerror=alert(3)>": machine(),
        "gpu'\"&amp;{{ 7 * 7 }}": unreachable("</p></li></ul><h1>All is well</h1><script>alert(4)</script>"),
        "m" * 200: {**machine("</table><iframe src=https://example.org>"), "note": "<!-- {% raw %} \u202e ]]>"},
        "</title><base href=https://example.org/>": {
            **machine(),
            "disk": {"path": '"><svg onload=alert(5)>', "total": 100, "free": 1},
            "engine": {"version": "<b>", "storage": "</td>"},
        },
    },
)

FLEETS = {
    "empty": fleets.NOTHING,
    "small": fleets.SMALL,
    "forty": fleets.large(40, 6),
    "thousand": fleets.large(1000, 12),
    "thousand, all different": fleets.large(1000, 12, distinct=True),
    "hostile": HOSTILE,
}

# Every text that is shown, with its colour and what lies below it, blended from the page up.
CONTRASTS = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const over = ([r, g, b, a = 1], below) => [r, g, b].map((part, index) => part * a + below[index] * (1 - a));
const ground = (element) => element
  ? over(numbers(getComputedStyle(element).backgroundColor), ground(element.parentElement))
  : [255, 255, 255];
const found = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("title")) continue;
  const style = getComputedStyle(element);
  const below = ground(element);
  const colour = over(numbers(element.closest("svg") ? style.fill : style.color), below);
  const [dark, light] = [luminance(colour), luminance(below)].sort((a, b) => a - b);
  found.set(`${element.tagName}.${element.getAttribute("class")}`, (light + 0.05) / (dark + 0.05));
}
return [...found];
"""

OUTSIDE = """
return [...document.querySelectorAll("svg text")].filter((text) => {
  const [frame, place] = [text.ownerSVGElement.getBoundingClientRect(), text.getBoundingClientRect()];
  return place.left < frame.left - 1 || place.right > frame.right + 1 || place.top < frame.top - 1;
}).map((text) => text.textContent);
"""

OPEN_ALL = "document.querySelectorAll('details').forEach((it) => { it.open = true; })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a browser."""
    with browsing() as started:
        yield started


@pytest.fixture(params=FLEETS)
def data(request: pytest.FixtureRequest) -> Data:
    """Give fleet data, of each kind in turn."""
    return FLEETS[request.param]


@pytest.fixture
def page(data: Data, tmp_path: Path) -> Path:
    """Give the page of a fleet."""
    return written(data, tmp_path)


def written(data: Data, directory: Path) -> Path:
    path = directory / "page.html"
    path.write_text(fleet_page(data))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fetches_nothing_and_has_nothing_to_complain_about(browser: Browser, page: Path, dark: bool) -> None:
    browser.show(page, dark=dark)
    assert browser.complaints() == []
    assert {address for address in browser.fetched() if not address.startswith("data:")} == {page.as_uri()}
    assert browser.run("return document.compatMode") == "CSS1Compat"
    assert browser.run("return document.scripts.length") == 0


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 2560])
def test_the_page_is_no_wider_than_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width=width)
    for _state in ("closed", "opened"):
        assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
        browser.run(OPEN_ALL)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_text_stands_out_from_its_ground(browser: Browser, page: Path, dark: bool, width: int) -> None:
    browser.show(page, width=width, dark=dark)
    browser.run(OPEN_ALL)
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) >= 5
    assert {where: ratio for where, ratio in contrasts if ratio < 4.5} == {}


def test_light_and_dark_differ(browser: Browser, tmp_path: Path) -> None:
    page = written(fleets.SMALL, tmp_path)
    grounds = []
    for dark in (False, True):
        browser.show(page, dark=dark)
        colour = browser.run("return getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3)
    light, dark_ground = grounds
    assert light > 240
    assert dark_ground < 30


def test_every_machine_and_every_environment_is_there(browser: Browser, page: Path, data: Data) -> None:
    browser.show(page)
    browser.run(OPEN_ALL)
    cards = browser.run("return [...document.querySelectorAll('.card h3')].map((it) => it.textContent)")
    assert sorted(cards) == sorted(data["environments"])
    columns = browser.run("return [...document.querySelectorAll('th.environment')].map((it) => it.textContent.trim())")
    assert sorted(columns) == sorted(data["environments"] if data["machines"] else [])
    heads = browser.run("return [...document.querySelectorAll('.matrix [scope=row]')].map((it) => it.textContent)")
    missing = [name for name in data["machines"] if not any(name in head for head in heads)]
    assert missing == []
    tiles = browser.run("return [...document.querySelectorAll('.tiles i')].map((it) => it.title.split(': ')[0])")
    assert len(tiles) == len(data["machines"])


def test_names_and_messages_of_any_kind_are_only_text(browser: Browser, tmp_path: Path) -> None:
    page = written(HOSTILE, tmp_path)
    browser.show(page)
    browser.run(OPEN_ALL)
    shown = browser.run("return document.body.innerText")
    told = [part["problem"] for part in HOSTILE["machines"].values() if part["problem"]]
    for text in (*HOSTILE["environments"], *HOSTILE["machines"], *told):
        assert text in shown
    foreign = "script, img, iframe, base, body svg:not(.timeline), [onload], [onerror], [onmouseover]"
    assert browser.run("return document.querySelectorAll(arguments[0]).length", foreign) == 0
    assert browser.run("return document.querySelectorAll('h1').length") == 1
    assert "49" not in browser.run("return document.querySelector('.problems').innerText")
    assert browser.complaints() == []


def test_problems_stand_on_top_with_their_causes(browser: Browser, tmp_path: Path) -> None:
    data = fleet(
        {"env": versions("env", NOW)},
        {
            "gpu1": machine(env=holding(NOW)),
            "gpu2": machine(env=holding(NOW - DAY)),
            "gpu3": unreachable("ssh: connect to host 192.0.2.3 port 22: No route to host"),
            "gpu4": unreachable("ssh: connect to host 192.0.2.4 port 22: No route to host"),
            "gpu5": machine("There is no directory /shared.", env=holding(NOW), free=3 * GIGABYTE),
            "gpu6": machine(),
        },
    )
    browser.show(written(data, tmp_path))
    assert browser.run("return document.querySelector('h1').textContent") == "5 of 6 machines need attention"
    problems = browser.run("return [...document.querySelectorAll('.problems li')].map((it) => it.innerText)")
    assert [problem.split("\n", 1)[0] for problem in problems] == [
        "ssh: connect to host … port 22: No route to host",
        "There is no directory /shared.",
        "Less than 10 % of the disk is free on 1 machine.",
    ]
    assert "gpu3, gpu4" in problems[0]
    assert "gpu5" in problems[1]
    order = (
        "return [...document.querySelectorAll('h2')].filter((it) => it.offsetHeight > 1).map((it) => it.textContent)"
    )
    assert browser.run(order) == ["Problems", "Environments", "Machines"]
    heads = browser.run("return [...document.querySelectorAll('.matrix [scope=row]')].map((it) => it.innerText)")
    assert [head.split("\n")[0] for head in heads] == ["gpu3", "gpu4", "gpu5", "gpu2", "gpu6", "gpu1"]
    cells = browser.run("return [...document.querySelectorAll('td.s')].map((it) => [it.innerText.trim(), it.title])")
    assert cells == [["24\u00a0h", "2025-12-31 00:00 UTC"]]
    shares = browser.run("return [...document.querySelectorAll('.legend li')].map((it) => it.innerText)")
    assert [" ".join(share.split()) for share in shares] == [
        "3 with a problem",
        "1 stale",
        "1 without an image",
        "1 current",
    ]


@pytest.mark.parametrize("name", ["thousand", "thousand, all different"])
def test_a_thousand_machines_are_a_page_below_a_megabyte(browser: Browser, tmp_path: Path, name: str) -> None:
    page = written(FLEETS[name], tmp_path)
    assert page.stat().st_size < 1_000_000
    browser.show(page)
    rows = browser.run("return document.querySelectorAll('.matrix [scope=row]').length")
    if name == "thousand":
        assert rows < 200, "machines that are alike share a row"
    first, last = browser.run(
        "const tops = [...document.querySelectorAll('.matrix tr')].map((it) => it.getBoundingClientRect().top);"
        "return [tops.every((top, index) => !index || top > tops[index - 1]), tops.length]"
    )
    assert first, "rows stand below each other"
    assert last > rows


def test_drawings_have_words_and_places(browser: Browser, tmp_path: Path) -> None:
    browser.show(written(fleets.SMALL, tmp_path))
    labels = browser.run("return [...document.querySelectorAll('svg')].map((it) => it.ariaLabel)")
    assert labels[1] == (
        "Versions of python-data-science over time: 2025-12-31 22:00 UTC, 2 hours ago, on 1 machine, 741 MB; "
        "2025-12-23 00:00 UTC, 9 days ago, on 1 machine, 741 MB"
    )
    places = (
        "[...document.querySelectorAll('svg')[1].querySelectorAll('circle')].map((it) => it.getBoundingClientRect().x)"
    )
    old, new = browser.run(f"return {places}")
    assert old < new


def test_drawings_fit_into_their_place(browser: Browser, page: Path) -> None:
    browser.show(page, width=360)
    assert browser.run(OUTSIDE) == []


def test_times_are_told_by_age_with_the_moment_behind(browser: Browser, tmp_path: Path) -> None:
    browser.show(written(fleets.SMALL, tmp_path))
    times = browser.run("return [...document.querySelectorAll('.card time')].map((it) => [it.innerText, it.title])")
    assert times == [["4 weeks ago", "2025-12-02 00:00 UTC"], ["2 hours ago", "2025-12-31 22:00 UTC"]]
    assert "2026-01-01 00:00 UTC" in browser.run("return document.querySelector('header').innerText")


def test_the_page_can_be_read_by_ear_and_used_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    browser.show(written(fleets.large(100, 6), tmp_path))
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((it) => Number(it.tagName[1]))")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    assert browser.run("return document.querySelectorAll('th:not([scope])').length") == 0
    assert browser.run("return document.documentElement.lang") == "en"
    nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
    drawings = [node for node in nodes if node.get("role", {}).get("value") == "image"]
    assert len(drawings) == 6
    assert all(node["name"]["value"].startswith("Versions of") for node in drawings)
    browser.press("TAB")
    assert browser.run("return document.activeElement.innerText") == "Skip to the machines"
    for _try in range(40):
        browser.press("TAB")
        if browser.run("return document.activeElement.matches('.matrix summary')"):
            break
    browser.press("ENTER")
    assert browser.run("return document.activeElement.parentElement.open")
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_on_paper_it_is_black_on_white_and_complete(browser: Browser, tmp_path: Path) -> None:
    browser.show(written(fleets.large(100, 6), tmp_path), dark=True, media="print")
    colours: list[Any] = browser.run(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    ink, ground = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in colours]
    assert ink < 60
    assert ground > 240
    hidden = "[...document.querySelectorAll('details > :last-child')].filter((it) => !it.checkVisibility())"
    assert browser.run(f"return {hidden}.length") == 0
    assert browser.paper().startswith(b"%PDF")


def test_a_clock_that_is_ahead_does_no_harm(browser: Browser, tmp_path: Path) -> None:
    data = fleet(
        {"env": versions("env", NOW + 3 * HOUR, 999_999_999_999)}, {"gpu1": machine(env=holding(NOW + 3 * HOUR))}
    )
    browser.show(written(data, tmp_path), width=360)
    browser.run(OPEN_ALL)
    assert "in 3 hours" in browser.run("return document.body.innerText")
    assert browser.run("return document.querySelector('.card .newest').innerText").startswith("Packaged in 31,")
    assert browser.run("return document.documentElement.scrollWidth") == 360
