# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making the wanted version current: which image that takes, which layers, and what becomes of the former ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, ArchivedImage, Layer
from ansible_collections.haku.river.plugins.module_utils.beside import beside
from ansible_collections.haku.river.plugins.module_utils.delta import Base, find_base, load_image, missing_layers
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Image
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Published, Source, V
from ansible_collections.haku.river.plugins.module_utils.stock import Stock
from ansible_collections.haku.river.plugins.module_utils.sync_view import (
    NO_LOAD,
    Delta,
    Seen,
    Synchronising,
    machine_lock,
    nothing_done,
    see,
    settled,
    take_stock,
)

# Engines need a while for each removal, and do not need all their processors for it.
_AT_ONCE = 2


@dataclass(frozen=True)
class Plan:
    """How the wanted version becomes current, and what becomes of the former ones.

    Either `tag` is the ID of an image that is there and only needs the tag, or `load` are the layers to load. The
    image that was current gets the tag `keep_as`, if any; then `remove` are the tags to remove. `former` are the
    versions that stay on the machine beside the current one, newest first.
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


def plan_sync(wish: Synchronising, stock: Stock, wanted: ArchivedImage | None, base: Base) -> Plan:
    """Decide from what there is how an image that is not current becomes so.

    `wanted` is what the tarball has; without a tarball, `base` is the very image that is wanted.
    """
    is_there = base.image is not None and (wanted is None or base.image.is_one_of(wanted.identity))
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
            # Removed by its ID, it would take along a tag that somebody has given it meanwhile.
            keep_as = wish.unfinished_reference(current.id.rpartition(":")[2][:12])
            remove.append(keep_as)
    return Plan(tag, load, keep_as, (*remove, *stock.stale), tuple(it for it in newest_first if it not in gone))


def bring(
    engine: Engine, source: Source[V], wish: Synchronising, seen: Seen[V], stock: Stock, check_mode: bool
) -> Outcome:
    """Do what there is to do, or forecast it; `Vanished` if the version is pruned meanwhile."""
    with nullcontext(0) if check_mode else machine_lock(engine, wish) as last_held_ns:
        if last_held_ns >= seen.at_ns:
            # Who held the lock may have done it meanwhile.
            seen = see(engine, source, wish)
            outcome = settled(wish, seen)
            if outcome:
                return outcome
            stock = take_stock(engine, wish, seen.current, seen.versions)
        current, target, wanted = seen.current, seen.target, seen.wanted
        stock = _without_packagers(stock, seen)
        there = seen.here or _kept_image(engine, stock, wanted)
        if there:
            return _tag(engine, wish, stock, there, check_mode)
        if target is None:
            raise _nowhere(source, wish, seen.versions)
        with source.open(target) as archive:
            if current and current.is_one_of(archive.image.identity):
                return nothing_done(wish, target.timestamp, current.id, archive.bytes_read)
            base = _base(engine, wish, archive.image, current, stock)
            return _load_or_tag(engine, wish, stock, target, archive, base, check_mode)


def _without_packagers(stock: Stock, seen: Seen[V]) -> Stock:
    """What may go for an image that is here already.

    Where nothing was listed, an image that is newer than both may be a packager's.
    """
    if seen.versions or seen.wanted is None:
        return stock
    current = seen.current.timestamp if seen.current else None
    return replace(stock, published=max(seen.wanted, current or 0))


def _kept_image(engine: Engine, stock: Stock, wanted: int | None) -> Image | None:
    """The image that has the tag of the wanted version and is of its time."""
    image_id = None if wanted is None else stock.versions.get(wanted)
    image = engine.find_image(image_id) if image_id else None
    return image if image and image.timestamp == wanted else None


def _base(engine: Engine, wish: Synchronising, wanted: ArchivedImage, current: Image | None, stock: Stock) -> Base:
    """The local image to build on; who wants `always` only what is missing waits until all images have been seen."""
    if wish.delta is Delta.NEVER:
        return Base()
    return find_base(engine, wanted, current, stock.images, thorough=wish.delta is Delta.ALWAYS)


def _tag(engine: Engine, wish: Synchronising, stock: Stock, there: Image, check_mode: bool) -> Outcome:
    """Make an image current that has its version's tag, without opening the tarball, which may be gone."""
    plan = plan_sync(wish, stock, None, Base(there, len(there.identity.diff_ids)))
    warnings = () if check_mode else _move(engine, wish, stock, plan, there)
    distinct = len(set(there.identity.diff_ids))
    facts = {"image_id": there.id, "version": there.timestamp, "layers_reused": distinct}
    return _done(wish, stock, plan, facts, warnings)


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
        "image_id": plan.tag,
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
        return _done(wish, stock, plan, facts, _move(engine, wish, stock, plan, base.image))
    temporary = wish.unfinished_reference(target.timestamp)
    # It gets a name of our own first, and the tag that people use only when it is proven.
    with _undone(engine, temporary):
        with _undone(engine, plan.keep_as), beside(partial(_keep, engine, stock, plan)):
            image_id, refusal = load_image(engine, archive, base, temporary, fall_back=wish.delta is Delta.AUTO)
        engine.tag(image_id, wish.reference)
    warnings = _remove(engine, (temporary, *plan.remove))
    if refusal is not None:
        facts |= {"layers_loaded": len(wanted.distinct_layers), "layers_reused": 0, "fallback": refusal}
        warnings = (f"All layers were loaded, as the engine could not use those that it has: {refusal}", *warnings)
    return _done(wish, stock, plan, {**facts, "image_id": image_id, "bytes_read": archive.bytes_read}, warnings)


def _move(engine: Engine, wish: Synchronising, stock: Stock, plan: Plan, image: Image) -> tuple[str, ...]:
    """Make an image current that is there; returns warnings as `_remove` does."""
    _keep(engine, stock, plan)
    engine.tag(image.id, wish.reference)
    return _remove(engine, plan.remove)


def _keep(engine: Engine, stock: Stock, plan: Plan) -> None:
    """Give the image that is current the tag under which it is found when it no longer is."""
    if plan.keep_as and stock.current:
        engine.tag(stock.current.id, plan.keep_as)


@contextmanager
def _undone(engine: Engine, reference: str | None) -> Iterator[None]:
    """If the block fails, remove the tag that it may have given, if any."""
    try:
        yield
    except BaseException:
        if reference:
            # What went wrong first is what has to be told; who comes next removes what is left.
            with suppress(EngineError):
                engine.remove_image(reference)
        raise


def _remove(engine: Engine, references: Sequence[str]) -> tuple[str, ...]:
    """Remove what is not kept; returns warnings about what could not be, as the wanted image is current by then."""

    def complaint(reference: str) -> str | None:
        try:
            engine.remove_image(reference)
        except EngineError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(filter(None, pool.map(complaint, references)))


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


def _done(
    wish: Synchronising, stock: Stock, plan: Plan, facts: Mapping[str, Any], warnings: tuple[str, ...] = ()
) -> Outcome:
    made = {"action": plan.action, "former_versions": list(plan.former)}
    return Outcome(
        changed=True,
        facts={"image": wish.reference, **NO_LOAD, **made, **facts},
        before={"version": stock.current.timestamp if stock.current else None},
        after={"version": facts["version"]},
        warnings=warnings,
    )
