# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Synchronising: this machine's image of an environment becomes the newest, or a pinned, version."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from ansible_collections.haku.river.plugins.module_utils.beside import beside
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Image
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Source, V, although_pruned
from ansible_collections.haku.river.plugins.module_utils.stock import Stock
from ansible_collections.haku.river.plugins.module_utils.sync_view import (
    Synchronising,
    machine_lock,
    see,
    settled,
    take_stock,
)


def plan_removal(wish: Synchronising, stock: Stock) -> tuple[str, ...]:
    """The tags to remove so that the machine has no image of the environment but those to keep or that containers use.

    Of a pinned version, it is the image beside the current one.
    """
    unused = {it: wish.version_reference(it) for it, image_id in stock.versions.items() if image_id not in stock.used}
    if wish.version is not None:
        return tuple(reference for it, reference in unused.items() if it == wish.version)
    current = (wish.reference,) if stock.current else ()
    kept = sorted(stock.versions, reverse=True)[: wish.keep_images]
    return (*current, *(reference for it, reference in unused.items() if it not in kept), *stock.stale)


def synchronise(engine: Engine, source: Source[V], wish: Synchronising, check_mode: bool) -> Outcome:
    """Bring the image `wish.reference` to the wanted version; with nothing to do, that is an inspect and a listing."""
    began = time.monotonic()
    outcome = although_pruned(lambda: _synchronise(engine, source, wish, check_mode))
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    facts = {**outcome.facts, "seconds": seconds}
    return replace(outcome, facts=facts, warnings=(*engine.warnings, *source.warnings, *outcome.warnings))


def _synchronise(engine: Engine, source: Source[V], wish: Synchronising, check_mode: bool) -> Outcome:
    seen = see(engine, source, wish)
    outcome = settled(wish, seen)
    if outcome:
        return outcome
    stock_of = partial(take_stock, engine, wish, seen.current, seen.versions)
    with beside(lambda: engine.description), beside(stock_of) as stock:  # both of which will be needed
        # A module's code is compiled anew in every run on every machine, and usually there is nothing to do.
        from ansible_collections.haku.river.plugins.module_utils.sync_change import bring

    return bring(engine, source, wish, seen, stock.result(), check_mode)


def remove(engine: Engine, wish: Synchronising, check_mode: bool) -> Outcome:
    """Remove this machine's image of the environment, and those of its former versions that nothing uses.

    If a version is pinned, only the image that was kept of that one goes, and the current one stays.
    """
    with nullcontext() if check_mode else machine_lock(engine, wish):
        stock = take_stock(engine, wish, engine.find_image(wish.reference), ())
        if wish.version is None and stock.current and stock.current.tags == (wish.reference,):
            _check_unused(engine, stock.current, wish.reference)
        unwanted = plan_removal(wish, stock)
        if not check_mode:
            for reference in unwanted:
                engine.remove_image(reference)
    version = stock.current.timestamp if stock.current else None
    former = sorted(stock.versions, reverse=True)
    left = [it for it in former if wish.version_reference(it) not in unwanted]
    return Outcome(
        changed=bool(unwanted),
        facts={"action": "remove" if unwanted else "none", "image": wish.reference},
        before={"version": version, "former_versions": former},
        after={"version": None if wish.version is None else version, "former_versions": left},
        warnings=engine.warnings,
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
