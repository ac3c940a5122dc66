# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image tarballs made by hand, in every layout that is met in the wild, for tests that need no engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.names import canonical_reference
from ansible_collections.haku.river.plugins.module_utils.tarball import write_tarball

CREATED = "2026-01-01T00:00:00.123456789Z"
TIMESTAMP = 1767225600


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar stream with these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


@dataclass(frozen=True)
class HandMade:
    """An image: its layers' tar streams from the base up, and its configuration document."""

    layers: tuple[bytes, ...]
    config: bytes

    name = "memory"

    @property
    def diff_ids(self) -> list[str]:
        return [f"sha256:{sha256(layer)}" for layer in self.layers]

    def uncompressed(self, diff_id: str) -> Any:
        """Serve as a source of layers, in chunks of uneven size."""
        data = self.layers[self.diff_ids.index(diff_id)]
        return iter([data[:700], data[700:]])

    def write(self, path: Path, reference: str = "hakuriver/env:base") -> Path:
        """Write the normal form."""
        with path.open("wb") as file:
            write_tarball(file, self.config, self.diff_ids, self, reference)
        return path

    def write_legacy(self, path: Path) -> Path:
        """Write what `docker save` wrote up to Docker 24; layers that repeat are links there."""
        directories = [sha256(b"v1 %d" % number + layer) for number, layer in enumerate(self.layers)]
        config_name = f"{sha256(self.config)}.json"
        manifest = {
            "Config": config_name,
            "RepoTags": None,
            "Layers": [f"{directory}/layer.tar" for directory in directories],
        }
        with tarfile.open(path, "w") as tar:
            for directory, layer in zip(reversed(directories), reversed(self.layers), strict=True):
                first = directories[self.layers.index(layer)]
                if first == directory:
                    add(tar, f"{directory}/layer.tar", layer)
                else:
                    link = tarfile.TarInfo(f"{directory}/layer.tar")
                    link.type, link.linkname = tarfile.SYMTYPE, f"../{first}/layer.tar"
                    tar.addfile(link)
            add(tar, config_name, self.config)
            add(tar, "manifest.json", json.dumps([manifest]).encode())
        return path

    def write_oci(self, path: Path, docker_manifest: bool = True, reference: str = "a:b") -> Path:
        """Write what `docker save` writes with the containerd store: compressed blobs, a nested index, attestations."""
        blobs = [gzip.compress(layer, mtime=0) for layer in self.layers]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": {"digest": f"sha256:{sha256(self.config)}"},
                "layers": [{"digest": f"sha256:{sha256(blob)}"} for blob in blobs],
            }
        ).encode()
        attestation = json.dumps(
            {"schemaVersion": 2, "config": {"digest": f"sha256:{'0' * 64}"}, "layers": []}
        ).encode()
        nested = json.dumps(
            {
                "manifests": [
                    {"digest": f"sha256:{sha256(manifest)}", "platform": {"os": "linux", "architecture": "amd64"}},
                    {"digest": f"sha256:{sha256(attestation)}", "platform": {"os": "unknown"}},
                    {"digest": f"sha256:{'1' * 64}", "platform": {"os": "linux", "architecture": "arm64"}},
                ]
            }
        ).encode()
        with tarfile.open(path, "w") as tar:
            for blob in {sha256(blob): blob for blob in (*blobs, self.config, manifest, attestation, nested)}.values():
                add(tar, f"blobs/sha256/{sha256(blob)}", blob)
            named = {"io.containerd.image.name": canonical_reference(reference)}
            index = {"manifests": [{"digest": f"sha256:{sha256(nested)}", "annotations": named}]}
            add(tar, "index.json", json.dumps(index).encode())
            add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            if docker_manifest:
                paths = [f"blobs/sha256/{sha256(blob)}" for blob in blobs]
                image = {"Config": f"blobs/sha256/{sha256(self.config)}", "RepoTags": [reference], "Layers": paths}
                add(tar, "manifest.json", json.dumps([image]).encode())
        return path


def hand_made(*layers: bytes, created: str | None = CREATED, **run: Any) -> HandMade:
    """An image with these layers; `run` are fields of its run configuration, such as `Cmd`."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]},
    }
    return HandMade(layers, json.dumps({key: value for key, value in document.items() if value is not None}).encode())


def document(path: Path, name: str) -> Any:
    """Read a JSON document in a tarball."""
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file
        return json.load(file)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to an open tar archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
