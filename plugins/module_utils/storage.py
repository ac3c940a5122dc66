# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's own storage, read where it lies: an image's configuration, and its layers bit for bit as they were.

Read only, and believed only as far as digests prove it. So a directory that belongs to another engine, or a layer that
somebody has touched, cannot lead to a wrong image: it leads to a `StorageError`, and `docker save` serves instead.

Formats: overlay2's layer store (https://github.com/moby/moby/tree/master/layer), tar-split
(https://github.com/vbatts/tar-split), containerd's content store
(https://github.com/containerd/containerd/blob/main/docs/content-flow.md), and Podman's store
(https://github.com/containers/storage).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import zlib
from abc import ABC, abstractmethod
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES, ahead, gathered
from ansible_collections.haku.river.plugins.module_utils.compression import decompress, recognise
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, HakuError
from ansible_collections.haku.river.plugins.module_utils.tarball import LAYER_TYPE, Blob

_MAX_DOCUMENT_BYTES = 16 << 20
# Entries of a tar-split stream.
_FILE, _SEGMENT = 1, 2
# Where a containerd keeps its content: one that Docker started itself, and the system's.
_CONTENT = "io.containerd.content.v1.content"
_SYSTEM_CONTENT = Path("/var/lib/containerd") / _CONTENT


class StorageError(HakuError):
    """The engine's storage does not have it, or cannot be read from here."""


class StoredImage(ABC):
    """An image in an engine's storage. `config` is the document as its digest has it."""

    name: str
    """What the result calls the storage in `layers_from`."""

    def __init__(self, config: bytes) -> None:
        self.config = config
        self.diff_ids: tuple[str, ...] = tuple(json.loads(config)["rootfs"]["diff_ids"])

    def uncompressed(self, diff_id: str) -> Iterator[bytes]:
        """The layer's tar stream, in chunks; `StorageError` if it cannot be had, at the end also if it is not that."""
        digest = hashlib.sha256()
        with closing(ahead(self._read(diff_id))) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk
        if f"sha256:{digest.hexdigest()}" != diff_id:
            raise StorageError(
                f"The engine's storage ({self.name}) no longer has layer {diff_id} as it was",
                cause=f"what is there has digest sha256:{digest.hexdigest()}",
            )

    @abstractmethod
    def _read(self, diff_id: str) -> Iterator[bytes]:
        """The layer's tar stream, in chunks, unproven."""

    def missing(self) -> tuple[tuple[Blob, Iterable[bytes]], ...]:
        """The layers that the engine itself does not have yet, with their contents."""
        return ()

    @abstractmethod
    def blobs(self) -> dict[str, Blob]:
        """The layers as blobs of this engine, by diff ID, where it keeps its images as such."""


def stored_image(info: Mapping[str, Any], image_id: str) -> StoredImage:
    """Find an image in the storage of the engine that `info` describes, in the words of `docker info`.

    Raises `StorageError` if this process cannot read it, for example because the engine is on another machine.
    """
    root = Path(info.get("DockerRootDir") or "/nonexistent")
    store = image_store(info)
    with reading_storage(root):
        if store == "overlay2":
            return _Overlay2Image(root, image_id)
        if store == "containerd":
            return _find_content(root, image_id)
        if store == "overlay":
            return _PodmanImage(root, image_id)
    raise StorageError(f"The storage driver {info.get('Driver')!r} is none that can be read in place")


def has_in_content_store(info: Mapping[str, Any], manifest_digest: str) -> bool:
    """Whether the engine surely has the documents and all layers of the image with that manifest, named by digest.

    False also where it has another image store, where that cannot be read, and where it may be another engine's.
    """
    if image_store(info) != "containerd":
        return False
    root = Path(info.get("DockerRootDir") or "/nonexistent")
    try:
        with reading_storage(root):
            # Or an engine on another machine would be taken for the one that has its storage at the same path here.
            is_its_own = (root / "engine-id").read_text() == info.get("ID")
            return is_its_own and _find_content(root, manifest_digest).is_whole()
    except StorageError:
        return False


def image_store(info: Mapping[str, Any]) -> str:
    """How the engine that `info` describes keeps images: `containerd`, or the name of a driver as `overlay2`."""
    # The containerd store reports its snapshotter, and says what it is among the details.
    if ["driver-type", "io.containerd.snapshotter.v1"] in (info.get("DriverStatus") or []):
        return "containerd"
    return str(info.get("Driver"))


@contextmanager
def reading_storage(place: Path) -> Iterator[None]:
    """Turn what goes wrong inside the block into a `StorageError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"Cannot read the engine's storage {place}", where=str(place), cause=cause) from error
    except (LookupError, TypeError, ValueError, ArchiveError) as error:
        raise StorageError(
            f"The engine's storage {place} is not as expected", where=str(place), cause=str(error)
        ) from (error)


class _Overlay2Image(StoredImage):
    """An image of the classic image store: each layer a directory, and a recipe to make a tar stream of it."""

    name = "overlay2"

    def __init__(self, root: Path, image_id: str) -> None:
        self._root = root
        super().__init__(_proven(root / "image/overlay2/imagedb/content/sha256" / _hex(image_id), image_id))
        self._chain_ids = dict(zip(self.diff_ids, _chain_ids(self.diff_ids)))

    def _read(self, diff_id: str) -> Iterator[bytes]:
        layers = self._root / "image/overlay2/layerdb/sha256"
        with reading_storage(layers):
            layer = layers / _hex(self._chain_ids[diff_id])
            directory = self._root / "overlay2" / (layer / "cache-id").read_text() / "diff"
            yield from gathered(_assembled(layer / "tar-split.json.gz", directory))

    def blobs(self) -> dict[str, Blob]:
        return {}


class _ContentImage(StoredImage):
    """An image of the containerd image store: manifest, configuration and layers are blobs, named by digest."""

    name = "containerd content store"

    def __init__(self, content: Path, image_id: str) -> None:
        self._blobs = content / "blobs/sha256"
        manifest = self._manifest(image_id)
        super().__init__(self._document(manifest["config"]["digest"]))
        layers = [Blob(layer["digest"], layer["size"], layer["mediaType"]) for layer in manifest["layers"]]
        self._layers = dict(zip(self.diff_ids, layers))

    def _read(self, diff_id: str) -> Iterator[bytes]:
        with reading_storage(self._blobs):
            path = self._blobs / _hex(self._layers[diff_id].digest)
            with path.open("rb", buffering=0) as file:
                compression = recognise(file.read(4))
                file.seek(0)
                yield from decompress(iter(lambda: file.read(CHUNK_BYTES), b""), compression)

    def blobs(self) -> dict[str, Blob]:
        return dict(self._layers)

    def is_whole(self) -> bool:
        """Whether all of its layers are there, in full length."""
        sizes = {layer.digest: layer.size_bytes for layer in self._layers.values()}
        return all((self._blobs / _hex(digest)).stat().st_size == size for digest, size in sizes.items())

    def _document(self, digest: str) -> bytes:
        return _proven(self._blobs / _hex(digest), digest)

    def _manifest(self, digest: str) -> dict[str, Any]:
        """Follow an index, if the image is one, to the manifest whose layers are here: the platform's own."""
        document: dict[str, Any] = json.loads(self._document(digest))
        if "config" in document:
            return document
        found = {}
        for descriptor in document["manifests"]:
            if "attestation-manifest" in str(descriptor.get("annotations")):
                continue
            if (self._blobs / _hex(descriptor["digest"])).exists():
                manifest = self._manifest(descriptor["digest"])
                if all((self._blobs / _hex(layer["digest"])).exists() for layer in manifest["layers"]):
                    found[descriptor["digest"]] = manifest
        if len(found) != 1:
            # With several platforms here, the index does not tell which of them is meant.
            raise LookupError(f"{digest} leads to {len(found) or 'no'} images whose layers are here")
        return found.popitem()[1]


class _PodmanImage(StoredImage):
    """An image of Podman's store: as in the classic one, each layer is a directory and a recipe."""

    name = "containers storage"

    def __init__(self, root: Path, image_id: str) -> None:
        self._root = root
        # How that store makes a file name of what is none.
        document = "=" + b2a_base64(image_id.encode(), newline=False).decode()
        super().__init__(_proven(root / "overlay-images" / _hex(image_id) / document, image_id))
        images = {image["id"]: image for image in json.loads((root / "overlay-images/images.json").read_bytes())}
        layers = {layer["id"]: layer for layer in json.loads((root / "overlay-layers/layers.json").read_bytes())}
        chain = []
        layer_id = images[_hex(image_id)].get("layer")
        while layer_id:
            chain.append(layer_id)
            layer_id = layers[layer_id].get("parent")
        if len(chain) != len(self.diff_ids):
            raise ValueError(f"{image_id} has {len(chain)} layers there, and not {len(self.diff_ids)}")
        self._layers = dict(zip(self.diff_ids, reversed(chain)))

    def _read(self, diff_id: str) -> Iterator[bytes]:
        recipes = self._root / "overlay-layers"
        with reading_storage(recipes):
            layer_id = self._layers[diff_id]
            recipe = recipes / f"{layer_id}.tar-split.gz"
            yield from gathered(_assembled(recipe, self._root / "overlay" / layer_id / "diff"))

    def blobs(self) -> dict[str, Blob]:
        return {}


@dataclass(frozen=True)
class FileLayer:
    """A layer in a file of ours, and nothing else in it."""

    blob: Blob
    file: BinaryIO

    def read(self) -> Iterator[bytes]:
        """Its tar stream, in chunks."""
        self.file.seek(0)
        yield from iter(lambda: self.file.read(CHUNK_BYTES), b"")


def spool(parts: Iterable[bytes], file: BinaryIO) -> FileLayer:
    """Write a layer's tar stream into an empty file."""
    digest, size_bytes = hashlib.sha256(), 0
    with closing(ahead(gathered(parts))) as chunks:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += file.write(chunk)
    return FileLayer(Blob(f"sha256:{digest.hexdigest()}", size_bytes, LAYER_TYPE), file)


class PiledImage(StoredImage):
    """An image some of whose layers are in files of ours, and the others those of another image.

    `missing` is the layer that the engine does not have yet.
    """

    def __init__(
        self, below: StoredImage, config: bytes, layers: Iterable[FileLayer], missing: FileLayer | None
    ) -> None:
        super().__init__(config)
        self.name = below.name
        self._below = below
        self._layers = {layer.blob.digest: layer for layer in layers}
        self._missing = missing

    def blobs(self) -> dict[str, Blob]:
        return {**self._below.blobs(), **{diff_id: layer.blob for diff_id, layer in self._layers.items()}}

    def missing(self) -> tuple[tuple[Blob, Iterable[bytes]], ...]:
        return ((self._missing.blob, self._missing.read()),) if self._missing else ()

    def _read(self, diff_id: str) -> Iterator[bytes]:
        layer = self._layers.get(diff_id)
        return layer.read() if layer else self._below._read(diff_id)


def _find_content(root: Path, image_id: str) -> _ContentImage:
    """Which containerd an engine uses it does not tell: the one that has its image."""
    own = root / "containerd/daemon" / _CONTENT
    has_image = (own / "blobs/sha256" / _hex(image_id)).exists()
    return _ContentImage(own if has_image else _SYSTEM_CONTENT, image_id)


def _assembled(recipe: Path, directory: Path) -> Iterator[bytes]:
    """Put a tar stream together again, in parts, from its headers in `recipe` and the files' contents."""
    parse = json.JSONDecoder().raw_decode
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with gzip.open(recipe, "rt", encoding="utf-8") as lines:
            for line in lines:
                entry, _end = parse(line)
                if entry["type"] == _SEGMENT:
                    yield a2b_base64(entry["payload"])
                elif entry["type"] == _FILE and entry.get("size"):
                    yield from file_contents(_path(entry), entry["size"], descriptor)
    finally:
        os.close(descriptor)


def file_contents(path: bytes, size_bytes: int, directory: int | None = None) -> Iterator[bytes]:
    """The content of a file that has that size; `ValueError` if it has not.

    What is no regular file is not opened for long: a FIFO would hold us for ever.
    """
    descriptor = _open(path, directory)
    try:
        left = size_bytes
        if left > CHUNK_BYTES and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{os.fsdecode(path)!r} is not a file")
        while left:
            part = os.read(descriptor, min(left, CHUNK_BYTES))
            if not part:
                raise ValueError(f"{os.fsdecode(path)!r} is shorter than it was")
            left -= len(part)
            yield part
    finally:
        os.close(descriptor)


def _open(path: bytes, directory: int | None) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # To note when each of ten thousand files was read is a write to the disk, and waits for all others.
        return os.open(path, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        return os.open(path, flags, dir_fd=directory)


def _path(entry: Mapping[str, Any]) -> bytes:
    """A name that is not UTF-8 stands in the recipe in base64."""
    raw = entry.get("name_raw")
    name: bytes = a2b_base64(raw) if raw else entry["name"].encode()
    return name.lstrip(b"/")


def _proven(path: Path, digest: str) -> bytes:
    """A document, if it is the one of that digest."""
    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise ValueError(f"{path} is too large for a document")
    document = path.read_bytes()
    if hashlib.sha256(document).hexdigest() != _hex(digest):
        raise ValueError(f"{path} has another digest than {digest}")
    return document


def _hex(digest: object) -> str:
    algorithm, _colon, value = str(digest).partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is not a SHA-256 digest")
    return value


def _chain_ids(diff_ids: Sequence[str]) -> Iterator[str]:
    """The chain ID of each layer: what names a layer together with all below it.

    https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
    """
    chain_id = ""
    for diff_id in diff_ids:
        chain_id = f"sha256:{hashlib.sha256(f'{chain_id} {diff_id}'.encode()).hexdigest()}" if chain_id else diff_id
        yield chain_id
