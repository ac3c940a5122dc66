# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of environments made by hand, at once and of any time, that real engines load and run."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.lab import images


def publish(directory: Path, environment: str, version: int, files: Mapping[str, bytes]) -> Path:
    """Put a version with these files, on a base with a shell, into a directory of tarballs; returns its tarball.

    It is laid out as HakuRiver's, by `docker save` up to Docker 24.
    """
    layers = {"base/layer.tar": _base_layer(), "top/layer.tar": _tar(files)}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": datetime.fromtimestamp(version, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "config": {"Cmd": ["sh"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers.values()],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [f"hakuriver/{environment}:base"], "Layers": list(layers)}]
    documents = {name: json.dumps(it).encode() for name, it in (("config.json", config), ("manifest.json", manifest))}
    directory.mkdir(exist_ok=True)
    partial = directory / f".{environment}-{version}.part"
    partial.write_bytes(_tar({**layers, **documents}))
    return partial.rename(directory / f"{environment}-{version}.tar")


@functools.cache
def _base_layer() -> bytes:
    with tarfile.open(images.BUSYBOX.tarball) as archive:
        layer = archive.extractfile("layer.tar")
        assert layer
        return layer.read()


def _tar(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
