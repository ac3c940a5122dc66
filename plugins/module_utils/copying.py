# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Large files, written with the help of the kernel: clones instead of copies, and disks that need not wait."""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
# A reflink shares whole blocks of the file system; 64 KiB is the largest that one has on common machines.
_BLOCK_BYTES = 64 << 10
_PIECE_BYTES = 256 << 20
_FLUSH_BYTES = 32 << 20
# What kernels and file systems answer that cannot copy within themselves, or not between these two.
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.ETXTBSY, errno.EPERM)


class WriteBehind:
    """Writes to a file, while another thread has the disk take what was written before.

    So the `fsync` in the end finds little left to do, and a disk that is full or broken says so early.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unflushed_bytes = 0
        self._flushing: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, failure: object, *_rest: object) -> None:
        self._pool.shutdown()
        # The kernel tells a disk's error once only: the `fsync` after this would not hear of it.
        if self._flushing and not failure:
            self._flushing.result()

    def write(self, chunk: bytes) -> int:
        """Write as the file does."""
        size_bytes = self._file.write(chunk)
        self._wrote(size_bytes)
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
            self._wrote(copied)
        else:
            self.write(_read(source, min(_CHUNK_BYTES, size_bytes), start))
            self._file.flush()

    def _wrote(self, size_bytes: int) -> None:
        self._unflushed_bytes += size_bytes
        if self._unflushed_bytes < _FLUSH_BYTES or (self._flushing and not self._flushing.done()):
            return
        if self._flushing:
            self._flushing.result()
        self._unflushed_bytes = 0
        self._file.flush()
        self._flushing = self._pool.submit(os.fdatasync, self._file.fileno())


def _read(source: int, size_bytes: int, offset: int) -> bytes:
    chunk = os.pread(source, size_bytes, offset)
    if not chunk:
        raise OSError(errno.EIO, "it ends before its end")
    return chunk
