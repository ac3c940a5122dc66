# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compaction: the layers that packages have put on a base image made one, when they are many or mostly dead weight.

The layers of the base image stay as they are, so that all who have that image still share them. All of this happens
while the container runs: the layers that it stands on do not change, and what it changes itself comes on top.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.image import Identity
from ansible_collections.haku.river.plugins.module_utils.snapshot import COMMENT, Snapshot
from ansible_collections.haku.river.plugins.module_utils.squash import Squash
from ansible_collections.haku.river.plugins.module_utils.storage import (
    FileLayer,
    PiledImage,
    StorageError,
    StoredImage,
    spool,
)

# Weighing reads every layer, so it is done only now and then: whenever their number has doubled since the last time.
_FIRST_WEIGHING = 8
_DEAD_BYTES = 64 << 20


class Compaction:
    """The layers of `image` above its first `base_layers`, of which there are more, to be made one."""

    def __init__(self, image: StoredImage, base_layers: int, squash: Squash) -> None:
        self._image = image
        self._base_layers = base_layers
        self._squash = squash

    def written(self, file: BinaryIO) -> Compacted:
        """Write the one layer into an empty file."""
        return Compacted(self._image, self._base_layers, spool(self._squash.stream(), file))


@dataclass(frozen=True)
class Compacted:
    """An image whose layers above the first `base_layers` are one, `top`."""

    image: StoredImage
    base_layers: int
    top: FileLayer

    def stored(self) -> StoredImage:
        """That image, of which the engine does not have the top yet."""
        return self._pile(self.image.config, [self.top], missing=self.top)

    def under(self, taken: Snapshot, file: BinaryIO) -> Snapshot:
        """The snapshot of a container on `image` as one of a container on this image, of which the engine has the top.

        `file` is empty, and takes the layer of the container itself.
        """
        if taken.stored is None:
            cause, remedy = str(taken.obstacle), "Package with rebase: false, which needs no compaction"
            raise StorageError("The layers of the container cannot be read", cause=cause, remedy=remedy)
        own = taken.stored.diff_ids[len(self.image.diff_ids) :]
        if len(own) > 1:
            remedy = "Package with rebase: false, which needs no compaction"
            raise StorageError("The container has more than one layer of its own", remedy=remedy)
        layers = [spool(taken.stored.uncompressed(diff_id), file) for diff_id in own]
        stored = self._pile(taken.stored.config, [self.top, *layers], missing=layers[0] if layers else None)
        return replace(taken, stored=stored, identity=Identity(stored.diff_ids, taken.identity.configuration))

    def _pile(self, config: bytes, layers: Sequence[FileLayer], missing: FileLayer | None) -> StoredImage:
        document = json.loads(config)
        base = self.image.diff_ids[: self.base_layers]
        document["history"] = self._history(document["history"], len(document["rootfs"]["diff_ids"]))
        document["rootfs"]["diff_ids"] = [*base, *(layer.blob.digest for layer in layers)]
        return PiledImage(self.image, json.dumps(document).encode(), layers, missing)

    def _history(self, history: Sequence[Mapping[str, Any]], layers: int) -> list[Mapping[str, Any]]:
        """One entry for all layers that are one now."""
        ends = _ends(history)
        untold = layers - len(ends)
        first = ends[self.base_layers - untold] - 1
        last = ends[len(self.image.diff_ids) - untold - 1]
        made_one = len(self.image.diff_ids) - self.base_layers
        entry = {
            "created": history[last - 1].get("created"),
            "created_by": f"haku.river: {made_one} layers made one",
            "comment": COMMENT,
        }
        return [*history[:first], entry, *history[last:]]


def plan_compaction(image: StoredImage, max_layers: int) -> Compaction | None:
    """Decide whether a container on this image is to be compacted before it gets one layer more."""
    base_layers = count_base_layers(json.loads(image.config), len(image.diff_ids))
    own = image.diff_ids[base_layers:]
    too_many = len(own) + 1 > max_layers
    weighed = len(own) >= _FIRST_WEIGHING and not len(own) & (len(own) - 1)
    if not own or not (too_many or weighed):
        return None
    squash = Squash([partial(image.uncompressed, diff_id) for diff_id in own])
    heavy = squash.dead_bytes > max(squash.live_bytes, _DEAD_BYTES)
    return Compaction(image, base_layers, squash) if too_many or heavy else None


def count_base_layers(config: Mapping[str, Any], layers: int) -> int:
    """How many of an image's layers are below those that packages have put on top.

    Counted from the top, as a history may leave out layers of a base image, but none of a package.
    """
    history = config.get("history") or ()
    tops = reversed([history[end - 1] for end in _ends(history)])
    own = sum(1 for _entry in itertools.takewhile(lambda entry: entry.get("comment") == COMMENT, tops))
    return max(layers - own, 0)


def _ends(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each layer, how many entries of the history lead up to it."""
    return [number for number, entry in enumerate(history, 1) if not entry.get("empty_layer")]
