# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit without the engine, for the image store whose own costs as much as the whole container."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.ahead import ahead, gathered
from ansible_collections.haku.river.plugins.module_utils.container import Container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.image import (
    Identity,
    portable_configuration,
    run_configuration,
)
from ansible_collections.haku.river.plugins.module_utils.snapshot import Snapshot
from ansible_collections.haku.river.plugins.module_utils.storage import (
    StorageError,
    StoredImage,
    reading_storage,
    stored_image,
)
from ansible_collections.haku.river.plugins.module_utils.tarball import LAYER_TYPE, Blob
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time
from ansible_collections.haku.river.plugins.module_utils.writable import WritableLayer, find_writable_layer

_CHUNK_BYTES = 1 << 20
# Engines whose files do not belong to whom they seem to belong to.
_SHIFTED = ("name=userns", "name=rootless")


class OwnCommit:
    """A container that runs, with what is needed to make an image of it: its writable layer, and what is below."""

    def __init__(self, answer: Mapping[str, Any], layer: WritableLayer, base: StoredImage) -> None:
        self._answer = answer
        self._layer = layer
        self._base = base

    @classmethod
    def prepare(cls, engine: Engine, info: Mapping[str, Any], container: Container) -> OwnCommit | None:
        """None if the engine's own commit is as good, or if this one is not possible. `info` is `docker info`."""
        shifted = any(option.startswith(_SHIFTED) for option in info.get("SecurityOptions") or ())
        answer = engine.find_container(container.id)
        if info.get("Driver") != "overlayfs" or shifted or answer is None:
            return None
        try:
            base = stored_image(info, container.image_id)
        except StorageError:
            return None
        layer = find_writable_layer(container.id)
        return cls(answer, layer, base) if layer else None

    def take(self, reference: str, file: BinaryIO | None) -> Snapshot:
        """Make the layer, into an empty file or, only to see what it would be, nowhere.

        Raises `StorageError` if the writable layer cannot be read in full.
        """
        now_ns = time.time_ns()
        with reading_storage(self._layer.upper):
            unchanged = self._layer.is_unchanged()
        blob = None if unchanged else self._written(file)
        config = self._config(blob, now_ns)
        run = portable_configuration(
            run_configuration(self._answer["Config"]), run_configuration(json.loads(self._base.config).get("config"))
        )
        image = _OwnImage(self._base, config, blob, file)
        return Snapshot(reference, Identity(image.diff_ids, run), now_ns // 10**9, stored=image)

    def _written(self, file: BinaryIO | None) -> Blob:
        digest = hashlib.sha256()
        size_bytes = 0
        with reading_storage(self._layer.upper), closing(ahead(gathered(self._layer.stream()))) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                size_bytes += len(chunk)
                if file:
                    file.write(chunk)
        return Blob(f"sha256:{digest.hexdigest()}", size_bytes, LAYER_TYPE)

    def _config(self, blob: Blob | None, now_ns: int) -> bytes:
        """The configuration that an engine's commit has, but for the container's own settings."""
        document = json.loads(self._base.config)
        created = f"{iso_time(now_ns // 10**9).rstrip('Z')}.{now_ns % 10**9:09d}Z"
        command = [*(self._answer["Config"].get("Entrypoint") or ()), *(self._answer["Config"].get("Cmd") or ())]
        history = {"created": created, "created_by": shlex.join(filter(None, command))}
        diff_ids = document["rootfs"]["diff_ids"]
        document["created"] = created
        document["history"] = [*(document.get("history") or ()), {**history, **({} if blob else {"empty_layer": True})}]
        document["rootfs"]["diff_ids"] = [*diff_ids, *([blob.digest] if blob else ())]
        return json.dumps(document).encode()


class _OwnImage(StoredImage):
    """An image whose top layer is in a file of ours, and the others in the engine's storage."""

    def __init__(self, base: StoredImage, config: bytes, top: Blob | None, file: BinaryIO | None) -> None:
        super().__init__(config)
        self.name = base.name
        self._base = base
        self._top = top
        self._file = file

    def blobs(self) -> dict[str, Blob]:
        return {**self._base.blobs(), **({self._top.digest: self._top} if self._top else {})}

    def missing(self) -> tuple[tuple[Blob, Iterable[bytes]], ...]:
        return ((self._top, self.uncompressed(self._top.digest)),) if self._top else ()

    def _read(self, diff_id: str) -> Iterator[bytes]:
        if not (self._top and self._file and diff_id == self._top.digest):
            yield from self._base._read(diff_id)
            return
        self._file.seek(0)
        yield from iter(lambda: self._file.read(_CHUNK_BYTES) if self._file else b"", b"")
