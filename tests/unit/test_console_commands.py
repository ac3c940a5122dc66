# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be typed into a console, and what its answers mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.console_answers import parse_answer, parse_status, parse_users
from ansible_collections.haku.river.plugins.module_utils.console_commands import (
    SUPPORTED_COMMANDS,
    check_command,
    compose,
    is_query,
)
from ansible_collections.haku.river.plugins.module_utils.console_run import Asking
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.instance import Wish
from ansible_collections.haku.river.plugins.module_utils.instance_stop import Stopping

# What the server's documentation and its users show; names may hold nearly anything.
STATUS = """\
Name: My: World - do not join
SessionID: S-87fe7d8f-6571-4c6a-938b-21c0757afab8
Current Users: 1
12:00:00 AM.000 ( 60 FPS)\tUpdated: Private -> RegisteredUsers
Present Users: 0
Max Users: 6
Uptime: 01:12:35.4423964
Access Level: RegisteredUsers
Hidden from listing: False
Mobile Friendly: True
Description: Name: something > else
Tags: debug, test
Users: A-Bot"""


def test_arguments_with_spaces_are_quoted() -> None:
    assert compose("message", ["Some One", "hello", ""]) == 'message "Some One" hello ""'
    assert compose("status", []) == "status"
    with pytest.raises(HakuError, match="quotation mark") as refused:
        compose("login", ["bot", 's3\'cret "b"'])
    assert "s3" not in str(refused.value)


def test_the_commands_of_the_server_are_known() -> None:
    documented = """
        status users worlds focus sessionurl sessionid friendrequests acceptfriendrequest listbans
        kick ban unban silence unsilence respawn role invite message save close restart name
        description accesslevel maxusers tickrate hidefromlisting awaykickinterval dynamicimpulse
        spawn import gc login logout saveconfig debugworldstate log shutdown
    """
    assert sorted(SUPPORTED_COMMANDS) == sorted(documented.split())


def test_commands_are_known_in_any_case() -> None:
    assert check_command("friendRequests", raw=False) == "friendRequests"
    assert is_query("Status")
    assert not is_query("save")


def test_a_line_that_a_terminal_would_cut_off_is_refused() -> None:
    with pytest.raises(HakuError, match="longer than 4000 bytes"):
        check_command("message a " + "ü" * 2000, raw=True)


@pytest.mark.parametrize("command", ["shutdown\n", "save\nshutdown", " "])
def test_a_server_is_not_stopped_by_a_command_that_cannot_be_typed(command: str) -> None:
    with pytest.raises(HakuError, match=r"would end the line|is not a command"):
        Stopping(shutdown_command=command)
    assert Stopping(shutdown_command="").shutdown_command == ""


@pytest.mark.parametrize("number", [-1, -0.5, math.nan, math.inf])
def test_a_time_below_zero_is_refused_by_its_name(number: Any) -> None:
    makers: dict[str, Callable[[], object]] = {
        "grace_period": lambda: Stopping(grace_seconds=number),
        "stop_timeout": lambda: Stopping(signal_seconds=number),
        "exec_timeout": lambda: Wish("server", program_seconds=number),
        "answer_timeout": lambda: Asking("server", "status", timeout_seconds=number),
        "delay": lambda: Asking("server", "status", delay_seconds=number),
        "retries": lambda: Asking("server", "status", retries=number),
    }
    for name, make in makers.items():
        with pytest.raises(HakuError, match=f"^{name} is {number}, and cannot be below 0"):
            make()
    assert Stopping(grace_seconds=0, signal_seconds=0).grace_seconds == 0


def test_status_is_a_dictionary() -> None:
    assert parse_answer("status", STATUS) == {
        "name": "My: World - do not join",
        "session_id": "S-87fe7d8f-6571-4c6a-938b-21c0757afab8",
        "current_users": 1,
        "present_users": 0,
        "max_users": 6,
        "uptime": "01:12:35.4423964",
        "access_level": "RegisteredUsers",
        "hidden_from_listing": False,
        "mobile_friendly": True,
        "description": "Name: something > else",
        "tags": ["debug", "test"],
        "users": ["A-Bot"],
    }


def test_a_description_of_several_lines_is_not_taken_for_the_lines_around_it() -> None:
    status = STATUS.replace("Description: ", "Description: Name: ours\nTags: none\nUsers: welcome\n")
    parsed = parse_status(status)
    assert (parsed["name"], parsed["tags"], parsed["users"]) == (
        "My: World - do not join",
        ["debug", "test"],
        ["A-Bot"],
    )


def test_a_user_without_an_account_has_no_id() -> None:
    (user,) = parse_users("Guest PC\tID: \tRole: Guest\tPresent: True\tPing: 3 ms\tFPS: 60\tSilenced: False")
    assert (user["name"], user["id"]) == ("Guest PC", "")


@pytest.mark.parametrize("gap", ["\t", "     "])
def test_lists_are_lists_of_dictionaries(gap: str) -> None:
    users = gap.join(
        ["A > B", "ID: U-1", "Role: Admin", "Present: False", "Ping: 0 ms", "FPS: 60.00322", "Silenced: True"]
    )
    user = {"name": "A > B", "id": "U-1", "role": "Admin", "present": False, "ping_ms": 0, "fps": 60.00322}
    assert parse_answer("users", f"log\n{users}\nlog") == [{**user, "silenced": True}]
    worlds = gap.join(["[3] Users: a world", "Users: 2", "Present: 1", "AccessLevel: Anyone", "MaxUsers: 6"])
    assert parse_answer("worlds", worlds) == [
        {"index": 3, "name": "Users: a world", "users": 2, "present": 1, "access_level": "Anyone", "max_users": 6}
    ]
    bans = gap.join(["[0]", "Username: Bad One", "UserID: U-3", "MachineIds: 66a, 66b"])
    assert parse_answer("listbans", bans) == [
        {"index": 0, "username": "Bad One", "user_id": "U-3", "machine_ids": ["66a", "66b"]}
    ]
    assert parse_answer("listbans", "") == []
    assert parse_answer("save", "World saved") is None
