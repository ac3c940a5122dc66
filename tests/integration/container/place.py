# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the tests of an environment's container have theirs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import succeed
from tests.lab.engines import Engine

FORMER = ".FORMER"


@dataclass(frozen=True)
class Place:
    """The name of an environment that has no container yet, on one engine that has the image."""

    environment: Environment
    image: str

    @property
    def name(self) -> str:
        """The environment's, and so the container's."""
        return self.environment.name

    @property
    def engine(self) -> Engine:
        """Where the container is to be."""
        return self.environment.engine

    @property
    def options(self) -> dict[str, Any]:
        """What every run of the module takes; the engines have no network but these."""
        return {"name": self.name, "docker_host": self.engine.url, "network": "none"}

    @property
    def labels(self) -> list[str]:
        """Options of `docker run` that make a container a managed one."""
        return ["--label", "haku.river.managed=true", "--label", f"haku.river.env={self.name}"]

    def create(self, **options: Any) -> dict[str, Any]:
        """Have the module create the container."""
        return succeed("haku_container", **{"image": self.image, **self.options, **options})

    def run(self, *arguments: str, labelled: bool = True) -> None:
        """Start a container of that name without the module; `arguments` are options, the image and the command."""
        labels = self.labels if labelled else []
        self.engine.docker("run", "--detach", "--name", self.name, "--network", "none", *labels, *arguments)

    def inspect(self) -> dict[str, Any]:
        """Inspect the container."""
        return self.environment.inspect(self.name)

    @property
    def state(self) -> str:
        """The engine's word for the container's state; `absent` if there is none."""
        return str(self.inspect()["State"]["Status"]) if self.name in self.containers else "absent"

    @property
    def containers(self) -> list[str]:
        """All containers whose names begin with this one."""
        found = self.engine.docker("ps", "--all", "--filter", f"name=^{self.name}", "--format", "{{.Names}}")
        return sorted(found.split())


def free_place(engine: Engine, image: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Yield a free name on an engine, and remove in the end whatever the test has made of it."""
    (tmp_path / "shared/hakuriver-containers").mkdir(parents=True)
    name = f"hc-{zlib.crc32(request.node.name.encode()):08x}"
    place = Place(Environment(engine, name, tmp_path / "shared"), image)
    yield place
    if place.containers:
        engine.docker("rm", "--force", "--volumes", *place.containers)
    # By name: the image itself may be one that a test on another worker uses.
    for reference in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"hc-test/{name}").split():
        if reference.startswith(f"hc-test/{name}:"):  # Podman lists all names of an image that has that one
            engine.docker("image", "rm", reference)
    volumes = engine.docker("volume", "ls", "--quiet", "--filter", f"name=^{name}").split()
    for volume in volumes:
        engine.docker("volume", "rm", "--force", volume)
