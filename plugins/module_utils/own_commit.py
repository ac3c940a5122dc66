# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit without the engine, for the image store whose own costs as much as the whole container."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.container import Container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.image import (
    Identity,
    portable_configuration,
    run_configuration,
)
from ansible_collections.haku.river.plugins.module_utils.snapshot import COMMENT, Snapshot
from ansible_collections.haku.river.plugins.module_utils.storage import (
    FileLayer,
    PiledImage,
    StorageError,
    StoredImage,
    reading_storage,
    spool,
    stored_image,
)
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time
from ansible_collections.haku.river.plugins.module_utils.writable import (
    WritableLayer,
    described_layer,
    find_writable_layer,
)

# Engines whose files do not belong to whom they seem to belong to.
_SHIFTED = ("name=userns", "name=rootless")


class OwnCommit:
    """A container with what is needed to make an image of it: its writable layer, and what is below.

    `is_cheaper` says whether that beats the engine's own commit even when there is something to commit.
    """

    def __init__(
        self, engine: Engine, answer: Mapping[str, Any], layer: WritableLayer, base: StoredImage, is_cheaper: bool
    ) -> None:
        self._engine = engine
        self._answer = answer
        self._layer = layer
        self._base = base
        self.is_cheaper = is_cheaper

    @classmethod
    def prepare(cls, engine: Engine, info: Mapping[str, Any], container: Container) -> OwnCommit | None:
        """None if the container's writable layer cannot be read from here. `info` is `docker info`."""
        shifted = any(option.startswith(_SHIFTED) for option in info.get("SecurityOptions") or ())
        classic = info.get("Driver") in ("overlay2", "overlay")
        answer = engine.find_container(container.id)
        # What has not changed can be seen whoever the files belong to.
        if answer is None or (shifted and not classic):
            return None
        try:
            # The image may be an index of several platforms; newer engines tell which one the container is of.
            described = answer.get("ImageManifestDescriptor") or {}
            base = stored_image(info, described.get("digest") or container.image_id)
        except StorageError:
            return None
        layer = described_layer(answer) if classic else find_writable_layer(container.id)
        # Podman's commit takes along what only the container's process meant, and packs all of its layers anew.
        is_cheaper = not shifted and (engine.is_podman or not classic)
        return cls(engine, answer, layer, base, is_cheaper) if layer else None

    def is_unchanged(self) -> bool:
        """Whether the container has nothing of its own."""
        with reading_storage(self._layer.upper):
            return self._layer.is_unchanged()

    def take(self, reference: str, file: BinaryIO | None) -> Snapshot:
        """Commit into an empty file, which takes the layer; none is needed if there is nothing to commit.

        The engine has no image of that, so none is `reference`.

        Raises `StorageError` if the writable layer cannot be read in full.
        """
        now_ns = time.time_ns()
        layer = None
        if file and not self.is_unchanged():
            with reading_storage(self._layer.upper):
                layer = spool(self._layer.stream(), file)
        stored = PiledImage(self._base, self._config(layer, now_ns), [layer] if layer else [], missing=layer)
        base = json.loads(self._base.config).get("config") or {}
        run = portable_configuration(self._engine.run_configuration(self._answer, base), run_configuration(base))
        return Snapshot(reference, Identity(stored.diff_ids, run), now_ns // 10**9, stored)

    def _config(self, layer: FileLayer | None, now_ns: int) -> bytes:
        """The configuration that an engine's commit has, but for the container's own settings."""
        document = json.loads(self._base.config)
        created = f"{iso_time(now_ns // 10**9).rstrip('Z')}.{now_ns % 10**9:09d}Z"
        command = [*(self._answer["Config"].get("Entrypoint") or ()), *(self._answer["Config"].get("Cmd") or ())]
        history = {"created": created, "created_by": shlex.join(filter(None, command)), "comment": COMMENT}
        diff_ids = document["rootfs"]["diff_ids"]
        document["created"] = created
        document["history"] = [
            *(document.get("history") or ()),
            {**history, **({} if layer else {"empty_layer": True})},
        ]
        document["rootfs"]["diff_ids"] = [*diff_ids, *([layer.blob.digest] if layer else ())]
        return json.dumps(document).encode()
