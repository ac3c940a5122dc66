# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared directory: a file system of its own, so that all that is read from it and written to it can be counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.host import HOME, remove, run

KINDS = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "ext4": ("mkfs.ext4", "-q"),
}
"""How each kind of file system is made; both lie in an image file on this machine's disk."""

_SIZE_BYTES = 24 << 30  # sparse
_SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the device's own is
_SECTORS_READ, _SECTORS_WRITTEN = 2, 6


@dataclass(frozen=True)
class Traffic:
    """What the file system's device has read and written in all."""

    read_bytes: int
    written_bytes: int

    def since(self, before: Traffic) -> Traffic:
        """What was added."""
        return Traffic(self.read_bytes - before.read_bytes, self.written_bytes - before.written_bytes)


@dataclass(frozen=True)
class Shared:
    """A mounted shared directory of some kind; `device` is its loop device."""

    kind: str
    path: Path
    device: str

    def directory(self, name: str) -> Path:
        """A directory of tarballs in it, made if need be."""
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        return directory

    @property
    def used_bytes(self) -> int:
        """The space that is taken, when all that was written has arrived."""
        os.sync()
        room = os.statvfs(self.path)
        return (room.f_blocks - room.f_bfree) * room.f_frsize

    @property
    def traffic(self) -> Traffic:
        """See https://docs.kernel.org/block/stat.html."""
        sectors = [int(word) for word in Path("/sys/block", self.device, "stat").read_text().split()]
        return Traffic(sectors[_SECTORS_READ] * _SECTOR_BYTES, sectors[_SECTORS_WRITTEN] * _SECTOR_BYTES)

    def forget_cached(self) -> None:
        """Have files read from the device again, as on a machine that has not just written them."""
        os.sync()
        for path in self.path.rglob("*.tar"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


@contextmanager
def mounted(kind: str) -> Iterator[Shared]:
    """Make a file system in an image file, mount it, and remove it in the end."""
    place = HOME / "bench"
    image, path = place / f"{kind}.img", place / kind
    path.mkdir(parents=True, exist_ok=True)
    _unmount(path)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    try:
        run(*KINDS[kind], image)
        run("mount", "-o", "loop", image, path)
        source = run("findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", path).strip()
        # A disk has no cache of the kernel's below that of its file system: no copying there, no reading from there.
        run("losetup", "--direct-io=on", source)
        yield Shared(kind, path, Path(source).name)
    finally:
        _unmount(path)
        remove(image)


def _unmount(path: Path) -> None:
    if path.is_mount():
        run("umount", path)
