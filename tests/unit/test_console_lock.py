# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a console, and the note in it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.console_lock import ConsoleLock, Note
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError


def soon(seconds: float = 5) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def test_a_lock_that_is_closed_while_it_is_held_keeps_its_file_until_then(tmp_path: Path) -> None:
    lock = ConsoleLock(tmp_path / "one.lock", "server")
    with lock.held(soon()):
        lock.close()
        with ConsoleLock(tmp_path / "other.lock", "other").held(soon()):
            lock.write(Note(prompt="World>"))
        assert lock.note.prompt == "World>"
    assert (tmp_path / "other.lock").read_bytes() == b""
    assert "World>" in (tmp_path / "one.lock").read_text()
    for use in (lock.check_open, lambda: lock.write(Note()), lambda: lock.held(soon()).__enter__()):
        with pytest.raises(HakuError, match="The console of server was closed while it was used"):
            use()
    assert tmp_path / "one.lock" not in [file.resolve() for file in Path("/proc/self/fd").iterdir()]
    lock.close()


def test_who_waits_for_a_lock_that_is_closed_is_told(tmp_path: Path) -> None:
    lock, other = (ConsoleLock(tmp_path / "one.lock", "server") for _number in range(2))
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with lock.held(soon(30)):
            pass

    with ThreadPoolExecutor() as pool, other.held(soon()):
        waiter = pool.submit(wait)
        waiting.wait()
        time.sleep(0.1)
        lock.close()
        with pytest.raises(HakuError, match="was closed while it was used"):
            waiter.result(timeout=5)


def test_a_note_that_there_is_no_room_for_is_an_error_with_its_path() -> None:
    lock = ConsoleLock(Path("/dev/full"), "server")
    with lock.held(soon()), pytest.raises(HakuError, match=r"Cannot note in /dev/full .*server.*: No space left"):
        lock.write(Note())
    lock.close()
