# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An environment under test: its container on one engine, and a shared directory for its tarballs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.engines import Engine

_DANGLING_SECONDS = 30


@dataclass(frozen=True)
class Environment:
    """An env container called `name` on `engine`; `shared` is the shared directory."""

    engine: Engine
    name: str
    shared: Path

    @property
    def options(self) -> dict[str, Any]:
        """Options that every module with this environment takes."""
        return {"name": self.name, "shared_dir": str(self.shared), "docker_host": self.engine.url}

    @property
    def tarballs(self) -> Path:
        """The directory of the tarballs."""
        return self.shared / "hakuriver-containers"

    @property
    def versions(self) -> list[int]:
        """The published versions, newest first, by their file names alone."""
        names = (path.name for path in self.tarballs.glob(f"{self.name}-*.tar"))
        return sorted((int(name[len(self.name) + 1 : -len(".tar")]) for name in names), reverse=True)

    @property
    def image(self) -> str:
        """The tag that synchronising moves."""
        return f"hakuriver/{self.name}:base"

    def image_of(self, version: int) -> str:
        """The tag of the image that the container continues on after that version was packaged."""
        return f"hakuriver/{self.name}:host-{version}"

    def on(self, engine: Engine) -> Environment:
        """The same environment as another engine sees it."""
        return Environment(engine, self.name, self.shared)

    def tarball(self, version: int) -> Path:
        """The path of a version's tarball."""
        return self.tarballs / f"{self.name}-{version}.tar"

    def create(self, base_image: str, *options: str) -> None:
        """Start the env container, as haku_container would; it is labelled, unless `options` say otherwise."""
        labels = ["--label", "haku.river.managed=true", "--label", f"haku.river.env={self.name}"]
        arguments = ["--detach", "--init", "--network", "none", "--name", self.name, *(options or labels)]
        self.engine.docker("run", *arguments, base_image, "sleep", "infinity")

    def leave(self) -> None:
        """Make the engine one that has never packaged the environment."""
        self.engine.docker("rm", "--force", self.name)
        for reference in self.references:
            self.engine.docker("image", "rm", "--force", reference)

    def execute(self, command: str) -> str:
        """Run a shell command in the container and return what it prints."""
        return self.engine.docker("exec", self.name, "sh", "-c", command)

    def run_image(self, command: str) -> str:
        """Run a shell command in a fresh container of the synchronised image."""
        return self.engine.docker("run", "--rm", "--network", "none", self.image, "sh", "-c", command)

    def inspect(self, what: str) -> dict[str, Any]:
        """Inspect a container or an image."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", what))[0]
        return found

    @property
    def running(self) -> bool:
        """Whether the container runs."""
        return bool(self.inspect(self.name)["State"]["Running"])

    @property
    def references(self) -> list[str]:
        """Every image reference on the engine that bears the environment's name."""
        listed = self._images("--filter", f"reference=hakuriver/{self.name}")
        # Podman lists all names of an image that has that one.
        return sorted(name for name in listed if name.startswith(f"hakuriver/{self.name}:"))

    @property
    def dangling(self) -> list[str]:
        """The images on the engine that have no name, and keep none: another test's are gone in a moment."""
        deadline = time.monotonic() + _DANGLING_SECONDS
        while (found := self._images("--filter", "dangling=true")) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _images(self, *which: str) -> list[str]:
        return self.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *which).split()

    @property
    def leftovers(self) -> list[str]:
        """Partial files in the directory of the tarballs."""
        return [path.name for path in self.tarballs.iterdir() if path.name.endswith(".part")]
