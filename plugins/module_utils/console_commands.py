# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of Resonite's headless server, and what may be typed into a console at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError

QUERIES = ("status", "users", "worlds", "sessionurl", "sessionid", "friendrequests", "listbans", "debugworldstate")
"""Commands that only tell something."""

SUPPORTED_COMMANDS = (
    *QUERIES,
    *("focus", "acceptfriendrequest", "kick", "ban", "unban", "silence", "unsilence", "respawn", "role", "invite"),
    *("message", "save", "close", "restart", "name", "description", "accesslevel", "maxusers", "tickrate"),
    *("hidefromlisting", "awaykickinterval", "dynamicimpulse", "spawn", "import", "gc", "login", "logout"),
    *("saveconfig", "log", "shutdown"),
)
"""All commands that are typed without `raw`. The server does not care about upper and lower case."""

# A terminal takes lines of 4095 bytes (N_TTY_BUF_SIZE in Linux) and drops the rest.
_LINE_MAX_BYTES = 4000


def compose(command: str, arguments: Sequence[str]) -> str:
    """Write a command with its arguments, quoted where they have spaces, as the server parts them again."""
    return " ".join([command, *map(_quoted, arguments)])


def check_command(command: str, raw: bool) -> str:
    """Return the line to be typed; raises `HakuError` for one that is not a single line, or not supported."""
    check_line(command)
    word = command.split()[0].lower()
    if not raw and word not in SUPPORTED_COMMANDS:
        raise HakuError(
            f"{word!r} is not a supported console command",
            remedy=f"Set raw to type it all the same, or use one of: {', '.join(SUPPORTED_COMMANDS)}",
        )
    return command


def check_line(command: str) -> None:
    """Raise `HakuError` unless this is one line that every terminal takes as it is."""
    if not command.strip():
        raise HakuError("An empty line is not a command", remedy="Give a command, for example: status")
    bad = next((it for it in command if unicodedata.category(it) in ("Cc", "Zl", "Zp", "Cs")), None)
    if bad is not None:
        raise HakuError(
            f"The command has the character U+{ord(bad):04X}, which would end the line or control the terminal",
            remedy="Type one command at a time, without newlines and control characters",
        )
    if len(command.encode()) > _LINE_MAX_BYTES:
        raise HakuError(f"The command is longer than {_LINE_MAX_BYTES} bytes, and a terminal would cut it off")


def is_query(command: str) -> bool:
    """Whether a command only tells something."""
    return command.split()[0].lower() in QUERIES


def ends_server(command: str) -> bool:
    """Whether a command is the one that ends the server."""
    return command.split()[0].lower() == "shutdown"


def _quoted(argument: str) -> str:
    if '"' in argument:
        raise HakuError(
            # Not which one: it may be secret, and Ansible does not recognise it once it is quoted.
            "An argument has a quotation mark, and the server has no way to write one",
            remedy="Leave it out, or use single quotation marks",
        )
    return f'"{argument}"' if not argument or any(it.isspace() for it in argument) else argument
