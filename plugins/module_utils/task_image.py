# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image that a task runs in: the one that a synchronisation brings, or the one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Source
from ansible_collections.haku.river.plugins.module_utils.sync import synchronise
from ansible_collections.haku.river.plugins.module_utils.sync_view import Delta, Synchronising

TASK_IMAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "sync": {"type": "bool", "default": True},
    "version": {"type": "int"},
    "delta": {"type": "str", "choices": [delta.value for delta in Delta], "default": "auto"},
    "keep_images": {"type": "int", "default": 0},
    "lock_timeout": {"type": "int", "default": 3600},
}
"""The argument specification of what `WantedImage` takes beside the environment and its image's name."""


@dataclass(frozen=True)
class WantedImage:
    """What the user wants to run in; the fields are the options of the same names."""

    environment: str
    reference: str
    sync: bool = True
    version: int | None = None
    delta: str = "auto"
    keep_images: int = 0
    lock_timeout: int = 3600

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that has no meaning."""
        if self.version is not None and not self.sync:
            raise HakuError("sync: false runs in the image that is there, of whatever version", remedy="Leave one out")


@dataclass(frozen=True)
class Provided:
    """The image to run in. `outcome` is that of the synchronisation, whose facts are `sync`, None if there was none.

    `image_id` is None where a check cannot know it yet.
    """

    image_id: str | None
    version: int | None
    sync: Mapping[str, Any] | None
    outcome: Outcome


def provide_image(engine: Engine, source: Source[Any], wanted: WantedImage, check_mode: bool) -> Provided:
    """Bring the image, or find it."""
    if not wanted.sync:
        return _image_here(engine, wanted.reference)
    wish = Synchronising(
        wanted.environment,
        wanted.reference,
        wanted.version,
        Delta(wanted.delta),
        wanted.keep_images,
        wanted.lock_timeout,
    )
    outcome = synchronise(engine, source, wish, check_mode)
    return Provided(outcome.facts["image_id"], outcome.facts["version"], outcome.facts, outcome)


def _image_here(engine: Engine, reference: str) -> Provided:
    image = engine.find_image(reference)
    if image is None:
        raise HakuError(
            f"There is no image {reference} here",
            where=engine.url,
            remedy="Bring it with haku_sync, or leave sync: false out",
        )
    return Provided(image.id, image.timestamp, None, Outcome(changed=False, facts={}, warnings=engine.warnings))
