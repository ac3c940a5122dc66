# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Synchronising: this machine's image of an environment becomes the newest, or a pinned, version."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, ArchivedImage, Layer
from ansible_collections.haku.river.plugins.module_utils.delta import (
    Base,
    Delta,
    find_base,
    load_image,
    missing_layers,
)
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Image, ListedImage
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Published, Source, V, although_pruned
from ansible_collections.haku.river.plugins.module_utils.stock import (
    UNFINISHED,
    Stock,
    by_version,
    is_version_tag,
    tags_in,
)

# What is reported of a load where there is none.
_NO_LOAD: Mapping[str, Any] = {
    "tarball": None,
    "bytes_read": 0,
    "bytes_total": None,
    "layers_loaded": 0,
    "layers_reused": 0,
    "fallback": None,
}


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


@dataclass(frozen=True)
class Plan:
    """How the wanted version becomes current, and what becomes of the former ones.

    Either `tag` is the ID of an image that is there and only needs the tag, or `load` are the layers to load. The
    image that was current gets the tag `keep_as`, if any; then `remove` are the tags and IDs to remove. `former` are
    the versions that stay on the machine beside the current one, newest first.
    """

    tag: str | None = None
    load: tuple[Layer, ...] = ()
    keep_as: str | None = None
    remove: tuple[str, ...] = ()
    former: tuple[int, ...] = ()

    @property
    def action(self) -> str:
        """What the result calls it."""
        return "tag" if self.tag else "load"


def choose(wish: Synchronising, versions: Sequence[V]) -> V | None:
    """The version that is wanted: the pinned or the newest one, None where the source does not have it."""
    if wish.version is None:
        return versions[0] if versions else None
    return next((version for version in versions if version.timestamp == wish.version), None)


def plan_sync(wish: Synchronising, stock: Stock, wanted: ArchivedImage | None, base: Base) -> Plan:
    """Decide from what there is how an image that is not current becomes so.

    `wanted` is what the tarball has; without a tarball, `base` is the very image that is wanted.
    """
    is_there = base.image is not None and (wanted is None or base.image.identity == wanted.identity)
    tag = base.image.id if base.image and is_there else None
    load = () if wanted is None or is_there else missing_layers(wanted, base)
    tagged = stock.kept(besides=tag)
    former = dict(tagged)
    current = stock.current
    if current and current.timestamp is not None:
        former.setdefault(current.timestamp, current.id)
    newest_first = sorted(former, reverse=True)
    # One that is in use always has its version's tag, so that a later synchronisation finds and removes it.
    gone = {it for it in newest_first[wish.keep_images :] if former[it] not in stock.used}
    remove = [wish.version_reference(timestamp) for timestamp in newest_first if timestamp in gone & tagged.keys()]
    keep_as = None
    if current:
        stays = next((it for it in newest_first if former[it] == current.id and it not in gone), None)
        if stays is not None and stays not in tagged:
            keep_as = wish.version_reference(stays)
        if stays is None and current.tags == (wish.reference,) and current.id not in stock.used:
            remove.append(current.id)
    return Plan(tag, load, keep_as, (*remove, *stock.stale), tuple(it for it in newest_first if it not in gone))


def plan_removal(wish: Synchronising, stock: Stock) -> tuple[str, ...]:
    """The tags to remove so that the machine has no image of the environment but those that containers use."""
    current = (wish.reference,) if stock.current else ()
    unused = (wish.version_reference(it) for it, image_id in stock.versions.items() if image_id not in stock.used)
    return (*current, *unused, *stock.stale)


def synchronise(engine: Engine, source: Source[V], wish: Synchronising, check_mode: bool) -> Outcome:
    """Bring the image `wish.reference` to the wanted version; with nothing to do, that is an inspect and a listing."""
    began = time.monotonic()
    outcome = although_pruned(
        lambda: _settled(wish, _see(engine, source, wish)) or _bring(engine, source, wish, check_mode)
    )
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    facts = {**outcome.facts, "seconds": seconds}
    return replace(outcome, facts=facts, warnings=(*engine.warnings, *source.warnings, *outcome.warnings))


def remove(engine: Engine, wish: Synchronising, check_mode: bool) -> Outcome:
    """Remove this machine's image of the environment, and those of its former versions that nothing uses."""
    with nullcontext() if check_mode else _machine_lock(engine, wish):
        stock = _take_stock(engine, wish, engine.find_image(wish.reference), engine.images(), ())
        if stock.current and stock.current.tags == (wish.reference,):
            _check_unused(engine, stock.current, wish.reference)
        unwanted = plan_removal(wish, stock)
        if not check_mode:
            for reference in unwanted:
                engine.remove_image(reference)
    return Outcome(
        changed=bool(unwanted),
        facts={"action": "remove" if unwanted else "none", "image": wish.reference},
        before={"version": stock.current.timestamp if stock.current else None},
        after={"version": None},
        warnings=engine.warnings,
    )


@dataclass(frozen=True)
class _Seen(Generic[V]):
    """What a listing and an inspect tell. `target` is the version that is wanted, `wanted` its timestamp."""

    versions: Sequence[V]
    current: Image | None
    target: V | None
    wanted: int | None


def _see(engine: Engine, source: Source[V], wish: Synchronising) -> _Seen[V]:
    versions = source.versions(wish.environment)
    target = choose(wish, versions)
    return _Seen(versions, engine.find_image(wish.reference), target, target.timestamp if target else wish.version)


def _settled(wish: Synchronising, seen: _Seen[V]) -> Outcome | None:
    """What is reported if the image is current, as far as that can be told without opening a tarball."""
    if seen.current and seen.wanted in (None, seen.current.timestamp):
        return _nothing_done(wish, seen.current.timestamp)
    return None


def _bring(engine: Engine, source: Source[V], wish: Synchronising, check_mode: bool) -> Outcome:
    """Do what there is to do, or forecast it; `Vanished` if the version is pruned meanwhile."""
    with nullcontext() if check_mode else _machine_lock(engine, wish):
        # Who held the lock may have done it meanwhile, so look again.
        seen = _see(engine, source, wish)
        settled = _settled(wish, seen)
        if settled:
            return settled
        versions, current, target, wanted = seen.versions, seen.current, seen.target, seen.wanted
        there = None if wanted is None else engine.find_image(wish.version_reference(wanted))
        if there and there.timestamp == wanted:
            return _tag(engine, wish, _take_stock(engine, wish, current, engine.images(), versions), there, check_mode)
        if target is None:
            raise _nowhere(source, wish, versions)
        with source.open(target) as archive:
            if current and current.identity == archive.image.identity:
                return _nothing_done(wish, target.timestamp, archive.bytes_read)
            listed = engine.images()
            stock = _take_stock(engine, wish, current, listed, versions)
            nearest_first = _nearest_first(wish, listed)
            base = Base() if wish.delta is Delta.NEVER else find_base(engine, archive.image, current, nearest_first)
            return _load_or_tag(engine, wish, stock, target, archive, base, check_mode)


def _tag(engine: Engine, wish: Synchronising, stock: Stock, there: Image, check_mode: bool) -> Outcome:
    """Make an image current that has its version's tag, without opening the tarball, which may be gone."""
    plan = plan_sync(wish, stock, None, Base(there, len(there.identity.diff_ids)))
    warnings = () if check_mode else _apply(engine, wish, stock, plan, there)
    distinct = len(set(there.identity.diff_ids))
    return _done(wish, stock, plan, {"version": there.timestamp, "layers_reused": distinct}, warnings)


def _load_or_tag(
    engine: Engine,
    wish: Synchronising,
    stock: Stock,
    target: Published,
    archive: Archive,
    base: Base,
    check_mode: bool,
) -> Outcome:
    """Make the archive's image current, by as few of its layers as the engine needs on top of the base."""
    wanted = archive.image
    plan = plan_sync(wish, stock, wanted, base)
    facts = {
        "version": target.timestamp,
        "tarball": target.location,
        "bytes_read": archive.bytes_read + sum(layer.size_bytes for layer in plan.load),
        "bytes_total": archive.size_bytes,
        "layers_loaded": len(plan.load),
        "layers_reused": len(wanted.distinct_layers) - len(plan.load),
        "fallback": None,
    }
    if check_mode:
        return _done(wish, stock, plan, facts)
    if plan.tag and base.image:
        return _done(wish, stock, plan, facts, _apply(engine, wish, stock, plan, base.image))
    temporary = f"{wish.repository}:{UNFINISHED}{target.timestamp}"
    # It gets a name of our own first, and the tag that people use only when it is proven.
    with engine.temporary_image(temporary):
        loaded, refusal = load_image(engine, archive, base, temporary, fall_back=wish.delta is Delta.AUTO)
        warnings = _apply(engine, wish, stock, plan, loaded)
    if refusal is not None:
        facts |= {"layers_loaded": len(wanted.distinct_layers), "layers_reused": 0, "fallback": refusal}
        warnings = (f"All layers were loaded, as the engine could not use those that it has: {refusal}", *warnings)
    return _done(wish, stock, plan, {**facts, "bytes_read": archive.bytes_read}, warnings)


def _apply(engine: Engine, wish: Synchronising, stock: Stock, plan: Plan, image: Image) -> tuple[str, ...]:
    """Move the tags; returns warnings about what could not be removed, as the wanted image is current by then."""
    if plan.keep_as and stock.current:
        engine.tag(stock.current.id, plan.keep_as)
    engine.tag(image.id, wish.reference)
    warnings = []
    for reference in plan.remove:
        try:
            engine.remove_image(reference)
        except EngineError as error:
            warnings.append(str(error))
    return tuple(warnings)


def _take_stock(
    engine: Engine,
    wish: Synchronising,
    current: Image | None,
    listed: Iterable[ListedImage],
    published: Sequence[Published],
) -> Stock:
    tags = tags_in(wish.repository, listed)
    stale = tuple(f"{wish.repository}:{tag}" for tag in tags if tag.startswith(UNFINISHED))
    used = frozenset(container["ImageID"] for container in engine.containers())
    newest = published[0].timestamp if published else None
    return Stock(current, by_version(tags), used, stale, newest)


def _nearest_first(wish: Synchronising, listed: Iterable[ListedImage]) -> list[str]:
    """The IDs of all images, in the order in which they are likely to have layers of the wanted one."""
    own = [image.id for image in listed if any(tag.rpartition(":")[0] == wish.repository for tag in image.tags)]
    return [*own, *(image.id for image in listed)]


def _nowhere(source: Source[V], wish: Synchronising, versions: Sequence[V]) -> HakuError:
    """The error for a version that neither the source nor the machine has."""
    if versions:
        there = ", ".join(str(version.timestamp) for version in versions)
        return HakuError(
            f"{source.location} has no version {wish.version} of {wish.environment}",
            where=source.location,
            remedy=f"Choose one of: {there}",
        )
    others = ", ".join(source.environments()) or "no environment at all"
    return HakuError(
        f"There is no tarball of {wish.environment} in {source.location}, and no image {wish.reference} here",
        where=source.location,
        cause=f"it has {others}",
        remedy="Package the environment on the Host with haku_tar, or correct the name",
    )


def _check_unused(engine: Engine, image: Image, reference: str) -> None:
    users = [container["Names"][0].lstrip("/") for container in engine.containers() if container["ImageID"] == image.id]
    if users:
        raise HakuError(
            f"Image {reference} cannot be removed",
            where=engine.url,
            cause=f"containers use it: {', '.join(users)}",
            remedy="Remove them first",
        )


def _machine_lock(engine: Engine, wish: Synchronising) -> AbstractContextManager[None]:
    """Let one process of this user at a time synchronise an image on an engine."""
    key = hashlib.sha256(f"{engine.description.get('ID')} {wish.reference}".encode()).hexdigest()[:16]
    directory = Path("/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir())
    path = directory / f"haku.river-{os.geteuid()}-{key}.lock"
    return exclusive(path, wish.lock_timeout_seconds, f"synchronising {wish.environment}")


def _nothing_done(wish: Synchronising, version: int | None, bytes_read: int = 0) -> Outcome:
    facts = {**_NO_LOAD, "action": "none", "version": version, "bytes_read": bytes_read, "former_versions": None}
    return Outcome(False, {"image": wish.reference, **facts}, {"version": version}, {"version": version})


def _done(
    wish: Synchronising, stock: Stock, plan: Plan, facts: Mapping[str, Any], warnings: tuple[str, ...] = ()
) -> Outcome:
    made = {"action": plan.action, "former_versions": list(plan.former)}
    return Outcome(
        changed=True,
        facts={"image": wish.reference, **_NO_LOAD, **made, **facts},
        before={"version": stock.current.timestamp if stock.current else None},
        after={"version": facts["version"]},
        warnings=warnings,
    )
