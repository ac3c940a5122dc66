# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every playbook, whatever a user's ansible.cfg says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
PLAYS = [
    pytest.param(play, id=f"{path.stem}: {play['name']}")
    for path in sorted(PLAYBOOKS.glob("*.yml"))
    for play in yaml.safe_load(path.read_text())
    if "hosts" in play
]


def tasks(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a play or a block, and of the blocks in it."""
    for section in ("tasks", "block", "rescue"):
        for task in holder.get(section, ()):
            yield task
            yield from tasks(task)


@pytest.mark.parametrize("play", PLAYS)
def test_what_is_done_once_for_all_machines_waits_for_all_of_them(play: dict[str, Any]) -> None:
    """The strategy `free` lets the first machine do it before the others have told anything, and refuses `add_host`."""
    once = [task["name"] for task in tasks(play) if task.get("run_once") or "ansible.builtin.add_host" in task]
    assert not once or play.get("strategy") == "ansible.builtin.linear"
