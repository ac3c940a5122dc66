# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work side by side on one stream: reading and hashing in one thread, writing in another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Union

_POLL_SECONDS = 0.1
_Message = Union[bytes, BaseException, None]


CHUNK_BYTES = 256 << 10
"""Chunks of this size stay in a processor's cache on their way from hand to hand, and are few enough for Python."""


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks of a good size: each costs every thread that it passes through its turn."""
    chunk: list[bytes] = []
    size_bytes = 0
    for part in parts:
        chunk.append(part)
        size_bytes += len(part)
        if size_bytes >= CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size_bytes = [], 0
    yield b"".join(chunk)


def ahead(chunks: Iterable[bytes], depth: int = 8) -> Generator[bytes, None, None]:
    """The same chunks, of which another thread fetches up to `depth` before they are asked for.

    What the iterator raises is raised here, after all chunks that came before it. When the consumer leaves early, the
    thread is gone before that has any effect, so nothing that `chunks` reads from is closed under it.
    """
    messages: queue.Queue[_Message] = queue.Queue(depth)
    left = threading.Event()

    def put(message: _Message) -> None:
        while not left.is_set():
            try:
                messages.put(message, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def fetch() -> None:
        try:
            for chunk in chunks:
                put(chunk)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            put(error)
        finally:
            # Where it was left early, what it reads ahead itself must be gone too.
            if isinstance(chunks, Generator):
                chunks.close()

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            message = messages.get()
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            yield message
    finally:
        left.set()
        thread.join()
