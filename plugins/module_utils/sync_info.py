# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which version of which environment this machine has, and whether that is what a synchronisation would bring."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError, Vanished
from ansible_collections.haku.river.plugins.module_utils.image import Image, ListedImage
from ansible_collections.haku.river.plugins.module_utils.names import (
    check_image_names,
    environment_of,
    image_reference,
)
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.published import Source, V, although_pruned, versions_of
from ansible_collections.haku.river.plugins.module_utils.stock import Stock, by_version, is_version_tag, tags_in
from ansible_collections.haku.river.plugins.module_utils.storage import image_store
from ansible_collections.haku.river.plugins.module_utils.sync_view import Synchronising
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time


def described_machine(
    engine: Engine, source: Source[V] | None, prefix: str, tag: str, environment: str | None
) -> Outcome:
    """Describe the machine's environments, or the one that is asked for, its disk and its engine.

    The images are called `<prefix>/<env>:<tag>`. Without a source, nothing is said of what is the newest. See the
    module's `RETURN`.
    """
    check_image_names(prefix, tag)
    environments, complaints = although_pruned(lambda: _environments(engine, source, prefix, tag, environment))
    info = engine.description
    facts = {
        "environments": environments,
        "directory": {"location": source.location, "id": source.identity} if source else None,
        "disk": _disk(engine.url, info),
        "engine": {"version": str(info.get("ServerVersion")), "storage": image_store(info)},
    }
    warnings = (*engine.warnings, *(source.warnings if source else ()), *complaints)
    return Outcome(changed=False, facts=facts, warnings=warnings)


def _environments(
    engine: Engine, source: Source[V] | None, prefix: str, tag: str, environment: str | None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    published = versions_of(source, environment) if source else {}
    listed = engine.images()
    names = published.keys() | _names(listed, prefix, tag)
    described = {}
    complaints: list[str] = []
    for name in sorted(names if environment is None else names & {environment}):
        wish = Synchronising(name, image_reference(prefix, name, tag))
        current = engine.find_image(wish.reference)
        versions = published.get(name, ())
        newest = versions[0].timestamp if versions else None
        stock = Stock(current, by_version(tags_in(wish.repository, listed)), published=newest)
        version = _version(current, source, versions, complaints) if current and source else _time(current)
        described[name] = {
            "version": version,
            "image": wish.reference,
            "image_id": current.id if current else None,
            "created": iso_time(current.timestamp) if current and current.timestamp is not None else None,
            "size": current.size_bytes if current else None,
            "former_versions": sorted(stock.kept(besides=current.id if current else None), reverse=True),
            "newest_version": newest,
            "published_versions": None if source is None else [version.timestamp for version in versions],
            # A machine whose environment has no tarball any more keeps what it has.
            "stale": None if source is None else newest is not None and newest != version,
        }
    return described, complaints


def _names(listed: Iterable[ListedImage], prefix: str, tag: str) -> set[str]:
    """The environments of which there is an image that a synchronisation made."""
    references = (reference for image in listed for reference in image.tags)
    ours = (it for it in references if (end := it.rpartition(":")[2]) == tag or is_version_tag(end))
    return {name for reference in ours if (name := environment_of(prefix, reference))}


def _version(current: Image, source: Source[V], versions: Sequence[V], complaints: list[str]) -> int | None:
    """Which version an image is: by its time or else, as HakuRiver names tarballs by a time of its own, by what it is.

    What is wrong with a tarball that had to be looked into is added to `complaints`.
    """
    timestamps = [version.timestamp for version in versions]
    if current.timestamp in timestamps[:1]:
        return current.timestamp
    # One that is a version by its time may still be the same as the newest.
    for version in versions[:1] if current.timestamp in timestamps else versions:
        try:
            with source.open(version) as archive:
                if current.is_one_of(archive.image.identity):
                    return version.timestamp
        except Vanished:
            raise
        except HakuError as error:
            complaints.append(str(error))
    return current.timestamp


def _time(current: Image | None) -> int | None:
    return current.timestamp if current else None


def _disk(url: str, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The file system of the engine's data root; None where that path is another machine's, or can't be read."""
    root = info.get("DockerRootDir")
    if not root or not url.startswith("unix://") or info.get("Name") != platform.node():
        return None
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return {"path": root, "total": usage.total, "free": usage.free}
