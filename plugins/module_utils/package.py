# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packaging an environment: its container becomes the newest tarball, and old tarballs go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, open_archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.container import Container, check_may_touch, find_container
from ansible_collections.haku.river.plugins.module_utils.container_steps import on_failure
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, TarballName
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.own_commit import OwnCommit
from ansible_collections.haku.river.plugins.module_utils.rebase import Replacement, recover
from ansible_collections.haku.river.plugins.module_utils.saved import SavedImage, saved_image
from ansible_collections.haku.river.plugins.module_utils.snapshot import (
    Absence,
    Snapshot,
    away,
    remove_stale_snapshots,
    take,
    temporary_reference,
)
from ansible_collections.haku.river.plugins.module_utils.storage import StorageError, StoredImage
from ansible_collections.haku.river.plugins.module_utils.tarball import (
    LAYER_TYPE,
    Blob,
    portable_config,
    stream_image,
    write_tarball,
)
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
    rebase: bool = True
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
    """What is to be done: publish a version or none, continue the container on it or not, and remove some versions."""

    publish: TarballName | None = None
    rebase: bool = False
    remove: tuple[Version, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.publish is not None or bool(self.remove)


def plan_package(
    wish: Packaging,
    taken: Snapshot,
    newest: Identity | None,
    versions: tuple[Version, ...],
    now: int,
    can_rebase: bool,
) -> Plan:
    """Decide from what there is. `newest` is the identity of the first of `versions`, `now` is in Unix seconds."""
    if taken.identity == newest:
        publish, published = None, 0
    else:
        publish, published = TarballName(wish.environment, taken.timestamp), 1
    superseded = versions[max(wish.keep - published, 0) :]
    remove = tuple(version for version in superseded if now - version.timestamp >= wish.prune_grace_seconds)
    return Plan(publish, bool(publish) and wish.rebase and can_rebase, remove)


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
            recover(engine, wish.environment)
        container = _container(engine, wish)
        versions = catalogue.versions(wish.environment)
        with ExitStack() as stack:
            former, warnings = _open_newest(stack, versions)
            info = engine.info()
            now = _await_next_second(info, versions)
            scene = _Scene(engine, catalogue, wish, container, versions, former, info, now)
            done = _foresee(scene) if check_mode else _perform(scene)
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    warnings = (*engine.warnings, *warnings, *done.warnings)
    return _outcome(done.plan, catalogue, versions, {**done.facts, "seconds": seconds}, check_mode, warnings)


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


@dataclass(frozen=True)
class _Scene:
    """All that a package depends on.

    `former` is the newest version, opened, `info` what `docker info` says, and `now` is in Unix seconds.
    """

    engine: Engine
    catalogue: Catalogue
    wish: Packaging
    container: Container
    versions: tuple[Version, ...]
    former: Archive | None
    info: Mapping[str, Any]
    now: int

    def own_commit(self) -> OwnCommit | None:
        """How to commit the container without the engine, None if the engine is to do it."""
        return OwnCommit.prepare(self.engine, self.info, self.container) if self.is_alive else None

    @property
    def is_alive(self) -> bool:
        """Whether the container is to be stopped for the commit."""
        return self.wish.stop and self.container.state in ("running", "restarting")

    @property
    def is_replaceable(self) -> bool:
        """Whether the container is at rest when it is committed, so that another can take its place."""
        return self.is_alive or self.container.state in ("created", "exited")


@dataclass(frozen=True)
class _Done:
    """The plan that was carried out, or would be, and what is known of it."""

    plan: Plan
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def _foresee(scene: _Scene) -> _Done:
    """Look at the container as it runs, neither stopped nor paused, to see what a package would hold now."""
    reference = temporary_reference(scene.wish.repository)
    with scene.engine.temporary_image(reference):
        taken = _take(scene, reference, scene.own_commit(), file=None, pause=False)
        plan = _decide(scene, taken)
    unknown = None if plan.publish else 0
    facts = {"layers_from": None, "layers_written": unknown, "layers_cloned": unknown, "bytes_written": unknown}
    return _Done(plan, facts, _obstacle(plan, taken.obstacle))


def _perform(scene: _Scene) -> _Done:
    """Take the snapshot, continue the container on it, and only when that runs again write and publish."""
    engine, wish = scene.engine, scene.wish
    reference = temporary_reference(wish.repository)
    replacement = Replacement(engine, wish.environment, runs=scene.is_alive)
    own_commit = scene.own_commit()
    spool = TarballName(wish.environment, scene.now)
    with ExitStack() as held:
        held.enter_context(engine.temporary_image(reference))
        file = held.enter_context(scene.catalogue.partial(spool)) if own_commit else None
        with _absence(scene) as absence, on_failure(replacement.undo):
            pause = scene.container.state == "running" and not scene.is_alive
            taken = _take(scene, reference, own_commit, file, pause)
            plan = _decide(scene, taken)
            if plan.rebase and taken.stored:
                version = f"{wish.repository}:{taken.timestamp}"
                held.enter_context(on_failure(lambda: _remove_unused(engine, version)))
                held.enter_context(on_failure(replacement.undo))
                _load(engine, taken.stored, taken.identity, version)
                replacement.begin(version)
        facts, warnings = _apply(plan, scene, taken)
    if replacement.begun:
        replacement.finish()
        _remove_superseded(scene)
    return _Done(plan, {**facts, "away_seconds": round(absence.seconds, 3)}, warnings)


def _take(scene: _Scene, reference: str, own_commit: OwnCommit | None, file: BinaryIO | None, pause: bool) -> Snapshot:
    """Commit the container by ourselves where that is possible and cheaper, else by the engine."""
    if own_commit:
        with suppress(StorageError), scene.catalogue.saying(f"Cannot write into {scene.catalogue.path}"):
            return own_commit.take(reference, file)
    return take(scene.engine, scene.container, reference, pause)


def _absence(scene: _Scene) -> AbstractContextManager[Absence]:
    if not scene.is_alive:
        return nullcontext(Absence())
    return away(scene.engine, scene.container, scene.wish.environment, scene.wish.stop_timeout_seconds)


def _decide(scene: _Scene, taken: Snapshot) -> Plan:
    newest = scene.former.image.identity if scene.former else None
    can_rebase = taken.stored is not None and scene.is_replaceable
    plan = plan_package(scene.wish, taken, newest, scene.versions, scene.now, can_rebase)
    _check_order(plan, scene.versions)
    return plan


def _obstacle(plan: Plan, error: StorageError | None) -> tuple[str, ...]:
    """Say why a package is slower than it could be."""
    if not (plan.publish and error):
        return ()
    return (f"Layers come from docker save, which costs the whole image and not only what changed. {error}",)


def _load(engine: Engine, stored: StoredImage, identity: Identity, reference: str) -> None:
    """Have the engine hold the image that is packaged, too; it is sent no layer that it has."""
    config = portable_config(stored.config, identity.configuration)
    there = stored.blobs()
    layers = [there.get(diff_id) or Blob(diff_id, 0, LAYER_TYPE) for diff_id in identity.diff_ids]
    engine.load(stream_image(config, layers, stored.missing(), reference), f"the packaged image {reference}")
    loaded = engine.find_image(reference)
    if loaded is None or loaded.identity != identity:
        raise EngineError(
            f"The engine cannot continue the container on the packaged image {reference}",
            where=engine.url,
            cause=f"it has {loaded.identity if loaded else 'nothing'}, not {identity}",
            remedy="Set rebase: false, with which each package has all changes since the container was created",
        )


def _remove_superseded(scene: _Scene) -> None:
    """Remove the image that the former container continued on, if packaging made it and nothing uses it any more."""
    image = scene.engine.find_image(scene.container.image_id)
    for reference in image.tags if image else ():
        repository, _colon, tag = reference.rpartition(":")
        if repository == scene.wish.repository and tag.isdigit():
            _remove_unused(scene.engine, reference)


def _remove_unused(engine: Engine, reference: str) -> None:
    image = engine.find_image(reference)
    if image and image.id not in {container["ImageID"] for container in engine.containers()}:
        engine.remove_image(reference)


def _open_newest(stack: ExitStack, versions: tuple[Version, ...]) -> tuple[Archive | None, tuple[str, ...]]:
    """Open the newest version; a damaged one holds nothing worth keeping, and the next package mends it."""
    if not versions:
        return None, ()
    try:
        return stack.enter_context(open_archive(versions[0].path)), ()
    except ArchiveError as error:
        return None, (f"Packaging anew, as the newest version cannot be read. {error}",)


def _await_next_second(info: Mapping[str, Any], versions: tuple[Version, ...]) -> int:
    """Return the engine's clock in Unix seconds, when it is past the newest version."""
    clock = unix_timestamp(info.get("SystemTime")) or int(time.time())
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


def _check_order(plan: Plan, versions: tuple[Version, ...]) -> None:
    if plan.publish and versions and plan.publish.timestamp <= versions[0].timestamp:
        raise HakuError(
            f"The engine's clock went backwards while {plan.publish.environment} was packaged",
            cause=f"the image is from {plan.publish.timestamp}, the newest version from {versions[0].timestamp}",
            remedy="Set the clocks right (chrony, ntpd), then package again",
        )


def _apply(plan: Plan, scene: _Scene, taken: Snapshot) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Publish, and only then prune, oldest first; returns what could not be foretold, and warnings."""
    facts: Mapping[str, Any] = {"layers_written": 0, "layers_cloned": 0, "bytes_written": 0}
    obstacle = taken.obstacle
    if plan.publish:
        with scene.catalogue.saying(f"Cannot write {scene.catalogue.path / str(plan.publish)}"):
            facts, obstacle = _publish(scene, taken, plan.publish)
    for version in reversed(plan.remove):
        scene.catalogue.remove(version)
    return facts, _obstacle(plan, obstacle)


def _publish(scene: _Scene, taken: Snapshot, name: TarballName) -> tuple[Mapping[str, Any], StorageError | None]:
    """Write and publish the tarball, from the engine's storage if that has every layer, else from `docker save`."""
    obstacle = taken.obstacle
    if taken.stored:
        try:
            return _write(scene, taken, taken.stored, name), None
        except StorageError as error:
            obstacle = error
            if scene.engine.find_image(taken.reference) is None:
                _load(scene.engine, taken.stored, taken.identity, taken.reference)
    with scene.catalogue.partial(name) as spool, saved_image(scene.engine, taken.reference, spool) as saved:
        return _write(scene, taken, saved, name), obstacle


def _write(scene: _Scene, taken: Snapshot, source: StoredImage | SavedImage, name: TarballName) -> Mapping[str, Any]:
    config = portable_config(source.config, taken.identity.configuration)
    with scene.catalogue.partial(name) as file:
        written = write_tarball(
            file, config, taken.identity.diff_ids, source, scene.wish.reference, former=scene.former
        )
        scene.catalogue.publish(file, name)
    return {
        "layers_from": source.name,
        "layers_written": len(written.written),
        "layers_cloned": len(written.cloned),
        "bytes_written": written.bytes_written,
    }


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
            "rebased": plan.rebase,
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
