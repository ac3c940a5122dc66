# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packaging an environment: its container becomes the newest tarball, and old tarballs go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, open_archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.container import Container, check_may_touch, find_container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, HakuError
from ansible_collections.haku.river.plugins.module_utils.host_image import host_timestamps
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.package_plan import (
    Packaging,
    Plan,
    plan_removal,
)
from ansible_collections.haku.river.plugins.module_utils.package_run import Scene, foresee, perform
from ansible_collections.haku.river.plugins.module_utils.rebase import recover
from ansible_collections.haku.river.plugins.module_utils.snapshot import (
    remove_stale_snapshots,
)
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time, unix_timestamp

# A version as new as the engine's clock is one of this second: the next second is near. A newer one is not.
_PATIENCE_SECONDS = 2


def package(engine: Engine, catalogue: Catalogue, wish: Packaging, check_mode: bool) -> Outcome:
    """Bring the catalogue's newest version to what the env container is now."""
    began = time.monotonic()
    catalogue.check_writable()
    with _lock(catalogue, wish, check_mode), _indexed(catalogue, check_mode) as index_warnings:
        if not check_mode:
            catalogue.remove_stale_partials(wish.environment)
            recover(engine, wish.environment)
            remove_stale_snapshots(engine, wish.repository)
        container = _container(engine, wish)
        versions = catalogue.versions(wish.environment)
        with ExitStack() as stack:
            former, warnings = _open_newest(stack, versions)
            info = engine.info()
            now = _await_next_second(info, versions, host_timestamps(engine, wish.repository))
            scene = Scene(engine, catalogue, wish, container, versions, former, info, now)
            done = foresee(scene) if check_mode else perform(scene)
    seconds = None if check_mode else round(time.monotonic() - began, 3)
    warnings = (*engine.warnings, *warnings, *done.warnings, *index_warnings)
    return _outcome(done.plan, catalogue, versions, {**done.facts, "seconds": seconds}, check_mode, warnings)


def remove(
    catalogue: Catalogue, environment: str, timestamp: int | None, lock_timeout: int, check_mode: bool
) -> Outcome:
    """Remove one version of an environment, or all of them."""
    catalogue.check_writable()
    lock = nullcontext() if check_mode else catalogue.lock(environment, lock_timeout)
    with lock, _indexed(catalogue, check_mode) as index_warnings:
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
        warnings=tuple(index_warnings),
    )


@contextmanager
def _indexed(catalogue: Catalogue, check_mode: bool) -> Iterator[list[str]]:
    """Have the index say what there is when the block has ended, however it ends; the list then has the warnings."""
    warnings: list[str] = []
    try:
        yield warnings
    finally:
        if not check_mode:
            warnings.extend(catalogue.refreshed_index())


def _lock(catalogue: Catalogue, wish: Packaging, check_mode: bool) -> AbstractContextManager[object]:
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


def _open_newest(stack: ExitStack, versions: tuple[Version, ...]) -> tuple[Archive | None, tuple[str, ...]]:
    """Open the newest version; a damaged one holds nothing worth keeping, and the next package mends it."""
    if not versions:
        return None, ()
    try:
        return stack.enter_context(open_archive(versions[0].path)), ()
    except ArchiveError as error:
        return None, (f"Packaging anew, as the newest version cannot be read. {error}",)


def _await_next_second(info: Mapping[str, Any], versions: tuple[Version, ...], host_images: Sequence[int]) -> int:
    """Return the engine's clock in Unix seconds, when it is past the newest version and its images on the Host."""
    clock = unix_timestamp(info.get("SystemTime")) or int(time.time())
    newest = versions[0].timestamp if versions else 0
    if newest >= clock + _PATIENCE_SECONDS:
        raise HakuError(
            f"The newest version of {versions[0].environment} is from the future",
            where=str(versions[0].path),
            cause=f"it is {newest} ({iso_time(newest)}), and the engine's clock says {iso_time(clock)}",
            remedy="Set the clocks right (chrony, ntpd), or remove that version with state: absent",
        )
    near = (second for second in (newest, *host_images) if second < clock + _PATIENCE_SECONDS)
    ahead = max(max(near) + 1 - clock, 0)
    time.sleep(ahead)
    return clock + ahead


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
            "size_bytes": _size_bytes(catalogue, newest) if newest else None,
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


def _size_bytes(catalogue: Catalogue, version: Version) -> int:
    with catalogue.saying(f"Cannot read {version.path}"):
        return version.size_bytes
