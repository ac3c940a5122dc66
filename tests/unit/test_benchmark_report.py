# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark says what it measured: medians, ratios, targets, tables, chart."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks import chart, report, results, targets
from benchmarks.contenders import DOCKER, HAKU_RIVER, HAKURIVER
from benchmarks.results import Case, Results, Sample
from benchmarks.steps import PING, turns
from benchmarks.vps import BY_HAND

MACHINE: dict[str, Any] = {
    "date": "2026-01-01",
    "processor": "a processor",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "kernel": "6.1",
    "system": "Debian",
    "engine_storage": "ext4",
    "shared_directory": "an image file",
    "engines": {"d28": {"version": "28.5", "image_store": "overlay2"}},
    "environment": {
        "pip": {"numpy": "2.0"},
        "files_bytes": 700_000_000,
        "files_and_directories": 26_000,
        "change_bytes": 3_000_000,
    },
}


def case(step: str, contender: str = HAKU_RIVER, shared: str = "xfs", scale: int = 1) -> Case:
    return Case(step, "d28", shared, contender, scale)


def taken(case: Case, *seconds: float, **values: Any) -> list[Sample]:
    return [Sample(case, second, second + 1, **values) for second in seconds]


def verdict(seen: Results, what: str) -> targets.Verdict:
    (found,) = (verdict for verdict in targets.verdicts(seen) if verdict.what.startswith(what))
    return found


def test_a_ratio_is_that_of_the_medians() -> None:
    ours, theirs = case(results.FIRST_PACKAGE), case(results.FIRST_PACKAGE, DOCKER)
    seen = Results([*taken(ours, 1, 2, 90), *taken(theirs, 8, 1, 9)])
    assert seen.ratio(theirs, ours) == 4
    assert seen.ratio(theirs, ours, "process_seconds") == 3


def test_what_was_not_measured_has_no_ratio() -> None:
    ours = case(results.FIRST_PACKAGE)
    seen = Results(taken(ours, 1))
    assert seen.ratio(ours.by(DOCKER), ours) is None
    assert seen.median(ours, "away_seconds") is None


def test_documents_hold_every_run() -> None:
    ours = case(results.FIRST_PACKAGE)
    (document,) = Results(taken(ours, 1, 3, away_seconds=0.5)).documents()
    assert document["median"] == {"seconds": 2, "process_seconds": 3, "away_seconds": 0.5}
    assert [sample["seconds"] for sample in document["samples"]] == [1, 3]
    assert document["contender"] == HAKU_RIVER


@pytest.mark.parametrize(
    ("step", "shared", "contender", "theirs", "met"),
    [
        (results.FIRST_PACKAGE, "xfs", DOCKER, 3.1, True),
        (results.FIRST_PACKAGE, "xfs", DOCKER, 2.9, False),
        (results.CHANGE_SYNC, "xfs", HAKURIVER, 41, True),
        (results.CHANGE_SYNC, "xfs", HAKURIVER, 39, False),
        (results.CHANGE_SYNC, "xfs", DOCKER, 10, True),
        (results.CHANGE_PACKAGE, "ext4", HAKURIVER, 9, True),
        (results.CHANGE_PACKAGE, "xfs", HAKURIVER, 9, False),
    ],
)
def test_being_faster_is_judged_by_step_and_file_system(
    step: str, shared: str, contender: str, theirs: float, met: bool
) -> None:
    ours = case(step, shared=shared)
    (found,) = targets.verdicts(Results([*taken(ours, 1), *taken(ours.by(contender), theirs)]))
    assert found.at_least
    assert found.met is met


def test_disk_space_beyond_the_new_layer_is_judged() -> None:
    ours = case(results.CHANGE_PACKAGE)
    seen = Results(taken(ours, 1, new_space_bytes=3_500_000, new_layers_bytes=3_000_000, away_seconds=2.5))
    assert verdict(seen, "package after a change: new disk space").measured == 500_000
    assert verdict(seen, "package after a change: new disk space").met
    assert verdict(seen, "package after a change: the env container away").met is False


def test_the_most_that_any_run_has_read_is_judged() -> None:
    ours = case(results.CHANGE_SYNC)
    samples = [
        *taken(ours, 1, new_layers_bytes=3_000_000, told={"bytes_read": 3_000_100}),
        *taken(ours, 1, new_layers_bytes=3_000_000, told={"bytes_read": 9_000_000}),
    ]
    assert verdict(Results(samples), "sync of a change: bytes read").measured == 6_000_000


def test_nothing_to_do_is_held_against_a_ping() -> None:
    ours = case(results.NOTHING_BY_SSH, shared=results.NOTHING_SHARED)
    assert verdict(Results([*taken(ours, 1.2), *taken(ours.by(PING), 1)]), "nothing to do: wall time").met is True
    assert verdict(Results([*taken(ours, 1.4), *taken(ours.by(PING), 1)]), "nothing to do: wall time").met is False


def test_growth_is_held_against_the_smallest() -> None:
    size = case(results.SIZE)
    assert verdict(Results([*taken(size, 1), *taken(size.at(4), 1.3)]), "the same change").met is False


def test_memory_is_the_most_of_all_modules_and_not_of_the_others() -> None:
    seen = Results(
        [
            *taken(case(results.FIRST_SYNC), 1, peak_memory_bytes=40_000_000),
            *taken(case(results.FIRST_PACKAGE), 1, peak_memory_bytes=50_000_000),
            *taken(case(results.FIRST_PACKAGE, DOCKER), 1, peak_memory_bytes=200_000_000),
        ]
    )
    assert verdict(seen, "peak memory").measured == 50_000_000


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "-"), (142.4, "142×"), (8.25, "8.2×"), (2, "2.0×"), (0.954, "0.95×")],
)
def test_ratios_are_written_with_the_digits_that_matter(value: float | None, written: str) -> None:
    assert report.ratio(value) == written


@pytest.mark.parametrize(
    ("value", "written"), [(None, "-"), (31.4, "31 s"), (1.634, "1.63 s"), (0.0754, "75 ms"), (0, "0 ms")]
)
def test_times_are_written_with_the_digits_that_matter(value: float | None, written: str) -> None:
    assert report.seconds(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "-"), (0, "0"), (512, "512 B"), (3_006_464, "3.0 MB"), (693_653_504, "694 MB"), (-4096, "-4.1 kB")],
)
def test_sizes_are_written_with_the_digits_that_matter(value: float | None, written: str) -> None:
    assert report.size(value) == written


def test_the_report_sets_the_contenders_side_by_side() -> None:
    ours = case(results.CHANGE_SYNC)
    seen = Results([*taken(ours, 0.1), *taken(ours.by(DOCKER), 1.5), *taken(ours.by(HAKURIVER), 8)])
    text = report.markdown(MACHINE, seen, targets.verdicts(seen), "make bench", "benchmarks.svg")
    assert "| sync of that change | 0.10 s | 8.00 s, **80×** | 1.50 s, **15×** | - | - |" in text
    assert "![" in text
    assert "(benchmarks.svg)" in text
    assert "Docker 28.5, overlay2 image store, shared directory on XFS" in text
    assert "| ≥ 40× | 80× | met |" in text


def test_the_report_shows_growth_beside_the_smallest() -> None:
    size = case(results.SIZE)
    seen = Results([*taken(size, 0.1), *taken(size.at(4), 0.11)])
    text = report.markdown(MACHINE, seen, [], "make bench", "benchmarks.svg")
    assert "| 4 | haku.river | d28 | 0.11 s, 1.10× |" in text


def test_the_report_tells_how_long_a_machine_to_log_in_to_takes() -> None:
    ours = case(results.LOGIN, shared=results.NOTHING_SHARED)
    seen = Results([*taken(ours, 1.5), *taken(ours.by(BY_HAND), 0.5)])
    assert verdict(seen, results.LOGIN).met is True
    assert verdict(Results(taken(ours, 2.5)), results.LOGIN).met is False
    text = report.markdown(MACHINE, seen, [], "make bench", "benchmarks.svg")
    assert "| docker run | d28 | 0.50 s | 1.50 s | 0.60× |" in text


def test_the_chart_is_an_image_with_a_bar_for_each_contender() -> None:
    ours = case(results.CHANGE_SYNC)
    drawn = ET.fromstring(chart.svg(MACHINE, Results([*taken(ours, 0.1), *taken(ours.by(DOCKER), 1.5)])))
    bars = [element for element in drawn.iter() if element.tag.endswith("rect")]
    widths = [float(each.attrib["width"]) for each in bars]
    assert widths[1] == pytest.approx(15 * widths[0], rel=0.01)
    assert "prefers-color-scheme: dark" in chart.svg(MACHINE, Results())


def test_contenders_take_turns_and_slow_ones_leave_out_later_rounds() -> None:
    class One:
        def __init__(self, name: str, slow: bool) -> None:
            self.name, self.slow = name, slow

    contenders = [One("a", False), One("b", True), One("c", False)]
    assert [one.name for one in turns(contenders, 3, 2)] == ["a", "b", "c", "b", "c", "a", "a", "c"]
