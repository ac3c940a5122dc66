# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several layers made one that means the same on whatever is below them, without what later ones replaced or deleted.

Format: https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from posixpath import basename, dirname, join, normpath
from tarfile import TarFile, TarInfo
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# What `tarfile` keeps in two places, of which the one in the extended header would win.
_DERIVED = ("path", "linkpath", "size", "hdrcharset")

OpenLayer = Callable[[], Iterator[bytes]]
"""Gives the tar stream of a layer from its beginning, each time that it is called."""


class Squash:
    """What remains of `layers`, from the bottom up. Reads them once, to see that, and once more for each `stream`.

    `live_bytes` and `dead_bytes` are the sizes of the files that remain, and of those that do not. Raises
    `ArchiveError` for a stream that is not a layer's.
    """

    def __init__(self, layers: Sequence[OpenLayer]) -> None:
        self._layers = layers
        self.live_bytes = 0
        self.dead_bytes = 0
        # What remains, by path: in which layer a file stands, and a directory as a whole, as those come first.
        self._files: dict[str, int] = {}
        self._directories: dict[str, TarInfo] = {}
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()
        # The new name of a file whose own name does not remain, while one of its hard links does; by layer and name.
        self._promoted: dict[tuple[int, str], str] = {}
        for number in reversed(range(len(layers))):
            self._look_at(number)

    def stream(self) -> Iterator[bytes]:
        """The one layer's tar stream: directories and deletions, then the files, those of lower layers first."""
        for path in sorted({*self._directories, *self._whiteouts}):
            if path in self._directories:
                yield _header(self._directories[path], path)
            else:
                yield _header(TarInfo(), join(dirname(path), _WHITEOUT + basename(path)))
        for path in sorted(self._opaque):
            yield _header(TarInfo(), join(path, _OPAQUE))
        found = 0
        for number in range(len(self._layers)):
            for part, begins_file in self._files_of(number):
                found += begins_file
                yield part
        if found != len(self._files):
            raise ArchiveError(
                "Layers cannot be made one",
                cause="a hard link in them leads out of its layer",
                remedy="Package with a higher max_layers, which leaves them as they are",
            )
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _look_at(self, number: int) -> None:
        """Decide what remains of a layer; all layers above it have been looked at."""
        files: dict[str, int] = {}
        directories: dict[str, TarInfo] = {}
        deleted, opaque = set(), set()
        links: dict[str, list[str]] = {}
        for _tar, entry in _entries(self._layers[number]):
            path = _path(entry.name)
            name = basename(path)
            if name == _OPAQUE:
                opaque.add(dirname(path))
            elif name.startswith(_WHITEOUT):
                deleted.add(join(dirname(path), name[len(_WHITEOUT) :]))
            elif entry.isdir():
                directories[path] = _portable(entry)
            else:
                files[path] = number
                self._weigh(path, entry.size)
                if entry.islnk():
                    links.setdefault(_path(entry.linkname), []).append(path)
        # A directory made where something was deleted or replaced has to say that what is below is not seen.
        made_again = {path for path in deleted if path in directories or path in self._directories}
        replaced = {path for path in files if path in self._directories}
        opaque |= made_again | replaced
        opaque = {path for path in opaque if path in self._directories or not self._hides(path)}
        remaining = {path: number for path in files if not self._hides(path)}
        self._promote(number, remaining, links)
        deleted = {path for path in deleted - made_again if path not in files and not self._hides(path)}
        directories = {path: entry for path, entry in directories.items() if not self._hides(path)}
        self._files.update(remaining)
        self._directories.update(directories)
        self._whiteouts |= deleted
        self._opaque |= opaque

    def _weigh(self, path: str, size_bytes: int) -> None:
        if self._hides(path):
            self.dead_bytes += size_bytes
        else:
            self.live_bytes += size_bytes

    def _hides(self, path: str) -> bool:
        """Whether the layers above replace or delete an entry of that path, or what it lies in."""
        if path in self._directories:
            return True
        while path not in self._files and path not in self._whiteouts:
            path = dirname(path)
            if path in self._opaque:
                return True
            if not path:
                return False
        return True

    def _promote(self, number: int, files: Mapping[str, int], links: Mapping[str, Sequence[str]]) -> None:
        for target, names in links.items():
            remaining = [name for name in names if name in files]
            if remaining and target not in files:
                self._promoted[number, target] = remaining[0]

    def _files_of(self, number: int) -> Iterator[tuple[bytes, bool]]:
        """The parts of the stream that come from a layer, each with whether a file begins with it."""
        for tar, entry in _entries(self._layers[number]):
            path = _path(entry.name)
            target = _path(entry.linkname) if entry.islnk() else ""
            if entry.isdir() or (target and self._promoted.get((number, target)) == path):
                continue
            name = self._promoted.get((number, path), path)
            if self._files.get(name) == number:
                entry.linkname = self._promoted.get((number, target), target) or entry.linkname
                yield _header(_portable(entry), name), True
                if entry.isreg():
                    yield from ((part, False) for part in _content(tar, entry))


class _Reader(io.RawIOBase):
    """A stream of chunks as a file that can only be read on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _entries(layer: OpenLayer) -> Iterator[tuple[TarFile, TarInfo]]:
    raw: io.RawIOBase = _Reader(layer())
    reader = io.BufferedReader(raw, CHUNK_BYTES)
    try:
        with tarfile.open(
            fileobj=reader, mode="r|", bufsize=CHUNK_BYTES, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            entry = tar.next()
            while entry is not None:
                yield tar, entry
                # It would keep every entry that it has ever seen.
                tar.members.clear()  # type: ignore[attr-defined]  # the stubs leave it out
                entry = tar.next()
        # Tarfile leaves off where it takes the stream to end, and the layer is proven where it ends.
        while reader.read(CHUNK_BYTES):
            pass
    except (tarfile.TarError, LookupError, RecursionError, ValueError) as error:
        raise ArchiveError("A layer is not a tar stream", cause=str(error)) from error


def _path(name: str) -> str:
    return normpath(name.lstrip("/")) if name else ""


def _content(tar: TarFile, entry: TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(entry)
    if file is None or entry.issparse():
        raise ArchiveError(f"{entry.name!r} in a layer is of a kind that layers do not have")
    yield from iter(lambda: file.read(CHUNK_BYTES), b"")
    yield bytes(-entry.size % tarfile.BLOCKSIZE)


def _portable(entry: TarInfo) -> TarInfo:
    entry.pax_headers = {key: value for key, value in entry.pax_headers.items() if key not in _DERIVED}
    return entry


def _header(entry: TarInfo, path: str) -> bytes:
    entry.name = path
    if entry.pax_headers:
        return entry.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
    # GNU's format takes names of any bytes and length as they are; only extended attributes need the other one.
    return entry.tobuf(tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")
