# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Engines as they were before: whatever a benchmark made on one goes, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.engines import Engine
from tests.lab.host import LabError

from . import workload

_TRIES = 5


def make_bare(engine: Engine) -> None:
    """Remove the containers that are called `bench-` something and every image that stands on the benchmark's base."""
    containers = engine.docker("ps", "--all", "--quiet", "--filter", "name=^bench-").split()
    if containers:
        engine.docker("rm", "--force", "--volumes", *containers)
    for _try in range(_TRIES):
        ours = [image["Id"] for image in _images(engine) if begins_with_base(image)]
        if not ours:
            return
        for image in ours:
            remove_image(engine, image)
    raise LabError(f"images of the benchmark stay on {engine.name}: {' '.join(ours)}")


def begins_with_base(image: dict[str, Any]) -> bool:
    """Whether an inspected image stands on the benchmark's base; so it is the benchmark's."""
    layers = image["RootFS"].get("Layers") or [None]
    return bool(layers[0] == workload.base_diff_id())


def remove_image(engine: Engine, identity: str) -> None:
    """Remove an image with all its names, if it is there; one that others stand on stays as long as they do."""
    try:
        engine.docker("image", "rm", "--force", identity)
    except LabError as error:
        if not any(reason in str(error) for reason in ("No such image", "dependent child images")):
            raise


def identity_of(engine: Engine, reference: str) -> str | None:
    """The ID of an image; None if it is not there."""
    try:
        return engine.docker("image", "inspect", "--format", "{{.Id}}", reference).strip()
    except LabError as error:
        if "No such image" not in str(error):
            raise
        return None


def layers_on(engine: Engine) -> set[str]:
    """The diff IDs of all layers of all images on an engine."""
    return {layer for image in _images(engine) for layer in image["RootFS"].get("Layers") or ()}


def _images(engine: Engine) -> list[dict[str, Any]]:
    """Every image, inspected; those that go meanwhile, because tests use the engine too, are left out."""
    listed = set(engine.docker("image", "ls", "--quiet", "--no-trunc").split())
    found = []
    for identity in listed:
        try:
            found += json.loads(engine.docker("image", "inspect", identity))
        except LabError:
            continue
    return found
