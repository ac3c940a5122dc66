# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of Resonite's headless server as data; other lines, such as those of its log, are passed over."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Union

Parsed = Union[dict[str, Any], list[dict[str, Any]]]

_STATUS = {
    "name": "Name",
    "session_id": "SessionID",
    "current_users": "Current Users",
    "present_users": "Present Users",
    "max_users": "Max Users",
    "uptime": "Uptime",
    "access_level": "Access Level",
    "hidden_from_listing": "Hidden from listing",
    "mobile_friendly": "Mobile Friendly",
    "description": "Description",
    "tags": "Tags",
    "users": "Users",
}
_COUNTS = ("current_users", "present_users", "max_users")
_FLAGS = ("hidden_from_listing", "mobile_friendly")
_LISTS = ("tags", "users")

# Names may have spaces and colons; what follows them is parted by tabs, which a terminal may turn into spaces.
_USER = re.compile(
    r"(?P<name>.*?)\s+ID: (?P<id>\S*)\s+Role: (?P<role>.*?)\s+Present: (?P<present>True|False)"
    r"\s+Ping: (?P<ping>-?\d+) ms\s+FPS: (?P<fps>\S+)\s+Silenced: (?P<silenced>True|False)\s*"
)
_WORLD = re.compile(
    r"\[(?P<index>\d+)\] (?P<name>.*?)\s+Users: (?P<users>\d+)\s+Present: (?P<present>\d+)"
    r"\s+AccessLevel: (?P<access_level>\S+)\s+MaxUsers: (?P<max_users>\d+)\s*"
)
_BAN = re.compile(
    r"\[(?P<index>\d+)\]\s+Username: (?P<username>.*?)\s+UserID: (?P<user_id>\S*)"
    r"\s+MachineIds:\s*(?P<machine_ids>.*?)\s*"
)


def parse_answer(command: str, answer: str) -> Parsed | None:
    """The answer to `status`, `users`, `worlds` or `listbans` as data; None for other commands."""
    parser = _PARSERS.get(command.split()[0].lower())
    return parser(answer) if parser else None


def parse_status(answer: str) -> dict[str, Any]:
    """The focused world; keys of lines that the server did not write are missing.

    A description may have lines like those before and after it: before it the first ones count, after it the last.
    """
    found: dict[str, Any] = {}
    for line in answer.splitlines():
        for key, label in _STATUS.items():
            if line.startswith(f"{label}:") and (key not in found or key in _LISTS):
                found[key] = _status_value(key, line[len(label) + 1 :].strip())
    return found


def parse_users(answer: str) -> list[dict[str, Any]]:
    """The users in the focused world."""
    return [
        {
            "name": user["name"],
            "id": user["id"],
            "role": user["role"],
            "present": user["present"] == "True",
            "ping_ms": int(user["ping"]),
            "fps": _number(user["fps"]),
            "silenced": user["silenced"] == "True",
        }
        for user in _lines_like(_USER, answer)
    ]


def parse_worlds(answer: str) -> list[dict[str, Any]]:
    """The worlds of the server."""
    return [
        {
            "index": int(world["index"]),
            "name": world["name"],
            "users": int(world["users"]),
            "present": int(world["present"]),
            "access_level": world["access_level"],
            "max_users": int(world["max_users"]),
        }
        for world in _lines_like(_WORLD, answer)
    ]


def parse_bans(answer: str) -> list[dict[str, Any]]:
    """The bans."""
    return [
        {
            "index": int(ban["index"]),
            "username": ban["username"],
            "user_id": ban["user_id"],
            "machine_ids": [it for it in re.split(r"[,\s]+", ban["machine_ids"]) if it],
        }
        for ban in _lines_like(_BAN, answer)
    ]


_PARSERS: dict[str, Callable[[str], Parsed]] = {
    "status": parse_status,
    "users": parse_users,
    "worlds": parse_worlds,
    "listbans": parse_bans,
}


def _lines_like(pattern: re.Pattern[str], answer: str) -> list[re.Match[str]]:
    return [match for match in map(pattern.fullmatch, answer.splitlines()) if match]


def _status_value(key: str, value: str) -> Any:
    if key in _COUNTS:
        return int(value) if value.isdecimal() else None
    if key in _FLAGS:
        return value == "True"
    if key in _LISTS:
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _number(text: str) -> float | None:
    """A number as .NET writes it: with a point or, in some locales, a comma; or `NaN`."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return None if math.isnan(number) else number
