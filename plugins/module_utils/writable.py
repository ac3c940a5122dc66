# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's writable layer, read where it lies and turned into an image layer, without the engine's `commit`.

With the containerd image store a commit compares the whole container with its whole image, file by file, however little
has changed. The writable layer of an overlay file system is the change, and nothing else.

Formats: https://docs.kernel.org/filesystems/overlayfs.html (whiteouts and opaque directories) and
https://github.com/opencontainers/image-spec/blob/main/layer.md (how a layer says the same).
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarInfo
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.storage import StorageError, file_contents

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# Where the kernel notes what an overlay needs to know; the second one if somebody other than root has mounted it.
_NOTES = ("trusted.overlay.", "user.overlay.")
_OPAQUE_NOTES = tuple(f"{notes}opaque" for notes in _NOTES)
_IS_OPAQUE = b"y"  # `x` says something else
# What makes a file of the writable layer only a part of itself.
_PARTIAL = tuple(f"{notes}{what}" for notes in _NOTES for what in ("metacopy", "redirect"))
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class WritableLayer:
    """The directories of a container's overlay: its own on top, and those below it, from the top down."""

    upper: Path
    lowers: tuple[Path, ...]

    def is_unchanged(self) -> bool:
        """Whether there is nothing in it but directories that are as they are below.

        A directory comes up when something in it is made and removed again; its time then says so, and nothing else.
        """
        return all(self._is_as_below(path, found) for path, found in _walk(self.upper))

    def stream(self) -> Iterator[bytes]:
        """The layer's tar stream, in chunks; the same content gives the same bytes.

        Raises `StorageError` if the directory does not hold all of the layer.
        """
        seen: dict[tuple[int, int], str] = {}
        for path, found in _walk(self.upper):
            name = str(path.relative_to(self.upper))
            for entry in _entries(path, found, name, seen):
                yield _header(entry)
                if entry.isreg() and entry.size:
                    yield from file_contents(os.fsencode(path), entry.size)
                    yield bytes(-entry.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _is_as_below(self, path: Path, found: os.stat_result) -> bool:
        if not stat.S_ISDIR(found.st_mode) or _is_opaque(path):
            return False
        relative = path.relative_to(self.upper)
        for lower in self.lowers:
            try:
                below = (lower / relative).lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            same = [(each.st_mode, each.st_uid, each.st_gid) for each in (found, below)]
            return same[0] == same[1] and _portable_attributes(path) == _portable_attributes(lower / relative)
        return False


def described_layer(answer: Mapping[str, Any]) -> WritableLayer | None:
    """The writable layer of a container, as the classic image store describes it (`GET /containers/{id}/json`)."""
    data = (answer.get("GraphDriver") or {}).get("Data") or {}
    return _layer(data.get("UpperDir") or "", (data.get("LowerDir") or "").split(":"))


def find_writable_layer(container_id: str) -> WritableLayer | None:
    """The writable layer of a container that runs, by the mounts of this machine; None if it is not to be seen.

    The engine may have mounts of its own, so each mount namespace is looked into, once.
    """
    seen = set()
    own = Path("/proc/self")
    for process in (own, *(each for each in own.parent.iterdir() if each.name.isdigit())):
        try:
            namespace = (process / "ns/mnt").stat().st_ino
            if namespace in seen:
                continue
            mounts = (process / "mountinfo").read_text(errors="surrogateescape")
        except OSError:
            # A process that has just ended, or another user's.
            continue
        seen.add(namespace)
        for line in mounts.splitlines():
            found = _overlay(line, container_id) if container_id in line else None
            if found:
                return found
    return None


def _overlay(line: str, container_id: str) -> WritableLayer | None:
    """Read a line of mountinfo: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""
    place, _dash, device = line.partition(" - ")
    mount_point = Path(_unescaped(place.split(" ")[4]))
    kind, _source, options = device.split(" ", 2)
    if kind != "overlay" or container_id not in mount_point.parts:
        return None
    upper, lowers = "", []
    for option in options.split(","):
        key, _equals, value = option.partition("=")
        if key == "upperdir":
            upper = _unescaped(value)
        elif key in ("lowerdir", "lowerdir+"):
            lowers += _unescaped(value).split(":")
    return _layer(upper, lowers)


def _layer(upper: str, lowers: Sequence[str]) -> WritableLayer | None:
    # containerd shortens long lists: paths are then relative to the directory of its snapshots.
    snapshots = Path(upper).parent.parent
    layer = WritableLayer(Path(upper), tuple(snapshots / lower for lower in lowers))
    # They are not there if the engine is on another machine, or if one has a colon or a comma in its name.
    return layer if upper and all(each.is_dir() for each in (layer.upper, *layer.lowers)) else None


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _walk(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below, in an order that depends on names only, a directory before what is in it."""
    with os.scandir(directory) as listing:
        names = sorted(entry.name for entry in listing)
    for name in names:
        path = directory / name
        found = path.lstat()
        yield path, found
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(path)


def _entries(path: Path, found: os.stat_result, name: str, seen: dict[tuple[int, int], str]) -> Iterator[TarInfo]:
    """What a layer says of one file; nothing of a socket, which means nothing without its process."""
    for attribute in _PARTIAL:
        if _attribute(path, attribute):
            raise StorageError(
                f"{path} is not all there", cause=f"the kernel keeps a part of it elsewhere ({attribute})"
            )
    mode = found.st_mode
    if stat.S_ISCHR(mode) and found.st_rdev == 0:
        yield TarInfo(str(Path(name).with_name(_WHITEOUT + path.name)))
        return
    if stat.S_ISSOCK(mode):
        return
    entry = TarInfo(name)
    entry.mode = stat.S_IMODE(mode)
    entry.uid, entry.gid, entry.mtime = found.st_uid, found.st_gid, found.st_mtime_ns // 10**9
    entry.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in _portable_attributes(path).items()}
    _set_kind(entry, path, found)
    inode = (found.st_dev, found.st_ino)
    if entry.isreg() and inode in seen:
        entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, seen[inode], 0
    elif entry.isreg() and found.st_nlink > 1:
        seen[inode] = name
    yield entry
    if entry.isdir() and _is_opaque(path):
        yield TarInfo(f"{name}/{_OPAQUE}")


def _set_kind(entry: TarInfo, path: Path, found: os.stat_result) -> None:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        entry.size = found.st_size
    elif stat.S_ISDIR(mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISFIFO(mode):
        entry.type = tarfile.FIFOTYPE
    else:
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)


def _header(entry: TarInfo) -> bytes:
    # GNU's format takes names of any bytes and length as they are; only extended attributes need the other one.
    if entry.pax_headers:
        return entry.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
    return entry.tobuf(tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")


def _portable_attributes(path: Path) -> dict[str, str]:
    """The extended attributes that belong to a file wherever it is; others, such as SELinux's, are the machine's."""
    names = os.listxattr(path, follow_symlinks=False)
    portable = (name for name in names if name == "security.capability" or name.startswith("user."))
    kept = sorted(name for name in portable if not name.startswith(_NOTES))
    return {name: os.fsdecode(_attribute(path, name) or b"") for name in kept}


def _is_opaque(directory: Path) -> bool:
    return any(_attribute(directory, note) == _IS_OPAQUE for note in _OPAQUE_NOTES)


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None
