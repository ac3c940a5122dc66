# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a machine that a play has looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What Ansible puts before the words of others.
_PREAMBLE = re.compile(
    r"^((Task failed|Module failed|Failed to connect to the host via [a-z]+): |"
    r'Data could not be sent to remote host "[^"]*"\. Make sure this host can be reached over [a-z]+: )+'
)


def failure(result: Mapping[str, Any]) -> str:
    """Why a task failed, as a sentence without what Ansible adds to it; empty if it did not say."""
    if result.get("timedout"):
        # Ansible's words differ from version to version, and none of them says where to look.
        return (
            f"It had not answered after {result['timedout']['period']} seconds. "
            "Look whether the machine does, and the file server of its shared directory."
        )
    items = [it for it in result.get("results") or () if it.get("failed") or it.get("unreachable")]
    if items:
        return failure(items[0])
    words = _PREAMBLE.sub("", " ".join(str(result.get("msg") or "").split()))
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."


def look_problem(look: Mapping[str, Any], host: Mapping[str, Any]) -> str:
    """Why a machine is out of order, by a look at it and the same look at the Host; empty if it is not."""
    return failure(look) or _other_directory(look.get("directory") or {}, host.get("directory") or {})


def _other_directory(here: Mapping[str, Any], hosts: Mapping[str, Any]) -> str:
    """What is said of a directory that is not the Host's; nothing where the Host has not marked its own."""
    if not here or not hosts.get("id") or here.get("id") == hosts["id"]:
        return ""
    says = f"says {here['id']}" if here.get("id") else "is missing"
    return (
        f"{here['location']} is not the directory that the Host has: its marker .haku-river {says}, "
        f"and the Host's says {hosts['id']}. Mount the same directory on both."
    )
