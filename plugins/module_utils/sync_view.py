# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a synchronisation wants, and what it finds: all that it takes where there is nothing to do."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Image
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive, local_path
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Published, Source, V
from ansible_collections.haku.river.plugins.module_utils.stock import (
    UNFINISHED,
    Stock,
    by_version,
    is_version_tag,
    tags_in,
)

# What is reported of a load where there is none.
NO_LOAD: Mapping[str, Any] = {
    "tarball": None,
    "bytes_read": 0,
    "bytes_total": None,
    "layers_loaded": 0,
    "layers_reused": 0,
    "fallback": None,
}


class Delta(enum.Enum):
    """Whether layers that the engine has are left out of a load; the values are those of the option."""

    AUTO = "auto"
    """Yes, and if the engine can't do it, all of them are loaded after all."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class Synchronising:
    """What the user wants this machine to have: `version` is a timestamp, None for the newest."""

    environment: str
    reference: str
    version: int | None = None
    delta: Delta = Delta.AUTO
    keep_images: int = 0
    lock_timeout_seconds: int = 3600

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that has no meaning."""
        if self.keep_images < 0:
            raise HakuError(f"keep_images: {self.keep_images} is not a number of images", remedy="Keep 0 or more")
        if is_version_tag(self.reference.rpartition(":")[2]):
            remedy = "Choose another image_tag: numbers are the tags of former versions"
            raise HakuError(f"{self.reference} would be taken for a former version", remedy=remedy)

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return self.reference.rpartition(":")[0]

    def version_reference(self, timestamp: int) -> str:
        """The tag of a version that stays on the machine without being the current one."""
        return f"{self.repository}:{timestamp}"

    def unfinished_reference(self, name: object) -> str:
        """A tag for an image that has none before or after; the next synchronisation removes what is left of it."""
        return f"{self.repository}:{UNFINISHED}{name}"


def choose(wish: Synchronising, versions: Sequence[V]) -> V | None:
    """The version that is wanted: the pinned or the newest one, None where the source does not have it."""
    if wish.version is None:
        return versions[0] if versions else None
    return next((version for version in versions if version.timestamp == wish.version), None)


@dataclass(frozen=True)
class Seen(Generic[V]):
    """What a listing and inspects tell. `target` is the version that is wanted, `wanted` its timestamp.

    `at_ns` is when they began, in nanoseconds of Unix time. Where `here` is an image that is the pinned version, there
    was no need to look at the source.
    """

    at_ns: int
    versions: Sequence[V]
    current: Image | None
    target: V | None
    wanted: int | None
    here: Image | None = None


def see(engine: Engine, source: Source[V], wish: Synchronising) -> Seen[V]:
    """Look at the image that people use and, unless the pinned version is on the machine, at the source.

    So going back to an image that was kept waits for no file server.
    """
    at_ns = time.time_ns()
    current = engine.find_image(wish.reference)
    here = _pinned_image(engine, wish, current)
    if here:
        return Seen(at_ns, (), current, None, wish.version, here)
    versions = source.versions(wish.environment)
    target = choose(wish, versions)
    if target is None and wish.version is not None:
        target = source.find(wish.environment, wish.version)
    return Seen(at_ns, versions, current, target, target.timestamp if target else wish.version)


def _pinned_image(engine: Engine, wish: Synchronising, current: Image | None) -> Image | None:
    if wish.version is None:
        return None
    if current and current.timestamp == wish.version:
        return current
    kept = engine.find_image(wish.version_reference(wish.version))
    return kept if kept and kept.timestamp == wish.version else None


def settled(wish: Synchronising, seen: Seen[V]) -> Outcome | None:
    """What is reported if the image is current, as far as that can be told without opening a tarball."""
    if seen.current and seen.wanted in (None, seen.current.timestamp):
        return nothing_done(wish, seen.current.timestamp, seen.current.id)
    return None


def take_stock(
    engine: Engine,
    wish: Synchronising,
    current: Image | None,
    published: Sequence[Published],
) -> Stock:
    """Count what the machine has of the environment, and which of it containers use."""
    listed = engine.images(wish.repository, besides=wish.reference.rpartition(":")[2])
    tags = tags_in(wish.repository, listed)
    stale = tuple(f"{wish.repository}:{tag}" for tag in tags if tag.startswith(UNFINISHED))
    versions = by_version(tags)
    own = {*versions.values(), *([current.id] if current else ())}
    used = frozenset(container["ImageID"] for container in engine.containers(images=own)) if own else frozenset()
    newest = published[0].timestamp if published else None
    return Stock(current, versions, used, stale, newest, tuple(image.id for image in listed))


def machine_lock(engine: Engine, wish: Synchronising) -> AbstractContextManager[int]:
    """Let one process of this user at a time synchronise an environment on an engine; see `exclusive` for the value.

    Whatever the `image_tag` is: former versions and unfinished images belong to all of them.
    """
    path = local_path(engine.identity, wish.repository)
    return exclusive(path, wish.lock_timeout_seconds, f"synchronising {wish.environment}")


def nothing_done(wish: Synchronising, version: int | None, image_id: str, bytes_read: int = 0) -> Outcome:
    """What is reported if the machine has the wanted version already."""
    facts = {**NO_LOAD, "action": "none", "version": version, "bytes_read": bytes_read, "former_versions": None}
    there = {"image": wish.reference, "image_id": image_id}
    return Outcome(False, {**there, **facts}, {"version": version}, {"version": version})
