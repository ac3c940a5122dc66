# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one normal form of an image tarball, whatever engine it came from.

Layers first, from the base up, then the index: the configuration, and what leads to it for readers of OCI layouts
(`index.json`) and for every `docker load` since 20.10 (`manifest.json`). The same layers at the same place give the
same bytes, so a new version begins with the very bytes of the one before it.

Formats: https://github.com/opencontainers/image-spec/blob/main/image-layout.md, and `manifest.json` as in
https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from ansible_collections.haku.river.plugins.module_utils.ahead import ahead
from ansible_collections.haku.river.plugins.module_utils.archive import Archive, Layer
from ansible_collections.haku.river.plugins.module_utils.copying import WriteBehind
from ansible_collections.haku.river.plugins.module_utils.names import canonical_reference

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
"""The media type of an uncompressed layer."""
_END = bytes(2 * tarfile.BLOCKSIZE)


class LayerSource(Protocol):
    """Where the layers of a committed image come from."""

    name: str
    """What the result calls it in `layers_from`."""

    def uncompressed(self, diff_id: str) -> Iterator[bytes]:
        """The layer's tar stream, in chunks; `HakuError`, at the latest in the end, if it has not that diff ID."""


@dataclass(frozen=True)
class Blob:
    """A blob of an OCI layout: its digest, as `sha256:…`, its size, and what it is."""

    digest: str
    size_bytes: int
    media_type: str

    @classmethod
    def of_layer(cls, layer: Layer) -> Blob:
        """The blob that a layer is in its tarball."""
        return cls(layer.digest, layer.size_bytes, LAYER_TYPE + layer.compression.value)

    @property
    def path(self) -> str:
        """Where it stands in the layout."""
        return f"blobs/sha256/{self.digest[len('sha256:') :]}"

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes, **more}


def portable_config(config: bytes, run: Mapping[str, Any]) -> bytes:
    """Rewrite an image's configuration document to hold `run` and nothing that only its engine meant.

    Podman neither commits on an image nor saves one whose history lists only some of the layers; so those of a base
    without history are listed, too.
    """
    document = json.loads(config)
    history = document.get("history") or []
    listed = sum(1 for entry in history if not entry.get("empty_layer"))
    if listed:
        untold = len(document["rootfs"]["diff_ids"]) - listed
        document["history"] = [{}] * untold + history
    kept = ("architecture", "variant", "os", "os.version", "os.features", "author", "created", "history", "rootfs")
    portable = {key: document[key] for key in kept if document.get(key)}
    return _compact({**portable, "config": run})


@dataclass(frozen=True)
class Written:
    """What a tarball was made of: the layers that were cloned from the one before it, and those that were written."""

    cloned: tuple[str, ...]
    written: tuple[str, ...]
    bytes_written: int


def write_tarball(
    file: BinaryIO,
    config: bytes,
    diff_ids: Sequence[str],
    source: LayerSource,
    reference: str,
    former: Archive | None = None,
) -> Written:
    """Write a whole tarball in the normal form to an empty file.

    The layers that `former` begins with too are cloned from it inside the kernel; the others come from `source`, which
    proves them. `reference` is the tag that `docker load` gives the image.
    """
    distinct = tuple(dict.fromkeys(diff_ids))
    shared = shared_layers(former, distinct)
    blobs = {layer.diff_id: Blob.of_layer(layer) for layer in shared}
    prefix_bytes = 0
    behind = WriteBehind(file)
    if former and shared:
        prefix_bytes = shared[-1].offset + shared[-1].size_bytes + len(_padding(shared[-1].size_bytes))
        behind.clone(former.fileno(), prefix_bytes)
    for diff_id in distinct[len(shared) :]:
        blobs[diff_id] = _write_layer(file, behind.write, diff_id, source)
    file.writelines(_index(config, [blobs[diff_id] for diff_id in diff_ids], reference))
    return Written(distinct[: len(shared)], distinct[len(shared) :], file.tell() - prefix_bytes)


def shared_layers(former: Archive | None, diff_ids: Sequence[str]) -> tuple[Layer, ...]:
    """The layers, from the base up, that a tarball with these has at the same place as `former`."""
    shared = []
    offset = 0
    for layer, diff_id in zip(former.image.distinct_layers if former else (), diff_ids):
        offset += tarfile.BLOCKSIZE
        if layer.diff_id != diff_id or layer.digest != diff_id or layer.offset != offset:
            break
        shared.append(layer)
        offset += layer.size_bytes + len(_padding(layer.size_bytes))
    return tuple(shared)


@dataclass(frozen=True)
class Stream:
    """A tarball on its way to an engine: its chunks, how many bytes they are together, and its manifest's digest.

    That digest is the ID that the image gets in the containerd image store.
    """

    chunks: Iterable[bytes]
    size_bytes: int
    manifest_digest: str


def stream_image(
    config: bytes, layers: Sequence[Blob], contents: Iterable[tuple[Blob, Iterable[bytes]]], reference: str
) -> Stream:
    """Stream an image in the normal form to an engine, with the content of only some of its layers.

    `layers` are all of them, from the base up, as the engine has or gets them. The index comes last: where a content
    turns out to be wrong and raises, the engine never sees an image whose layers are not what the index says.
    """
    sent = tuple(contents)
    index = tuple(_index(config, layers, reference))
    size_bytes = sum(tarfile.BLOCKSIZE + blob.size_bytes + len(_padding(blob.size_bytes)) for blob, _chunks in sent)
    return Stream(_streamed(sent, index), size_bytes + sum(map(len, index)), _sha256(_manifest(config, layers)))


def _streamed(contents: Iterable[tuple[Blob, Iterable[bytes]]], index: Iterable[bytes]) -> Iterator[bytes]:
    for blob, chunks in contents:
        yield _header(blob.path, blob.size_bytes)
        yield from chunks
        yield _padding(blob.size_bytes)
    yield from index


def _write_layer(file: BinaryIO, write: Callable[[bytes], int], diff_id: str, source: LayerSource) -> Blob:
    """Write a layer whose size is known in the end only; its header comes last."""
    start = file.tell()
    file.seek(tarfile.BLOCKSIZE, 1)
    size_bytes = 0
    with closing(ahead(source.uncompressed(diff_id))) as chunks:
        for chunk in chunks:
            size_bytes += write(chunk)
    file.write(_padding(size_bytes))
    end = file.tell()
    blob = Blob(diff_id, size_bytes, LAYER_TYPE)
    file.seek(start)
    file.write(_header(blob.path, size_bytes))
    file.seek(end)
    return blob


def _index(config: bytes, layers: Sequence[Blob], reference: str) -> Iterator[bytes]:
    config_blob = _config_blob(config)
    manifest = _manifest(config, layers)
    manifest_blob = Blob(_sha256(manifest), len(manifest), _MANIFEST_TYPE)
    annotations = {
        "io.containerd.image.name": canonical_reference(reference),
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "manifests": [manifest_blob.descriptor(annotations=annotations)]}
    docker_manifest = [
        {"Config": config_blob.path, "RepoTags": [reference], "Layers": [layer.path for layer in layers]}
    ]
    yield from _entry(config_blob.path, config)
    yield from _entry(manifest_blob.path, manifest)
    yield from _entry("index.json", _compact(index))
    yield from _entry("manifest.json", _compact(docker_manifest))
    yield from _entry("oci-layout", _compact({"imageLayoutVersion": "1.0.0"}))
    yield _END


def _manifest(config: bytes, layers: Sequence[Blob]) -> bytes:
    """See https://github.com/opencontainers/image-spec/blob/main/manifest.md."""
    return _compact(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _config_blob(config).descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        }
    )


def _config_blob(config: bytes) -> Blob:
    return Blob(_sha256(config), len(config), _CONFIG_TYPE)


def _entry(path: str, document: bytes) -> Iterable[bytes]:
    return (_header(path, len(document)), document, _padding(len(document)))


def _header(path: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size = size_bytes
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


def _sha256(document: bytes) -> str:
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def _compact(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
