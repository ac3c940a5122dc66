# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Large files, written with the help of the kernel: clones instead of copies, and disks that need not wait."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES

# A reflink shares whole blocks of the file system; 64 KiB is the largest that one has on common machines.
_BLOCK_BYTES = 64 << 10
_PIECE_BYTES = 8 << 20
_COPIERS = 4  # while one waits for the disk to read, others write
_FLUSH_BYTES = 8 << 20
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_FICLONERANGE = 0x4020940D  # linux/fs.h, where ioctl has its usual encoding; elsewhere it is unknown, and copies serve
_CLONE_RANGE = struct.Struct("=qQQQ")  # struct file_clone_range: source, its offset, length, offset in the target
# What kernels and file systems answer that cannot copy within themselves, or not between these two.
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.ETXTBSY, errno.EPERM)
_CANNOT_CLONE = (*_CANNOT, errno.ENOTTY)


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

        Where the file system can share blocks (XFS, Btrfs, NFS 4.2 over them), this takes neither time nor space. Such
        a reflink has to begin and end at blocks, so the rest of the last block is copied apart. Elsewhere
        `copy_file_range` copies inside the kernel, or inside the file server.
        """
        self._file.flush()
        start = self._file.tell()
        blocks_end = end - end % _BLOCK_BYTES
        if start < blocks_end and _share_blocks(source, self._file.fileno(), start, blocks_end - start):
            self._begun = self._file.seek(blocks_end)
        self._copy(source, end)

    def _copy(self, source: int, end: int) -> None:
        target = self._file.fileno()
        copiers = ThreadPoolExecutor(_COPIERS)
        try:
            pieces = [
                copiers.submit(_copy_range, source, target, start, min(start + _PIECE_BYTES, end))
                for start in range(self._file.tell(), end, _PIECE_BYTES)
            ]
            for piece in pieces:
                piece.result()
        finally:
            copiers.shutdown(cancel_futures=True)
        self._begun = self._file.seek(end)

    def _wrote(self) -> None:
        end = self._file.tell()
        if end - self._begun >= _FLUSH_BYTES:
            self._file.flush()
            _begin_writing(self._file.fileno(), self._begun, end - self._begun)
            self._begun = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy bytes to the same place in another file, and have them taken to the disk."""
    offset = start
    while offset < end:
        offset += _copy_some(source, target, offset, end - offset)
    _begin_writing(target, start, end - start)


def _copy_some(source: int, target: int, offset: int, size_bytes: int) -> int:
    """Copy up to that many bytes; returns how many."""
    copied = 0
    try:
        copied = os.copy_file_range(source, target, size_bytes, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return copied or os.pwrite(target, _read(source, min(CHUNK_BYTES, size_bytes), offset), offset)


def _share_blocks(source: int, target: int, offset: int, size_bytes: int) -> bool:
    """Have two files share their blocks of one range; False where their file system can't, and nothing was done.

    See ioctl_ficlonerange(2).
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, offset, size_bytes, offset))
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
        return False
    return True


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
