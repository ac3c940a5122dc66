# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The env containers of this machine, and whether each is as it was packaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_ENVIRONMENT,
    LABEL_IMAGE,
    LABEL_MANAGED,
    is_env_container,
)
from ansible_collections.haku.river.plugins.module_utils.podman import MADE_IN_CONTAINERS
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time

# What the engine makes in a container: Docker for its init, Podman for that and for every container.
_ENGINES_OWN = ("/sbin/docker-init", *MADE_IN_CONTAINERS)


def described_containers(
    engine: Engine, catalogue: Catalogue | None, name: str | None, sizes: bool
) -> list[dict[str, Any]]:
    """Describe the env containers, or the one of that name, sorted by name; see the module's `RETURN`."""
    newest = {env: versions[0].timestamp for env, versions in catalogue.environments().items()} if catalogue else {}
    wanted = {LABEL_MANAGED: "true", **({LABEL_ENVIRONMENT: name} if name else {})}
    described = []
    for entry in engine.containers(wanted, sizes):
        environment = entry["Labels"].get(LABEL_ENVIRONMENT, "")
        if f"/{environment}" in entry["Names"] and is_env_container(environment, entry["Labels"]):
            changed = _changed(engine, entry, newest.get(environment)) if catalogue else None
            described.append(_described(environment, entry, sizes, changed))
    return sorted(described, key=lambda container: str(container["name"]))


def changed_since_packaged(
    newest: int | None, created: int, image_timestamp: int | None, has_changes: Callable[[], bool]
) -> bool | None:
    """Whether a container holds what its environment's newest version does not; None if that cannot be told.

    `newest` is that version, `created` the container's time and `image_timestamp` that of its image, in Unix seconds.
    `has_changes` finds out, at some cost, whether anything in it differs from its image; when that came about, the
    engine does not say.
    """
    if newest is None:
        return True
    if image_timestamp == newest:
        return has_changes()
    if created > newest:
        return True
    return None if has_changes() else False


def own_changes(paths: Iterable[str], mount_points: Iterable[str]) -> list[str]:
    """Leave out what the engine itself changed: the places of mounts and of its own, and the directories above."""
    places = [*map(PurePosixPath, _ENGINES_OWN), *map(PurePosixPath, mount_points)]
    by_engine = {str(path) for place in places for path in (place, *place.parents)}
    return [path for path in paths if path not in by_engine]


def _changed(engine: Engine, entry: Mapping[str, Any], newest: int | None) -> bool | None:
    image = engine.find_image(entry["ImageID"])
    mount_points = [mount["Destination"] for mount in entry.get("Mounts") or ()]
    return changed_since_packaged(
        newest,
        entry["Created"],
        image.timestamp if image else None,
        lambda: bool(own_changes(engine.changed_paths(entry["Id"]), mount_points)),
    )


def _described(name: str, entry: Mapping[str, Any], sizes: bool, changed: bool | None) -> dict[str, Any]:
    return {
        "id": entry["Id"],
        "name": name,
        "image": entry["Labels"].get(LABEL_IMAGE) or entry["Image"],
        "state": entry["State"],
        "status": entry["Status"],
        "created": iso_time(entry["Created"]),
        # The engine leaves out a size of nothing.
        "size_bytes": entry.get("SizeRw") or 0 if sizes else None,
        "changed_since_packaged": changed,
    }
