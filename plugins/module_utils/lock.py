# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One at a time: advisory locks that the kernel releases when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time

_POLL_SECONDS = 0.2


@contextmanager
def exclusive(path: Path, timeout_seconds: float, what: str) -> Iterator[int]:
    """Hold the lock at `path` for the block; wait at most `timeout_seconds` for whoever holds it.

    The value is when it was last held, in nanoseconds of Unix time: what somebody has seen later is still so. `flock`
    works between the machines of an NFS 4, CephFS or Lustre (`-o flock`) mount. `what` says in errors what the lock is
    for. The file stays when the lock is released: removing it would let two in at once.
    """
    try:
        descriptor = open_lock(path)
    except OSError as error:
        remedy = "Check that the directory is mounted, writable and owned by the right user"
        raise HakuError(
            f"Cannot open the lock {path} for {what}", where=str(path), cause=error.strerror, remedy=remedy
        ) from error
    try:
        _acquire(descriptor, path, timeout_seconds, what)
        last_held_ns = os.fstat(descriptor).st_mtime_ns
        _sign(descriptor)
        try:
            yield last_held_ns
        finally:
            with suppress(OSError):
                os.utime(descriptor, ns=(time.time_ns(), time.time_ns()))
    finally:
        os.close(descriptor)


def local_path(*parts: str) -> Path:
    """The path of a lock between the processes that this user has on this machine; `parts` say what it is on."""
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    directory = Path("/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir())
    return directory / f"haku.river-{os.geteuid()}-{key}.lock"


def open_lock(path: Path) -> int:
    """Open a lock's file, made on first use; never through a link that somebody else may have put there."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o666)


def open_own_lock(path: Path) -> int:
    """Open a lock's file whose content is to be trusted; raises `PermissionError` if another user has made it."""
    descriptor = open_lock(path)
    owner = os.fstat(descriptor).st_uid
    if owner not in (os.geteuid(), 0):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"it belongs to user {owner}; remove it")
    return descriptor


def _acquire(descriptor: int, path: Path, timeout_seconds: float, what: str) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise HakuError(
                    f"{what[0].upper()}{what[1:]} is under way already",
                    where=str(path),
                    cause=f"{path} is held by {holder}, and lock_timeout ({timeout_seconds:g} s) has passed",
                    remedy="Try again when it is done, or raise lock_timeout",
                ) from None
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            remedy = "Mount the file system with support for flock (Lustre: -o flock; NFS 3: with its lock service)"
            raise HakuError(
                f"Cannot lock {path} for {what}", where=str(path), cause=error.strerror, remedy=remedy
            ) from error
        else:
            return


def _sign(descriptor: int) -> None:
    """Tell those who wait whom they wait for; on a full disk they go without."""
    holder = f"process {os.getpid()} on {socket.gethostname()} since {iso_time(int(time.time()))}"
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
