# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Synchronising: this machine's image of an environment becomes the newest, or a pinned, version."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, Layer, Vanished, open_archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Image
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.tarball import Blob, stream_image

_TAG_PREFIX = "sync-"
# Each try begins with the newest list of versions; only a packager that prunes faster than we read needs a third.
_TRIES = 3


@dataclass(frozen=True)
class Synchronising:
    """What the user wants this machine to have: `version` is a timestamp, None for the newest."""

    environment: str
    reference: str
    version: int | None = None
    lock_timeout_seconds: int = 3600

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return self.reference.rpartition(":")[0]


@dataclass(frozen=True)
class Plan:
    """Load this version or none, and remove the former image or not."""

    load: Version | None = None
    remove_former: Image | None = None

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.load is not None


def choose(wish: Synchronising, versions: tuple[Version, ...]) -> Version | None:
    """The version that is wanted: the pinned or the newest one, None where the catalogue does not have it."""
    if wish.version is None:
        return versions[0] if versions else None
    return next((version for version in versions if version.timestamp == wish.version), None)


def plan_sync(target: Version | None, current: Image | None, is_current: bool, in_use: bool) -> Plan:
    """Decide from what there is; `in_use` says whether containers or other tags keep the current image."""
    if target is None or is_current:
        return Plan()
    return Plan(load=target, remove_former=None if in_use else current)


def synchronise(engine: Engine, catalogue: Catalogue, wish: Synchronising, check_mode: bool) -> Outcome:
    """Bring the image `wish.reference` to the wanted version; with nothing to do, that is an inspect and a listing."""
    began = time.monotonic()
    outcome = _although_pruned(lambda: _attempt(engine, catalogue, wish, act=False))
    if outcome.changed and not check_mode:
        with _machine_lock(engine, wish):
            # Who held the lock may have loaded it meanwhile, so look again.
            _remove_stale(engine, wish)
            outcome = _although_pruned(lambda: _attempt(engine, catalogue, wish, act=True))
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    return replace(outcome, facts={**outcome.facts, "seconds": seconds}, warnings=engine.warnings)


def remove(engine: Engine, wish: Synchronising, check_mode: bool) -> Outcome:
    """Remove this machine's image of the environment."""
    image = engine.find_image(wish.reference)
    if image and image.tags == (wish.reference,):
        _check_unused(engine, image, wish.reference)
    if not check_mode:
        with _machine_lock(engine, wish):
            _remove_stale(engine, wish)
            engine.remove_image(wish.reference)
    return Outcome(
        changed=image is not None,
        facts={"action": "remove" if image else "none", "image": wish.reference},
        before={"version": image.timestamp if image else None},
        after={"version": None},
        warnings=engine.warnings,
    )


def _attempt(engine: Engine, catalogue: Catalogue, wish: Synchronising, act: bool) -> Outcome:
    """One look at what there is and what is to be done; done, if `act`. `Vanished` if the version was pruned."""
    versions = catalogue.versions(wish.environment)
    current = engine.find_image(wish.reference)
    target = choose(wish, versions)
    if target is None:
        return _nothing_done(wish, _sufficient(catalogue, wish, versions, current).timestamp)
    if current and current.timestamp == target.timestamp:
        return _nothing_done(wish, target.timestamp)
    with open_archive(target.path) as archive:
        is_current = current is not None and current.identity == archive.image.identity
        plan = plan_sync(target, current, is_current, in_use=bool(current and _kept(engine, current, wish)))
        if not plan.load:
            return _nothing_done(wish, target.timestamp, archive.bytes_read)
        layers = archive.image.distinct_layers
        bytes_read = archive.bytes_read + sum(layer.size_bytes for layer in layers)
        if act:
            _load(engine, archive, layers, wish, target)
            bytes_read = archive.bytes_read
            if plan.remove_former:
                engine.remove_image(plan.remove_former.id)
        facts = {
            "action": "load",
            "version": target.timestamp,
            "tarball": str(target.path),
            "bytes_read": bytes_read,
            "bytes_total": archive.size_bytes,
            "layers_loaded": len(layers),
            "layers_reused": 0,
        }
    return _outcome(wish, True, facts, current.timestamp if current else None)


def _load(engine: Engine, archive: Archive, layers: tuple[Layer, ...], wish: Synchronising, target: Version) -> None:
    """Load under a name of our own, prove it, and only then move the tag that people use."""
    temporary = f"{wish.repository}:{_TAG_PREFIX}{target.timestamp}"
    with engine.temporary_image(temporary):
        blobs = [Blob.of_layer(layer) for layer in archive.image.layers]
        contents = ((Blob.of_layer(layer), archive.stored(layer)) for layer in layers)
        engine.load(stream_image(archive.image.config, blobs, contents, temporary), str(target.path))
        loaded = engine.find_image(temporary)
        if loaded is None or loaded.identity != archive.image.identity:
            raise EngineError(
                f"The engine loaded {target.path}, but what it has is not that image",
                where=engine.url,
                cause=f"it has {loaded.identity if loaded else 'nothing'}, not {archive.image.identity}",
                remedy="Check the engine's disk and its log (journalctl -u docker), then try again",
            )
        engine.tag(loaded.id, wish.reference)


def _sufficient(
    catalogue: Catalogue, wish: Synchronising, versions: tuple[Version, ...], current: Image | None
) -> Image:
    """The image that is there, if it will do without a tarball; `HakuError` if not."""
    if current and wish.version in (None, current.timestamp):
        return current
    if versions:
        there = ", ".join(str(version.timestamp) for version in versions)
        raise HakuError(
            f"{catalogue.path} has no version {wish.version} of {wish.environment}",
            where=str(catalogue.path),
            remedy=f"Choose one of: {there}",
        )
    others = ", ".join(catalogue.environments()) or "no environment at all"
    raise HakuError(
        f"There is no tarball of {wish.environment} in {catalogue.path}, and no image {wish.reference} here",
        where=str(catalogue.path),
        cause=f"it has {others}",
        remedy="Package the environment on the Host with haku_tar, or correct the name",
    )


def _kept(engine: Engine, image: Image, wish: Synchronising) -> bool:
    """Whether other tags or any container, running or not, still need the image when its tag has moved."""
    return image.tags != (wish.reference,) or bool(_users(engine, image))


def _users(engine: Engine, image: Image) -> list[str]:
    return [container["Names"][0].lstrip("/") for container in engine.containers() if container["ImageID"] == image.id]


def _check_unused(engine: Engine, image: Image, reference: str) -> None:
    users = _users(engine, image)
    if users:
        raise HakuError(
            f"Image {reference} cannot be removed",
            where=engine.url,
            cause=f"containers use it: {', '.join(users)}",
            remedy="Remove them first",
        )


def _remove_stale(engine: Engine, wish: Synchronising) -> None:
    """Clean up after synchronisations that were killed. Only who holds the machine's lock may call this."""
    for reference in engine.tags_of(wish.repository):
        if reference.startswith(f"{wish.repository}:{_TAG_PREFIX}"):
            engine.remove_image(reference)


def _machine_lock(engine: Engine, wish: Synchronising) -> AbstractContextManager[None]:
    """Let one process of this user at a time synchronise an image on an engine."""
    key = hashlib.sha256(f"{engine.info().get('ID')} {wish.reference}".encode()).hexdigest()[:16]
    directory = Path("/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir())
    path = directory / f"haku.river-{os.geteuid()}-{key}.lock"
    return exclusive(path, wish.lock_timeout_seconds, f"synchronising {wish.environment}")


def _although_pruned(work: Callable[[], Outcome]) -> Outcome:
    """Do the work again, from the listing on, when the version that was chosen is pruned meanwhile."""
    for _try in range(_TRIES - 1):
        try:
            return work()
        except Vanished:
            continue
    return work()


def _nothing_done(wish: Synchronising, version: int | None, bytes_read: int = 0) -> Outcome:
    facts = {
        "action": "none",
        "version": version,
        "tarball": None,
        "bytes_read": bytes_read,
        "bytes_total": None,
        "layers_loaded": 0,
        "layers_reused": 0,
    }
    return _outcome(wish, False, facts, version)


def _outcome(wish: Synchronising, changed: bool, facts: dict[str, Any], version_before: int | None) -> Outcome:
    return Outcome(
        changed=changed,
        facts={"image": wish.reference, **facts},
        before={"version": version_before},
        after={"version": facts["version"]},
    )
