# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One at a time at a console: a lock between threads and processes, with a note of how the last one left it."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import open_own_lock

_POLL_SECONDS = 0.003
_NOTE_MAX_BYTES = 4096


@dataclass(frozen=True)
class Note:
    """How a console was left. `user` is who typed last, `started` the start of the container that this is about.

    Without a `prompt` it was left in the middle of something: an answer may still come.
    """

    user: str = ""
    started: str = ""
    prompt: str = ""
    shows_typing: bool = False


class ConsoleLock:
    """The lock at `path`. The kernel releases it when its holder dies; the note then says that it was busy."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._path = path
        self._threads = threading.Lock()
        self._closed = False
        try:
            self._descriptor: int | None = open_own_lock(path)
        except OSError as error:
            raise HakuError(
                f"Cannot open the lock {path} for the console of {name}", where=str(path), cause=error.strerror
            ) from error

    @contextmanager
    def held(self, deadline: float) -> Iterator[None]:
        """Hold it for the block; raises `HakuError` if whoever has it does not leave until then (`time.monotonic`)."""
        if not self._threads.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise self._in_use()
        try:
            self._acquire(deadline)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()
            if self._closed:
                self.close()

    @property
    def note(self) -> Note:
        """What the last one wrote; to be read by who holds the lock."""
        try:
            return Note(**json.loads(os.pread(self._file, _NOTE_MAX_BYTES, 0)))
        except (ValueError, TypeError):
            return Note()

    def write(self, note: Note) -> None:
        """Replace the note; raises `HakuError` if it cannot be written."""
        content = json.dumps(asdict(note)).encode()
        try:
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))
        except OSError as error:
            raise HakuError(
                f"Cannot note in {self._path} that the console of {self._name} is in use",
                where=str(self._path),
                cause=error.strerror,
                remedy="Make room there",
            ) from error

    def check_open(self) -> None:
        """Raise `HakuError` if this was closed."""
        if self._closed:
            raise self._was_closed()

    def close(self) -> None:
        """Let go of the file when nobody holds the lock any more; it stays, as removing it would let two in at once."""
        self._closed = True
        if self._threads.acquire(blocking=False):
            descriptor, self._descriptor = self._descriptor, None
            self._threads.release()
            if descriptor is not None:
                os.close(descriptor)

    @property
    def _file(self) -> int:
        # A number that was closed may by now be another file's.
        if self._descriptor is None:
            raise self._was_closed()
        return self._descriptor

    def _acquire(self, deadline: float) -> None:
        while True:
            self.check_open()
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._in_use() from None
                time.sleep(_POLL_SECONDS)

    def _was_closed(self) -> HakuError:
        return HakuError(
            f"The console of {self._name} was closed while it was used",
            cause="another thread of this program has cleaned up",
            remedy="Clean up when all threads are done",
        )

    def _in_use(self) -> HakuError:
        return HakuError(
            f"The console of {self._name} is in use",
            where=str(self._path),
            cause="others were typing into it until the time was up",
            remedy="Try again, or give it more time",
        )
