# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image of a version on which an env container continues; it stays on the Host as long as a container needs it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible_collections.haku.river.plugins.module_utils.engine import Engine

_TAG = re.compile(r"host-([0-9]+)")


def host_reference(repository: str, timestamp: int) -> str:
    """What that image is called. `repository` is the image's name without a tag."""
    return f"{repository}:host-{timestamp}"


def host_timestamps(engine: Engine, repository: str) -> tuple[int, ...]:
    """The seconds that have such an image of an environment; another of the same second would take its only name."""
    found = (_TAG.fullmatch(reference.rpartition(":")[2]) for reference in engine.tags_of(repository))
    return tuple(int(match[1]) for match in found if match)


def remove_unused_images(engine: Engine, repository: str) -> None:
    """Remove all such images of an environment that no container needs."""
    _remove_unused(engine, engine.tags_of(repository))


def remove_unused_image(engine: Engine, image_id: str) -> None:
    """Remove an image if it is such a one and no container needs it."""
    image = engine.find_image(image_id)
    if image:
        _remove_unused(engine, image.tags)


def _remove_unused(engine: Engine, references: Iterable[str]) -> None:
    ours = [reference for reference in references if _TAG.fullmatch(reference.rpartition(":")[2])]
    used = {container["ImageID"] for container in engine.containers()} if ours else set()
    for reference in ours:
        image = engine.find_image(reference)
        if image and image.id not in used:
            engine.remove_image(reference)
