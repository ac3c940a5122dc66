# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packaging an environment: its container becomes the newest tarball, and old tarballs go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.archive import open_archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.container import Container, check_may_touch, find_container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity
from ansible_collections.haku.river.plugins.module_utils.layers import saved_image
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, TarballName
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.snapshot import (
    Snapshot,
    observation,
    remove_stale_snapshots,
    snapshot,
)
from ansible_collections.haku.river.plugins.module_utils.tarball import portable_config, write_tarball
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time, unix_timestamp

# A version as new as the engine's clock is one of this second: the next second is near. A newer one is not.
_PATIENCE_SECONDS = 2


@dataclass(frozen=True)
class Packaging:
    """What the user wants packaged, and how. `reference` is the tag that the tarball gives its image when loaded."""

    environment: str
    reference: str
    keep: int = 1
    stop: bool = True
    stop_timeout_seconds: int = 10
    lock_timeout_seconds: int = 600
    prune_grace_seconds: int = 0
    adopt: bool = False

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that would leave no version."""
        if self.keep < 1:
            remedy = "Keep at least one; state: absent removes versions"
            raise HakuError(f"keep: {self.keep} would leave no version of {self.environment}", remedy=remedy)

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return self.reference.rpartition(":")[0]


@dataclass(frozen=True)
class Plan:
    """What is to be done to the catalogue: publish a version or none, and remove some, oldest last."""

    publish: TarballName | None = None
    remove: tuple[Version, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.publish is not None or bool(self.remove)


def plan_package(
    wish: Packaging, taken: Snapshot, newest: Identity | None, versions: tuple[Version, ...], now: int
) -> Plan:
    """Decide from what there is. `newest` is the identity of the first of `versions`, `now` is in Unix seconds."""
    if taken.identity == newest:
        publish, published = None, 0
    else:
        publish, published = TarballName(wish.environment, taken.timestamp), 1
    superseded = versions[max(wish.keep - published, 0) :]
    remove = tuple(version for version in superseded if now - version.timestamp >= wish.prune_grace_seconds)
    return Plan(publish, remove)


def plan_removal(versions: tuple[Version, ...], timestamp: int | None) -> Plan:
    """Remove one version, or all of them; one that is not there needs nothing."""
    return Plan(remove=tuple(version for version in versions if timestamp in (None, version.timestamp)))


def package(engine: Engine, catalogue: Catalogue, wish: Packaging, check_mode: bool) -> Outcome:
    """Bring the catalogue's newest version to what the env container is now."""
    began = time.monotonic()
    catalogue.check_writable()
    with _lock(catalogue, wish, check_mode):
        if not check_mode:
            catalogue.remove_stale_partials(wish.environment)
            remove_stale_snapshots(engine, wish.repository)
        container = _container(engine, wish)
        versions = catalogue.versions(wish.environment)
        newest, warnings = _newest_identity(versions)
        now = _await_next_second(engine, versions)
        with _taken(engine, container, wish, check_mode) as taken:
            plan = plan_package(wish, taken, newest, versions, now)
            _check_order(plan, versions)
            facts = {} if check_mode else _apply(plan, engine, catalogue, taken, wish)
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    warnings = (*engine.warnings, *warnings)
    return _outcome(plan, catalogue, versions, {**facts, "seconds": seconds}, check_mode, warnings)


def remove(
    catalogue: Catalogue, environment: str, timestamp: int | None, lock_timeout: int, check_mode: bool
) -> Outcome:
    """Remove one version of an environment, or all of them."""
    catalogue.check_writable()
    with nullcontext() if check_mode else catalogue.lock(environment, lock_timeout):
        versions = catalogue.versions(environment)
        plan = plan_removal(versions, timestamp)
        if not check_mode:
            for version in reversed(plan.remove):
                catalogue.remove(version)
    kept = [version.timestamp for version in versions if version not in plan.remove]
    return Outcome(
        changed=plan.changed,
        facts={"removed": [version.timestamp for version in plan.remove], "versions": kept},
        before={"versions": [version.timestamp for version in versions]},
        after={"versions": kept},
    )


def _lock(catalogue: Catalogue, wish: Packaging, check_mode: bool) -> AbstractContextManager[None]:
    return nullcontext() if check_mode else catalogue.lock(wish.environment, wish.lock_timeout_seconds)


def _container(engine: Engine, wish: Packaging) -> Container:
    container = find_container(engine, wish.environment, wish.environment)
    if container is None:
        raise HakuError(
            f"There is no container {wish.environment} to package",
            where=engine.url,
            remedy=f"Create it with haku_container, or see what there is: docker ps -a --filter label={LABEL_MANAGED}",
        )
    check_may_touch(container, wish.environment, wish.adopt)
    if wish.stop and container.removes_itself and container.state == "running":
        raise HakuError(
            f"Container {wish.environment} would be lost when it stops, as it was started with --rm",
            where=engine.url,
            remedy="Set consistency: pause, or create it without --rm",
        )
    return container


def _newest_identity(versions: tuple[Version, ...]) -> tuple[Identity | None, tuple[str, ...]]:
    """What the newest version holds; a damaged one holds nothing worth keeping, and the next package mends it."""
    if not versions:
        return None, ()
    try:
        with open_archive(versions[0].path) as archive:
            return archive.image.identity, ()
    except ArchiveError as error:
        return None, (f"Packaging anew, as the newest version cannot be read. {error}",)


def _await_next_second(engine: Engine, versions: tuple[Version, ...]) -> int:
    """Return the engine's clock in Unix seconds, when it is past the newest version."""
    clock = unix_timestamp(engine.info().get("SystemTime")) or int(time.time())
    ahead = versions[0].timestamp + 1 - clock if versions else 0
    if ahead > _PATIENCE_SECONDS:
        raise HakuError(
            f"The newest version of {versions[0].environment} is from the future",
            where=str(versions[0].path),
            cause=f"it is {versions[0].timestamp} ({iso_time(versions[0].timestamp)}), "
            f"and the engine's clock says {iso_time(clock)}",
            remedy="Set the clocks right (chrony, ntpd), or remove that version with state: absent",
        )
    if ahead > 0:
        time.sleep(ahead)
    return clock + max(ahead, 0)


def _taken(engine: Engine, container: Container, wish: Packaging, check_mode: bool) -> AbstractContextManager[Snapshot]:
    if check_mode:
        return observation(engine, container, wish.repository)
    return snapshot(engine, container, wish.repository, wish.stop, wish.stop_timeout_seconds)


def _check_order(plan: Plan, versions: tuple[Version, ...]) -> None:
    if plan.publish and versions and plan.publish.timestamp <= versions[0].timestamp:
        raise HakuError(
            f"The engine's clock went backwards while {plan.publish.environment} was packaged",
            cause=f"the image is from {plan.publish.timestamp}, the newest version from {versions[0].timestamp}",
            remedy="Set the clocks right (chrony, ntpd), then package again",
        )


def _apply(plan: Plan, engine: Engine, catalogue: Catalogue, taken: Snapshot, wish: Packaging) -> Mapping[str, Any]:
    """Publish, and only then prune, oldest first; returns what could not be foretold."""
    source = _publish(engine, catalogue, taken, plan.publish, wish.reference) if plan.publish else None
    for version in reversed(plan.remove):
        catalogue.remove(version)
    return {"layers_from": source, "away_seconds": round(taken.away_seconds, 3)}


def _publish(engine: Engine, catalogue: Catalogue, taken: Snapshot, name: TarballName, reference: str) -> str:
    """Write and publish the tarball; returns where its layers came from."""
    what = f"Cannot write {catalogue.path / str(name)}"
    with catalogue.saying(what), catalogue.partial(name) as spool, saved_image(engine, taken.reference, spool) as image:
        config = portable_config(image.config, taken.identity.configuration)
        with catalogue.partial(name) as file:
            write_tarball(file, config, taken.identity.diff_ids, image, reference)
            catalogue.publish(file, name)
            return image.name


def _outcome(
    plan: Plan,
    catalogue: Catalogue,
    versions: tuple[Version, ...],
    measured: Mapping[str, Any],
    check_mode: bool,
    warnings: tuple[str, ...],
) -> Outcome:
    """Report the end, or the forecast, in which a version that is yet to be published is null."""
    before = [version.timestamp for version in versions]
    removed = [version.timestamp for version in plan.remove]
    kept = [version for version in versions if version not in plan.remove]
    newest: Version | None = kept[0] if kept else None
    after: list[int | None] = [version.timestamp for version in kept]
    if plan.publish:
        newest = None if check_mode else catalogue.version(plan.publish)
        after.insert(0, newest.timestamp if newest else None)
    return Outcome(
        changed=plan.changed,
        facts={
            "published": bool(plan.publish),
            "version": newest.timestamp if newest else None,
            "tarball": str(newest.path) if newest else None,
            "size_bytes": newest.size_bytes if newest else None,
            "removed": removed,
            "versions": after,
            "layers_from": None,
            "away_seconds": None,
            **measured,
        },
        before={"versions": before},
        after={"versions": after},
        warnings=warnings,
    )
