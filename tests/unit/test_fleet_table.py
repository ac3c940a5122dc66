# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet in the terminal: who has what, in lines that fit."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.haku.river.plugins.filter.fleet_table import FilterModule
from ansible_collections.haku.river.plugins.plugin_utils import human

from tests.fleets import DAY, HOUR, NOTHING, NOW, SMALL, fleet, holding, large, machine, unreachable, versions

fleet_table = FilterModule().filters()["fleet_table"]


def test_each_machine_has_a_row_and_each_environment_a_column() -> None:
    assert fleet_table(SMALL, width=100).splitlines() == [
        "Machine   cuda-training     python-data-science",
        "(newest)  2025-12-02 00:00  2025-12-31 22:00",
        "gpu01     2025-12-02 00:00  2025-12-31 22:00",
        "gpu02     2025-12-02 00:00  2025-12-23 00:00 stale",
        "storage1",
        "",
        "Times are UTC; stale: another version than the newest.",
        "Of 3 machines, 1 is stale.",
    ]


def test_problems_and_what_has_happened_stand_below_machine_by_machine() -> None:
    data = fleet(
        {"env": versions("env", NOW)},
        {
            "gpu10": {**machine(env=holding(NOW)), "note": "Put back to the former version."},
            "gpu9": unreachable("ssh: No route\nto host"),
            "gpu2": machine(problem="There is no directory /shared."),
        },
    )
    assert fleet_table(data, width=60).splitlines() == [
        "Machine   env",
        "(newest)  2026-01-01 00:00",
        "gpu2      -",
        "gpu9      ?",
        "gpu10     2026-01-01 00:00",
        "",
        "gpu2: There is no directory /shared.",
        "gpu9: ssh: No route to host",
        "gpu10: Put back to the former version.",
        "",
        "Times are UTC; -: no image; ?: not known.",
        "Of 3 machines, 2 have a problem.",
    ]


@pytest.mark.parametrize("width", [40, 60, 79, 120])
def test_lines_are_no_longer_than_asked_for(width: int) -> None:
    text = fleet_table(large(40, 6), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("(newest)") == {40: 6, 60: 3, 79: 3, 120: 2}[width]
    # However narrow, each row begins with its machine.
    assert text.count("\ngpu0001") >= text.count("(newest)")


def test_versions_of_one_minute_are_told_apart() -> None:
    data = fleet({"env": versions("env", NOW + 9, NOW)}, {"gpu01": machine(env=holding(NOW))})
    assert "2026-01-01 00:00:00 stale" in fleet_table(data, width=80)


def test_a_version_that_is_gone_from_the_directory_is_stale_and_without_any_there_is_nothing_to_compare() -> None:
    there = {"gpu01": machine(env=holding(NOW))}
    assert "1 is stale" in fleet_table(fleet({"env": versions("env", NOW - DAY)}, there), width=80)
    assert "nothing to do" in fleet_table(fleet({}, there), width=80)


def test_what_a_machine_says_cannot_steer_the_terminal() -> None:
    text = fleet_table(fleet({}, {"gpu\x1b[2J": unreachable("\x1b]0;owned\x07 and\rover")}), width=80)
    assert "gpu\\x1b[2J: \\x1b]0;owned\\x07 and over" in text
    assert text.isprintable() or set(filter(lambda it: not it.isprintable(), text)) == {"\n"}


def test_a_host_needs_no_images() -> None:
    data = fleet({"env": versions("env", NOW)}, {"a": machine(role="host"), "b": machine(role="host and runner")})
    assert "Of 2 machines, 1 lacks an environment." in fleet_table(data, width=80)


def test_nothing_is_a_table_as_well() -> None:
    assert fleet_table(NOTHING, width=80) == "0 machines, nothing to do."


def test_empty_text_is_null_as_templates_make_it() -> None:
    data = fleet({"env": versions("env", NOW)}, {"a": {**machine(problem="", env=holding(NOW)), "disk": ""}})
    assert "nothing to do" in fleet_table(data, width=80)


@pytest.mark.parametrize(
    "data", [[], {}, {"machines": []}, {"machines": {"a": 1}, "generated": 1}, {**SMALL, "generated": "x"}]
)
def test_what_is_no_fleet_is_refused(data: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="takes fleet data"):
        fleet_table(data, width=80)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "1 minute"),
        (119, "1 minute"),
        (2 * HOUR - 1, "119 minutes"),
        (2 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (3 * 365 * DAY, "3 years"),
    ],
)
def test_durations_are_told_in_the_greatest_unit_that_says_enough(seconds: int, words: str) -> None:
    assert human.duration(seconds) == words
    assert human.ago(NOW - seconds, NOW) == f"{words} ago"


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (741_343_232, "741 MB"),
        (9_960_000_000, "10 GB"),
        (5 * 10**15, "5.0 PB"),
    ],
)
def test_sizes_are_told_in_two_or_three_digits(size_bytes: int, words: str) -> None:
    assert human.size(size_bytes) == words


def test_a_time_that_no_calendar_has_is_shown_as_it_is() -> None:
    assert human.utc(999_999_999_999) == "@999999999999"
