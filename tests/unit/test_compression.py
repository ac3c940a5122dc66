# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressed layers are read to their end, of however many parts they are made."""

from __future__ import annotations

import struct

import pytest
import zstandard
from ansible_collections.haku.river.plugins.module_utils.compression import Compression, decompress, recognise
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError

SKIPPED = struct.pack("<II", 0x184D2A50, 4) + b"size"
PARTS = (b"one" * 1000, b"two" * 1000)


@pytest.fixture
def zstd() -> bytes:
    """Give a stream as `pzstd` and zstd:chunked write it: of two frames, and of some to be skipped."""
    frames = [zstandard.ZstdCompressor().compress(part) for part in PARTS]
    return b"".join(SKIPPED + frame for frame in frames) + SKIPPED


def unpacked(stream: bytes, size_bytes: int = 1 << 20) -> bytes:
    """What comes of a stream that comes in pieces of that size."""
    pieces = [stream[start : start + size_bytes] for start in range(0, len(stream), size_bytes)]
    return b"".join(decompress(pieces, recognise(stream[:4])))


@pytest.mark.parametrize("first", [0x184D2A50, 0x184D2A5F, 0xFD2FB528])
def test_a_stream_that_begins_with_a_frame_to_be_skipped_is_zstd_s(first: int) -> None:
    assert recognise(struct.pack("<I", first)) is Compression.ZSTD


@pytest.mark.parametrize("size_bytes", [1, 7, 1 << 20])
def test_zstd_is_read_across_frames_wherever_the_pieces_end(zstd: bytes, size_bytes: int) -> None:
    assert unpacked(zstd, size_bytes) == b"".join(PARTS)


@pytest.mark.parametrize("cut_bytes", [1, len(SKIPPED) - 8, len(SKIPPED) + 1])
def test_zstd_that_is_cut_short_is_refused(zstd: bytes, cut_bytes: int) -> None:
    with pytest.raises(ArchiveError, match="cut short"):
        unpacked(zstd[:-cut_bytes])


def test_zstd_followed_by_something_else_is_refused(zstd: bytes) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        unpacked(zstd + b"something else")
