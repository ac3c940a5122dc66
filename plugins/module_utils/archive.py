# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading an image tarball by its index: where each layer stands, without reading the layers.

Reads what `docker save` ever wrote (the legacy layout up to Docker 24, the OCI layout since 25, compressed or not) and
OCI image archives of other tools. Nothing is ever unpacked, so names in a tarball lead nowhere.

Formats: https://github.com/moby/docker-image-spec and https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tarfile import ReadError, TarFile, TarInfo
from types import TracebackType
from typing import Any, Protocol

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES
from ansible_collections.haku.river.plugins.module_utils.compression import Compression, decompress, recognise
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, Vanished
from ansible_collections.haku.river.plugins.module_utils.image import Identity, run_configuration
from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp

# Bounds for hostile tarballs. An image of 127 layers has some 400 entries, and its configuration some 100 KiB.
_MAX_ENTRIES = 20_000
_MAX_HEADER_BYTES = 1 << 20
_MAX_DOCUMENT_BYTES = 16 << 20
_EXTENDED_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Names that bear their content's digest, as Docker, OCI layouts, Skopeo and go-containerregistry write them.
_BLOB = re.compile(r"(?:blobs/sha256/|sha256:)?(?P<hex>[0-9a-f]{64})(?:\.json|\.tar\.gz)?")


@dataclass(frozen=True)
class Layer:
    """A layer as it stands in a tarball: `size_bytes` bytes from `offset` on.

    `diff_id` is the digest of the uncompressed layer, `digest` that of the bytes as they stand there: the same, unless
    the layer is compressed.
    """

    diff_id: str
    digest: str
    offset: int
    size_bytes: int
    compression: Compression


@dataclass(frozen=True)
class ArchivedImage:
    """The index of a tarball. Layers are in order, from the base up; `config` is the document as its digest has it."""

    config: bytes
    layers: tuple[Layer, ...]
    identity: Identity
    timestamp: int | None

    @property
    def distinct_layers(self) -> tuple[Layer, ...]:
        """The layers, each once: an image can have the same layer in several places."""
        return tuple({layer.digest: layer for layer in self.layers}.values())


class RandomAccess(Protocol):
    """Where a tarball's bytes come from: a file of the shared directory, or of a web server.

    What is read ends early where the tarball does. Failures are `OSError` or `HakuError`.
    """

    size_bytes: int
    bytes_read: int
    """What has been transferred so far."""

    def fileno(self) -> int:
        """The descriptor, for the kernel to copy from; `OSError` for what is no file of this machine."""

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """A few bytes, all at once."""

    def chunks(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """Many bytes, one bounded piece after the other."""


class LocalFile:
    """A file read without a buffer: read-ahead would fetch over the network what nobody asked for."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size
        self.bytes_read = 0

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor, for the kernel to copy from."""
        return self._descriptor

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """A few bytes, all at once."""
        return b"".join(self.chunks(offset, size_bytes))

    def chunks(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """Many bytes, one bounded piece after the other."""
        end = offset + size_bytes
        while offset < end:
            chunk = os.pread(self._descriptor, min(end - offset, CHUNK_BYTES), offset)
            if not chunk:
                return
            self.bytes_read += len(chunk)
            offset += len(chunk)
            yield chunk


class Archive:
    """An open tarball with one image. `name` is what errors call it."""

    def __init__(self, file: RandomAccess, name: str) -> None:
        self._file = file
        self.name = name
        self.size_bytes = file.size_bytes
        with _reading(self.name):
            self.image = _read_image(_Entries(file, name))

    @property
    def bytes_read(self) -> int:
        """How much of the tarball has been read so far."""
        return self._file.bytes_read

    def fileno(self) -> int:
        """The descriptor of the tarball, for the kernel to copy from."""
        return self._file.fileno()

    def stored(self, layer: Layer) -> Iterator[bytes]:
        """The layer's bytes as they stand, in chunks, not proven: engines do that, and `prove` for the rest."""
        with _reading(self.name):
            left = layer.size_bytes
            for chunk in self._file.chunks(layer.offset, left):
                left -= len(chunk)
                yield chunk
            if left:
                raise _damaged(self.name, "it is cut short")

    def prove(self, layer: Layer) -> None:
        """Read a layer; `ArchiveError` if its bytes do not have its digest."""
        digest = hashlib.sha256()
        for chunk in self.stored(layer):
            digest.update(chunk)
        self._compare(layer, digest.hexdigest(), layer.digest)

    def uncompressed(self, layer: Layer) -> Iterator[bytes]:
        """The layer's tar stream, in chunks; `ArchiveError` at the end if its digest is not the diff ID."""
        digest = hashlib.sha256()
        for chunk in decompress(self.stored(layer), layer.compression):
            digest.update(chunk)
            yield chunk
        self._compare(layer, digest.hexdigest(), layer.diff_id)

    def _compare(self, layer: Layer, found: str, expected: str) -> None:
        if f"sha256:{found}" != expected:
            raise _damaged(self.name, f"its layer {layer.diff_id} is corrupted: the bytes have digest sha256:{found}")


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a tarball and read its index; `Vanished` if it is not there, `ArchiveError` if it is damaged."""
    with _reading(str(path)):
        file = LocalFile(path)
    with file:
        yield Archive(file, str(path))


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # NFS answers ESTALE for a file that another machine has removed.
        kind = Vanished if error.errno in (errno.ENOENT, errno.ESTALE) else ArchiveError
        raise kind(
            f"Cannot read {name}",
            where=name,
            cause=error.strerror or str(error),
            remedy="Check the mount of the shared directory, then try again",
        ) from error


class _BoundedTarInfo(TarInfo):
    """Refuses extended headers that are read into memory whole and have no honest reason to be large."""

    # tarfile's own hook for subclasses, and its own name for the argument
    def _proc_member(self, tarfile: TarFile) -> TarInfo:
        if self.type in _EXTENDED_HEADERS and self.size > _MAX_HEADER_BYTES:
            raise ReadError(f"an extended header of {self.size} bytes")
        member: TarInfo = super()._proc_member(tarfile)  # type: ignore[misc]  # the stubs leave the hook out
        return member


class _Headers(io.RawIOBase):
    """A tarball as `tarfile` wants to walk through it."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self._position = 0

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position from which the next bytes are read."""
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size_bytes}[whence]
        self._position = origin + position
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read a header, which has a bounded size."""
        data = self._file.read_at(self._position, size)
        self._position += len(data)
        return data


class _Entries:
    """The tarball's regular files by name; links, which legacy tarballs use for layers that repeat, are followed."""

    def __init__(self, file: RandomAccess, name: str) -> None:
        self._file = file
        self.name = name
        self._entries: dict[str, TarInfo] = {}
        try:
            end = self._scan()
        except (tarfile.TarError, LookupError, RecursionError, ValueError, OverflowError) as error:
            cause = "it is cut short or corrupted" if self._entries else "it is no tar archive"
            raise _damaged(name, f"{cause} ({error})") from error
        self._check_end(end, file.size_bytes)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def find(self, path: str) -> TarInfo:
        """The regular file that `path` names; `ArchiveError` if there is none."""
        for _link in range(8):
            entry = self._entries.get(posixpath.normpath(path))
            if entry is None:
                raise _damaged(self.name, f"{path!r} is missing from it")
            if entry.isreg() and not entry.issparse():
                return entry
            if not (entry.issym() or entry.islnk()):
                break
            path = posixpath.join(posixpath.dirname(path), entry.linkname) if entry.issym() else entry.linkname
        raise _damaged(self.name, f"{path!r} in it is not a file")

    def read(self, path: str) -> bytes:
        """A small document, checked against the digest in its name, if that has one."""
        entry = self.find(path)
        if entry.size > _MAX_DOCUMENT_BYTES:
            raise _damaged(self.name, f"{path!r} in it has {entry.size} bytes")
        document = self.read_at(entry.offset_data, entry.size)
        named = _BLOB.fullmatch(path)
        if named and hashlib.sha256(document).hexdigest() != named["hex"]:
            raise _damaged(self.name, f"{path!r} in it is corrupted")
        return document

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Some bytes of the tarball, all of them."""
        data = self._file.read_at(offset, size_bytes)
        if len(data) < size_bytes:
            raise _damaged(self.name, "it is cut short")
        return data

    def _scan(self) -> int:
        """Read all headers and return the offset behind the last entry."""
        with tarfile.open(fileobj=_Headers(self._file), mode="r:", tarinfo=_BoundedTarInfo, encoding="utf-8") as tar:
            for count, entry in enumerate(tar):
                if count >= _MAX_ENTRIES:
                    raise ReadError(f"more than {_MAX_ENTRIES} entries")
                path = posixpath.normpath(entry.name)
                if path in self._entries and not entry.isdir():
                    raise ReadError(f"{path!r} stands in it twice")
                self._entries[path] = entry
            end: int = tar.offset
            return end

    def _check_end(self, end: int, size_bytes: int) -> None:
        """A whole tarball ends with two blocks of zeros where the last entry ends; tarfile does not insist."""
        if end > size_bytes:
            raise _damaged(self.name, "it is cut short")
        mark = self.read_at(end, min(size_bytes - end, 2 * tarfile.BLOCKSIZE))
        if any(mark):
            raise _damaged(self.name, f"the header at offset {end} is corrupted")
        if len(mark) < tarfile.BLOCKSIZE:
            raise _damaged(self.name, "it is cut short")


def _read_image(entries: _Entries) -> ArchivedImage:
    """Find the image by `manifest.json`, as `docker load` does, or by `index.json` where only that is there."""
    described = _described_by_index(entries) if "index.json" in entries else None
    if "manifest.json" in entries:
        config_path, layer_paths = _described_by_docker_manifest(entries)
        if described is not None and described != (config_path, layer_paths):
            raise _damaged(entries.name, "its manifest.json and index.json name different images")
    elif described is not None:
        config_path, layer_paths = described
    else:
        raise _damaged(entries.name, "it has neither manifest.json nor index.json, so it is no image")
    config = entries.read(config_path)
    document = _mapping(entries, _parse(entries, config, config_path), config_path)
    diff_ids = _mapping(entries, document.get("rootfs"), config_path).get("diff_ids")
    if not isinstance(diff_ids, list) or not all(isinstance(i, str) and _DIGEST.fullmatch(i) for i in diff_ids):
        raise _damaged(entries.name, "its configuration has no valid list of layers (diff_ids)")
    if len(diff_ids) != len(layer_paths):
        raise _damaged(entries.name, f"it has {len(layer_paths)} layers, and its configuration {len(diff_ids)}")
    run = document.get("config")
    return ArchivedImage(
        config=config,
        layers=tuple(_layer(entries, diff_id, path) for diff_id, path in zip(diff_ids, layer_paths)),
        identity=Identity(tuple(diff_ids), run_configuration(run if isinstance(run, Mapping) else None)),
        timestamp=unix_timestamp(created) if isinstance(created := document.get("created"), str) else None,
    )


def _layer(entries: _Entries, diff_id: str, path: str) -> Layer:
    entry = entries.find(path)
    compression = recognise(entries.read_at(entry.offset_data, min(entry.size, 4)))
    if compression is Compression.NONE:
        return Layer(diff_id, diff_id, entry.offset_data, entry.size, compression)
    named = _BLOB.fullmatch(path)
    if named is None:
        raise _damaged(entries.name, f"its compressed layer {path!r} has no digest in its name to prove it by")
    return Layer(diff_id, f"sha256:{named['hex']}", entry.offset_data, entry.size, compression)


def _described_by_docker_manifest(entries: _Entries) -> tuple[str, list[str]]:
    images = _parse(entries, entries.read("manifest.json"), "manifest.json")
    if not isinstance(images, list) or len(images) != 1:
        raise _damaged(entries.name, "its manifest.json does not name exactly one image")
    image = _mapping(entries, images[0], "manifest.json")
    config, layers = image.get("Config"), image.get("Layers")
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(i, str) for i in layers):
        raise _damaged(entries.name, "its manifest.json does not name a configuration and layers")
    return config, layers


def _described_by_index(entries: _Entries) -> tuple[str, list[str]]:
    """Follow `index.json` to the image's manifest, through nested indexes and past attestations."""
    path = "index.json"
    for _level in range(4):
        document = _mapping(entries, _parse(entries, entries.read(path), path), path)
        if "config" in document:
            layers = document.get("layers")
            if not isinstance(layers, list):
                break
            return _blob_path(entries, document["config"]), [_blob_path(entries, layer) for layer in layers]
        path = _only_image(entries, document.get("manifests"), path)
    raise _damaged(entries.name, f"its {path} leads to no image")


def _only_image(entries: _Entries, manifests: Any, path: str) -> str:
    """The one manifest whose blob is there and is for a platform; two tags of one image name it twice."""
    candidates = set()
    for descriptor in manifests if isinstance(manifests, list) else ():
        platform = descriptor.get("platform") if isinstance(descriptor, Mapping) else None
        unknown = isinstance(platform, Mapping) and platform.get("os") == "unknown"
        blob = _blob_path(entries, descriptor)
        if blob in entries and not unknown:
            candidates.add(blob)
    if len(candidates) != 1:
        raise _damaged(entries.name, f"its {path} names {len(candidates)} images, not one")
    return candidates.pop()


def _blob_path(entries: _Entries, descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, Mapping) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _damaged(entries.name, f"it names a blob without a SHA-256 digest ({digest!r})")
    return f"blobs/sha256/{digest[len('sha256:') :]}"


def _parse(entries: _Entries, document: bytes, path: str) -> Any:
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:
        raise _damaged(entries.name, f"{path!r} in it is not JSON ({error})") from error


def _mapping(entries: _Entries, value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _damaged(entries.name, f"{path!r} in it is not what an image has there")
    return value


def _damaged(name: str, cause: str) -> ArchiveError:
    remedy = "Remove it and package the environment again, or pin an older version"
    return ArchiveError(f"Tarball {name} is damaged", where=name, cause=cause, remedy=remedy)
