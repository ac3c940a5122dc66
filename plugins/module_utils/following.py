# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Following a container: what it writes, and when it ends. One process can poll for both."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.sdk_errors import RequestException

STDOUT, STDERR = 1, 2
"""The numbers of the streams in the frames."""

_CHUNK_BYTES = 1 << 18
# One byte for the stream, three of padding, four for the length of what follows:
# https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
_HEADER = struct.Struct(">BxxxL")


class Frames:
    """Takes the engine's stream apart, however it is cut into pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Mapping[int, bytes]:
        """Return what the next piece holds, by stream."""
        found: dict[int, list[memoryview]] = {}
        rest = memoryview(data)
        while rest:
            if self._left:
                part, rest = rest[: self._left], rest[self._left :]
                found.setdefault(self._stream, []).append(part)
                self._left -= len(part)
            else:
                missing = _HEADER.size - len(self._header)
                self._header += rest[:missing]
                rest = rest[missing:]
                if len(self._header) == _HEADER.size:
                    self._stream, self._left = _HEADER.unpack(self._header)
                    self._header = b""
        return {stream: b"".join(parts) for stream, parts in found.items()}


class ContainerOutput:
    """The open stream of what one container writes; `descriptor` is what to poll."""

    def __init__(self, raw: Any) -> None:
        # A socket, or what the SDK puts around one; for TLS, it holds back what it has decrypted.
        self._raw = raw
        self._receive = raw.recv if hasattr(raw, "recv") else raw.read
        self._frames = Frames()
        self.descriptor: int = raw.fileno()

    def read(self) -> Mapping[int, bytes] | None:
        """What has come, by stream; None when nothing more will come, because the container or the engine ended."""
        try:
            data = self._receive(_CHUNK_BYTES)
            while data and hasattr(self._raw, "pending") and self._raw.pending():
                data += self._receive(self._raw.pending())
        except OSError:
            # Broken off, or silent for too long, also below TLS; how the container ends is asked for separately.
            return None
        return self._frames.feed(data) if data else None

    def close(self) -> None:
        """Hear no more of the container."""
        self._raw.close()


class ContainerExit:
    """The engine's answer to the question when one container ends, which comes then; `descriptor` is what to poll."""

    def __init__(self, response: Any, raw: Any) -> None:
        self._response = response
        # The answer closes it when it has been read.
        self.descriptor: int = raw.fileno()

    def read(self) -> bool:
        """Whether the container has ended; if not, the engine has."""
        try:
            return "StatusCode" in self._response.json()
        except (RequestException, ValueError, OSError):
            return False

    def close(self) -> None:
        """Wait no more."""
        self._response.close()
