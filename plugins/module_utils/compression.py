# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressed layers: telling how a layer is compressed, and undoing it as a stream."""

from __future__ import annotations

import enum
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError

_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")


class Compression(enum.Enum):
    """How a layer's bytes are stored; the value is the suffix of its OCI media type."""

    NONE = ""
    GZIP = "+gzip"
    ZSTD = "+zstd"


def recognise(first_bytes: bytes) -> Compression:
    """Tell the compression by the first four bytes; a tar stream begins with a file name, never with these."""
    if first_bytes.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    # `pzstd` begins with a frame to be skipped.
    if first_bytes.startswith(b"\x28\xb5\x2f\xfd") or _SKIPPABLE.match(first_bytes):
        return Compression.ZSTD
    return Compression.NONE


def decompress(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """The uncompressed stream, in chunks of bounded size; `ArchiveError` if the compressed one is damaged."""
    if compression is Compression.GZIP:
        return _gunzip(chunks)
    if compression is Compression.ZSTD:
        return _unzstd(chunks)
    return iter(chunks)


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Gunzip a stream of one or more members (`pigz` and stargz write several)."""
    member = _new_member()
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if member.eof:
                    member = _new_member()
                yield member.decompress(data, CHUNK_BYTES)
                data = member.unconsumed_tail or member.unused_data
    except zlib.error as error:
        raise ArchiveError("A layer's gzip stream is damaged", cause=str(error)) from error
    if not member.eof:
        raise ArchiveError("A layer's gzip stream is cut short")


def _new_member() -> Any:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


def _unzstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress a stream of one or more frames (`pzstd` and zstd:chunked write several, and some to be skipped)."""
    try:
        import zstandard
    except ImportError as error:
        raise ArchiveError(
            "A layer is compressed with zstd",
            cause=str(error),
            remedy="Install the package python3-zstandard, or run: pip install zstandard",
        ) from error
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    # Before 0.18 the library does not tell where a frame ends; that there was more, a digest tells then.
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if getattr(frame, "eof", False):
                    frame = decompressor.decompressobj()
                yield frame.decompress(data)
                data = getattr(frame, "unused_data", b"")
    except zstandard.ZstdError as error:
        raise ArchiveError("A layer's zstd stream is damaged", cause=str(error)) from error
    if not getattr(frame, "eof", True):
        raise ArchiveError("A layer's zstd stream is cut short")
