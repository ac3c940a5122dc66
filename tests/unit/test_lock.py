# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks: what they tell their next holder."""

from __future__ import annotations

import time
from pathlib import Path

from ansible_collections.haku.river.plugins.module_utils.lock import exclusive


def test_what_was_seen_before_somebody_else_held_it_has_to_be_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, 1, "a test"):
        seen_ns = time.time_ns()
    with exclusive(path, 1, "a test") as last_held_ns:
        assert last_held_ns >= seen_ns


def test_what_was_seen_since_it_was_held_is_still_so(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, 1, "a test"):
        pass
    seen_ns = time.time_ns()
    with exclusive(path, 1, "a test") as last_held_ns:
        assert last_held_ns < seen_ns
