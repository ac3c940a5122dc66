# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a package: the snapshot, the container continued on it, and the tarball."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.archive import Archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.compaction import Compacted, Compaction, plan_compaction
from ansible_collections.haku.river.plugins.module_utils.container import Container
from ansible_collections.haku.river.plugins.module_utils.container_steps import on_failure
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.host_image import host_reference, remove_unused_images
from ansible_collections.haku.river.plugins.module_utils.image import Identity, run_configuration
from ansible_collections.haku.river.plugins.module_utils.names import TarballName
from ansible_collections.haku.river.plugins.module_utils.own_commit import OwnCommit
from ansible_collections.haku.river.plugins.module_utils.package_plan import (
    Packaging,
    Plan,
    plan_package,
)
from ansible_collections.haku.river.plugins.module_utils.rebase import Replacement
from ansible_collections.haku.river.plugins.module_utils.running import is_steady
from ansible_collections.haku.river.plugins.module_utils.saved import SavedImage, saved_image
from ansible_collections.haku.river.plugins.module_utils.snapshot import (
    Absence,
    Snapshot,
    away,
    take,
    temporary_reference,
)
from ansible_collections.haku.river.plugins.module_utils.storage import StorageError, StoredImage, stored_image
from ansible_collections.haku.river.plugins.module_utils.tarball import (
    LAYER_TYPE,
    Blob,
    portable_config,
    stream_image,
    write_tarball,
)


@dataclass(frozen=True)
class Scene:
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
        """How to commit the container without the engine, None if only the engine can do it."""
        return OwnCommit.prepare(self.engine, self.info, self.container) if self.is_replaceable else None

    @property
    def is_alive(self) -> bool:
        """Whether the container is to be stopped for the commit."""
        return self.wish.stop and self.container.state in ("running", "restarting")

    @property
    def is_replaceable(self) -> bool:
        """Whether the container is at rest when it is committed, so that another can take its place."""
        return self.is_alive or self.container.state in ("created", "exited")

    @functools.cached_property
    def dependents(self) -> tuple[str, ...]:
        """The containers that share a namespace with this one, which know it by its ID."""
        return self.engine.sharers(self.container.id)


@dataclass(frozen=True)
class Done:
    """The plan that was carried out, or would be, and what is known of it."""

    plan: Plan
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def foresee(scene: Scene) -> Done:
    """Look at the container as it runs, neither stopped nor paused, to see what a package would hold now."""
    reference = temporary_reference(scene.wish.repository)
    own_commit = scene.own_commit()
    with scene.engine.temporary_image(reference), tempfile.TemporaryFile() as file:
        spool = file if own_commit and own_commit.is_cheaper else None
        taken = _take(scene, reference, own_commit, spool, pause=False)
        plan = _decide(scene, taken)
    compacted = plan.rebase and _compaction(scene, own_commit) is not None
    unknown = None if plan.publish else 0
    facts = {"layers_from": None, "layers_written": unknown, "layers_cloned": unknown, "bytes_written": unknown}
    warnings = (*_obstacle(plan, taken.obstacle), *_why_not_rebased(scene, plan))
    return Done(plan, {**facts, "compacted": compacted}, warnings)


def perform(scene: Scene) -> Done:
    """Take the snapshot, continue the container on it, and only when that runs again write and publish."""
    engine, wish = scene.engine, scene.wish
    reference = temporary_reference(wish.repository)
    replacement = Replacement(engine, wish.environment, runs=scene.is_alive)
    own_commit = scene.own_commit()
    with ExitStack() as held:
        held.enter_context(engine.temporary_image(reference))
        compacted = _compact(scene, own_commit, held)
        layer_file = _spool(scene, held) if own_commit and own_commit.is_cheaper else None
        top_file = _spool(scene, held) if compacted else None
        with _absence(scene) as absence, on_failure(replacement.undo):
            pause = scene.container.state == "running" and not scene.is_alive
            taken = _take(scene, reference, own_commit, layer_file, pause)
            plan = _decide(scene, taken)
            if plan.publish and compacted and top_file:
                taken = compacted.under(taken, top_file)
            if plan.rebase and taken.stored:
                version = host_reference(wish.repository, taken.timestamp)
                held.enter_context(on_failure(lambda: remove_unused_images(engine, wish.repository)))
                held.enter_context(on_failure(replacement.undo))
                _load(engine, taken.stored, taken.identity, version)
                replacement.begin(version)
        facts, warnings = _apply(plan, scene, taken)
        if replacement.begun:
            _check_continued(scene)
    if replacement.begun:
        replacement.finish()
        remove_unused_images(engine, wish.repository)
    facts = {**facts, "compacted": bool(compacted and plan.publish), "away_seconds": round(absence.seconds, 3)}
    return Done(plan, facts, (*warnings, *_why_not_rebased(scene, plan)))


def _check_continued(scene: Scene) -> None:
    """Raise `HakuError` if the container ran before and does not run on the packaged image."""
    answer = scene.engine.find_container(scene.wish.environment)
    if scene.container.state != "running" or (answer and is_steady(answer)):
        return
    cause = "somebody removed it"
    if answer:
        ended = f"it ended with exit code {answer['State']['ExitCode']}"
        cause = "it ended, and the engine started it again" if answer.get("RestartCount") else ended
    raise HakuError(
        f"{scene.wish.environment} was packaged, but its container does not keep running on that image",
        where=scene.engine.url,
        cause=cause,
        remedy="The container from before is back. Look at what it runs, or package it with rebase: false",
    )


def _why_not_rebased(scene: Scene, plan: Plan) -> tuple[str, ...]:
    if not (plan.publish and scene.wish.rebase and scene.dependents):
        return ()
    names = ", ".join(scene.dependents)
    return (f"The container continues as it is and not on the package, or these would lose what they share: {names}",)


def _compaction(scene: Scene, own_commit: OwnCommit | None) -> Compaction | None:
    """What is to be compacted before the container gets one layer more, if it does."""
    if not (scene.wish.rebase and scene.is_replaceable) or scene.dependents:
        return None
    try:
        compaction = plan_compaction(stored_image(scene.info, scene.container.image_id), scene.wish.max_layers)
        if compaction and own_commit:
            return None if own_commit.is_unchanged() else compaction
    except (StorageError, ArchiveError):
        # What cannot be read cannot be compacted; that it has to come from `docker save` is said where it does.
        return None
    return compaction if compaction and scene.engine.changed_paths(scene.container.id) else None


def _compact(scene: Scene, own_commit: OwnCommit | None, held: ExitStack) -> Compacted | None:
    """Compact, while the container runs, what it stands on, and have the engine hold that until the end."""
    compaction = _compaction(scene, own_commit)
    if compaction is None:
        return None
    with scene.catalogue.saying(f"Cannot write into {scene.catalogue.path}"):
        compacted = compaction.written(_spool(scene, held))
    stored = compacted.stored()
    reference = temporary_reference(scene.wish.repository)
    held.enter_context(scene.engine.temporary_image(reference))
    run = run_configuration(json.loads(stored.config).get("config"))
    _load(scene.engine, stored, Identity(stored.diff_ids, run), reference)
    return compacted


def _spool(scene: Scene, held: ExitStack) -> BinaryIO:
    return held.enter_context(scene.catalogue.partial(TarballName(scene.wish.environment, scene.now)))


def _take(scene: Scene, reference: str, own_commit: OwnCommit | None, file: BinaryIO | None, pause: bool) -> Snapshot:
    """Commit the container by ourselves where that is cheaper, or if there is nothing to commit, else by the engine."""
    if own_commit:
        with suppress(StorageError), scene.catalogue.saying(f"Cannot write into {scene.catalogue.path}"):
            if file or own_commit.is_unchanged():
                return own_commit.take(reference, file)
    return take(scene.engine, scene.container, reference, pause)


def _absence(scene: Scene) -> AbstractContextManager[Absence]:
    if not scene.is_alive:
        return nullcontext(Absence())
    return away(scene.engine, scene.container, scene.wish.environment, scene.wish.stop_timeout_seconds)


def _decide(scene: Scene, taken: Snapshot) -> Plan:
    newest = scene.former.image.identity if scene.former else None
    can_rebase = taken.stored is not None and scene.is_replaceable and not scene.dependents
    return plan_package(scene.wish, taken, newest, scene.versions, scene.now, can_rebase)


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
    if loaded is None or not loaded.is_one_of(identity):
        raise EngineError(
            f"The engine cannot continue the container on the packaged image {reference}",
            where=engine.url,
            cause=f"it has {loaded.identity if loaded else 'nothing'}, not {identity}",
            remedy="Set rebase: false, with which each package has all changes since the container was created",
        )


def _apply(plan: Plan, scene: Scene, taken: Snapshot) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Publish, and only then prune, oldest first; returns what could not be foretold, and warnings."""
    facts: Mapping[str, Any] = {"layers_written": 0, "layers_cloned": 0, "bytes_written": 0}
    obstacle = taken.obstacle
    if plan.publish:
        with scene.catalogue.saying(f"Cannot write {scene.catalogue.path / str(plan.publish)}"):
            facts, obstacle = _publish(scene, taken, plan.publish)
    for version in reversed(plan.remove):
        scene.catalogue.remove(version)
    return facts, _obstacle(plan, obstacle)


def _publish(scene: Scene, taken: Snapshot, name: TarballName) -> tuple[Mapping[str, Any], StorageError | None]:
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


def _write(scene: Scene, taken: Snapshot, source: StoredImage | SavedImage, name: TarballName) -> Mapping[str, Any]:
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
