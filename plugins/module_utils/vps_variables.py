# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of an environment in the sessions of its VPS: an SSH server gives them its own and no others.

For a command (`ssh machine nvcc`) the server reads `~/.ssh/environment`, see sshd(8). A login shell then sets PATH anew
in /etc/profile, and reads the files in /etc/profile.d last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

PROFILE_DIRECTORY = "/etc/profile.d"
PROFILE = "haku-river.sh"
SESSION_FILE = "environment"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What is a session's own, whatever the image says.
_OF_THE_SESSION = frozenset({"HOME", "LOGNAME", "MAIL", "SHELL", "TERM", "USER"})


def session_file(variables: Iterable[str]) -> bytes:
    """The content of `~/.ssh/environment`, which takes no value of several lines. `variables` are NAME=VALUE."""
    lines = (f"{name}={value}\n" for name, value in _for_sessions(variables) if not {"\n", "\r"} & set(value))
    return "".join(lines).encode()


def profile(variables: Iterable[str]) -> bytes:
    """The content of a file in /etc/profile.d."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _for_sessions(variables)).encode()


def _for_sessions(variables: Iterable[str]) -> Iterator[tuple[str, str]]:
    for variable in variables:
        name, _equals, value = variable.partition("=")
        if _NAME.fullmatch(name) and name not in _OF_THE_SESSION:
            yield name, value
