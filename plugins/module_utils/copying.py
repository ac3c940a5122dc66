# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Large files, written with the help of the kernel: clones instead of copies, and disks that need not wait."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import BinaryIO

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES

# A reflink shares whole blocks of the file system; 64 KiB is the largest that one has on common machines.
_BLOCK_BYTES = 64 << 10
_PIECE_BYTES = 256 << 20
_FLUSH_BYTES = 8 << 20
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
# What kernels and file systems answer that cannot copy within themselves, or not between these two.
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.ETXTBSY, errno.EPERM)


class WriteBehind:
    """Writes to a file, and has the kernel begin to take to the disk what was written before.

    So the `fsync` in the end, which is what promises anything, finds little left to do.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = file.tell()

    def write(self, chunk: bytes) -> int:
        """Write as the file does."""
        size_bytes = self._file.write(chunk)
        self._wrote()
        return size_bytes

    def clone(self, source: int, end: int) -> None:
        """Copy a descriptor's bytes, from the file's own position up to `end`, to the same place in the file.

        `copy_file_range` makes a reflink of them where the file system can (XFS, Btrfs, NFS 4.2 over them), which takes
        neither time nor space, and copies them inside the kernel elsewhere. A reflink has to begin and end at blocks,
        so the rest of the last block is copied apart.
        """
        self._file.flush()
        blocks_end = end - end % _BLOCK_BYTES
        while self._file.tell() < end:
            start = self._file.tell()
            piece_end = min(start + _PIECE_BYTES, blocks_end if start < blocks_end else end)
            self._clone_piece(source, start, piece_end - start)

    def _clone_piece(self, source: int, start: int, size_bytes: int) -> None:
        try:
            copied = os.copy_file_range(source, self._file.fileno(), size_bytes, start, start)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            copied = 0
        if copied:
            self._file.seek(start + copied)
            self._wrote()
        else:
            self.write(_read(source, min(CHUNK_BYTES, size_bytes), start))
            self._file.flush()

    def _wrote(self) -> None:
        end = self._file.tell()
        if end - self._begun >= _FLUSH_BYTES:
            self._file.flush()
            _begin_writing(self._file.fileno(), self._begun, end - self._begun)
            self._begun = end


def _sync_file_range() -> Callable[[int, int, int], object]:
    """The system call of that name, which Python does not have: it starts the writing of a part of a file.

    Unlike `fdatasync` it waits for nothing, and has the disk flush nothing. Where it is missing, the `fsync` in the end
    has more to do.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return lambda _descriptor, _offset, _size_bytes: None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda descriptor, offset, size_bytes: call(descriptor, offset, size_bytes, _SYNC_FILE_RANGE_WRITE)


_begin_writing = _sync_file_range()


def _read(source: int, size_bytes: int, offset: int) -> bytes:
    chunk = os.pread(source, size_bytes, offset)
    if not chunk:
        raise OSError(errno.EIO, "it ends before its end")
    return chunk
