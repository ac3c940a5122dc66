# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways to move an environment that are compared, each written as its users would write it."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.lab import images
from tests.lab.engines import Engine
from tests.lab.host import remove

from . import registry, workload
from .bare import identity_of, layers_on, remove_image
from .measure import BenchmarkError, Run, run_command, run_module, run_python, together
from .shared import Shared

HAKU_RIVER = "haku.river"
HAKU_RIVER_ONE_CONTAINER = "haku.river, all in the container"
HAKURIVER = "HakuRiver"
DOCKER = "docker save, load"
COMMUNITY = "community.docker"
REGISTRY = "registry"

_CONTAINER_DIR = "hakuriver-containers"
_ALL = 1000  # versions to keep


class Contender(ABC):
    """One way to package a container and to load what was packaged, on one engine and one shared directory."""

    name: str
    slug: str
    slow = False  # measured less often

    def __init__(self, engine: Engine, shared: Shared) -> None:
        self.engine = engine
        self.shared = shared
        self.container = f"bench-{self.slug}"
        self.reference = f"bench-{self.slug}:latest"
        self._former: str | None = None

    @property
    def directory(self) -> Path:
        """Where its tarballs are."""
        return self.shared.directory(self.slug)

    # Packaging

    def create(self) -> None:
        """Begin anew: the container as after its set-up, nothing packaged."""
        self.remove()
        workload.provide(self.engine)
        self._run("--init", workload.image())

    def change(self) -> None:
        """Change the container as a working day does."""
        workload.change(self.engine, self.container)

    @abstractmethod
    def package(self) -> Run:
        """Package the container; the result has `away_seconds`, in which nobody could work in it."""

    def tidy(self) -> None:
        """Leave the two newest versions."""
        for path in self.tarballs[:-2]:
            path.unlink()

    def remove_container(self) -> None:
        """Remove the container and what was tagged for it; the tarballs stay."""
        self.engine.docker("rm", "--force", "--volumes", self.container)
        remove_image(self.engine, self.reference)

    def remove(self) -> None:
        """Remove the container, its images and its tarballs."""
        self.remove_container()
        remove(self.directory)

    @property
    def tarballs(self) -> list[Path]:
        """The versions, oldest first."""
        return sorted(self.directory.rglob("*.tar"), key=lambda path: path.stat().st_mtime_ns)

    def new_layers_bytes(self) -> int | None:
        """The size of the newest version's layers that the one before it does not have; None if that is not known."""
        return None

    # Loading

    @abstractmethod
    def load(self, newest: bool) -> Run:
        """Load the newest of two versions, or the former one."""

    def again(self) -> Run:
        """Do what its users do when there may be nothing to do."""
        return self.load(newest=True)

    def restore(self) -> None:
        """Have the former version on the engine, and not the newest."""
        there = identity_of(self.engine, self.reference)
        if there and there == self._former:
            return
        if self._former and identity_of(self.engine, self._former):
            self.engine.docker("tag", self._former, self.reference)
            if there:
                remove_image(self.engine, there)
            return
        # It comes to a machine that has no newer version. Of one that comes with nothing to unpack, because another has
        # all its layers, the containerd store would forget the unpacked files together with that other.
        remove_image(self.engine, self.reference)
        self.load(newest=False)
        self._former = identity_of(self.engine, self.reference)

    def _run(self, *options: str) -> None:
        self.engine.docker(
            "run", "--detach", "--network", "none", "--name", self.container, *options, "sleep", "infinity"
        )

    def _docker(self, *arguments: str | Path) -> Run:
        return run_command("docker", "--host", self.engine.url, *arguments)

    def _commit(self) -> Run:
        """Commit the container, which Docker pauses meanwhile."""
        return self._docker("commit", self.container, self.reference)


class HakuRiverCollection(Contender):
    """This collection."""

    name = HAKU_RIVER
    slug = "ours"

    def __init__(self, engine: Engine, shared: Shared, slug: str = "", size: int = 1) -> None:
        """`size` says which environment it is, `slug` tells it from others on the same engine."""
        self.slug = slug or self.slug
        super().__init__(engine, shared)
        self.reference = f"hakuriver/{self.container}:base"
        self._size = size

    @property
    def options(self) -> dict[str, str]:
        """Options that its modules have in common."""
        return {"name": self.container, "shared_dir": str(self.directory), "docker_host": self.engine.url}

    def create(self) -> None:
        """Label the container, so that it is a managed one."""
        self.remove()
        image = workload.provide(self.engine, self._size)
        self._run(*self._labels, "--init", image)
        (self.directory / _CONTAINER_DIR).mkdir()

    def package(self) -> Run:
        """`haku_tar`, which says itself how long the environment was away. Nobody prunes while the time is taken."""
        return run_module("haku.river.haku_tar", **self.options, keep=_ALL)

    def tidy(self) -> None:
        """Leave the two newest versions."""
        for tarball in self.tarballs[:-2]:
            run_module("haku.river.haku_tar", **self.options, state="absent", version=_version(tarball))

    def load(self, newest: bool) -> Run:
        """`haku_sync`."""
        pinned: dict[str, Any] = {} if newest else {"version": _version(self.tarballs[-2])}
        return run_module("haku.river.haku_sync", **self.options, **pinned)

    def remove_container(self) -> None:
        """Remove its images too: `haku_tar` leaves the container on one with the newest version's layers."""
        super().remove_container()
        repository = self.reference.rpartition(":")[0]
        names = ("--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={repository}")
        for image in self.engine.docker("image", "ls", *names).split():
            remove_image(self.engine, image)

    def restore(self) -> None:
        """See to it that no image has the newest version's layers; synchronising would be too easy."""
        super().restore()
        new = {f"sha256:{Path(name).name}" for name in self._new_layers()}
        if new & layers_on(self.engine):
            raise BenchmarkError(f"{self.engine.name} has the layers already that {self.name} is to synchronise")

    def new_layers_bytes(self) -> int | None:
        """Read it in the tarballs' indices."""
        return sum(self._new_layers().values())

    def _new_layers(self) -> dict[str, int]:
        former, newest = ({}, *map(workload.layers, self.tarballs))[-2:]
        return {name: size for name, size in newest.items() if name not in former}

    @property
    def _labels(self) -> tuple[str, ...]:
        return ("--label", "haku.river.managed=true", "--label", f"haku.river.env={self.container}")


class HakuRiverCollectionOneContainer(HakuRiverCollection):
    """This collection, where the first package finds all pip packages in the container itself, as HakuRiver does."""

    name = HAKU_RIVER_ONE_CONTAINER
    slug = "ours-flat"
    slow = True

    def create(self) -> None:
        """Put the packages into a container of the base."""
        self.remove()
        images.provide(workload.BASE, self.engine)
        self._run(*self._labels, "--init", workload.BASE.name)
        self.engine.docker("cp", "-", f"{self.container}:/", stdin=workload.pip_layer())
        (self.directory / _CONTAINER_DIR).mkdir()


class HakuRiverServer(Contender):
    """HakuRiver: its container stands on the public image for ever, so each commit is one flat layer on that."""

    name = HAKURIVER
    slug = "hakuriver"
    slow = True

    def __init__(self, engine: Engine, shared: Shared) -> None:
        super().__init__(engine, shared)
        self.reference = f"hakuriver/{self.container}:base"

    def create(self) -> None:
        """Put the packages into a container of the base; it has no init, so that stopping it takes its time."""
        self.remove()
        images.provide(workload.BASE, self.engine)
        self._run(workload.BASE.name)
        self.engine.docker("cp", "-", f"{self.container}:/", stdin=workload.pip_layer())

    def package(self) -> Run:
        """Stop, commit, save, remove the image, start."""
        return self._procedure("package", self.container, self.directory)

    def load(self, newest: bool) -> Run:
        """Load the whole tarball."""
        return self._procedure("load", self.tarballs[-1 if newest else -2])

    def again(self) -> Run:
        """Compare the times before each task."""
        return self._procedure("check", self.container, self.directory)

    def _procedure(self, action: str, *arguments: str | Path) -> Run:
        return run_python("benchmarks.hakuriver", action, self.engine.url, *map(str, arguments))


class DockerCommands(Contender):
    """Docker's own command line. It loads the very tarballs that haku.river has packaged."""

    name = DOCKER
    slug = "docker"

    def __init__(self, engine: Engine, shared: Shared, packaged: Contender) -> None:
        super().__init__(engine, shared)
        self.packaged = packaged

    def package(self) -> Run:
        """`docker commit && docker save`."""
        before = identity_of(self.engine, self.reference)
        commit = self._commit()
        save = self._save(self.directory / f"{self.container}-{time.time_ns()}.tar")
        if before:  # the command line's users prune from time to time
            remove_image(self.engine, before)
        return together(commit, save, away_seconds=commit.seconds)

    def load(self, newest: bool) -> Run:
        """`docker load`."""
        return self._docker("load", "--input", self.packaged.tarballs[-1 if newest else -2])

    def restore(self) -> None:
        """The tarball and the tag are haku.river's, and so is the former version."""
        self.packaged.restore()

    def _save(self, tarball: Path) -> Run:
        return self._docker("save", "--output", tarball, self.reference)


class CommunityModules(DockerCommands):
    """The modules of community.docker; there is none that commits."""

    name = COMMUNITY
    slug = "community"
    slow = True

    def load(self, newest: bool) -> Run:
        """`docker_image_load`."""
        path = str(self.packaged.tarballs[-1 if newest else -2])
        return run_module("community.docker.docker_image_load", path=path, docker_host=self.engine.url)

    def _save(self, tarball: Path) -> Run:
        options = {"names": [self.reference], "path": str(tarball), "docker_host": self.engine.url}
        return run_module("community.docker.docker_image_export", **options)


class RegistryCommands(Contender):
    """A registry on the engine's loopback address, with its storage on this machine's disk."""

    name = REGISTRY
    slug = "registry"
    slow = True

    def __init__(self, engine: Engine, shared: Shared) -> None:
        super().__init__(engine, shared)
        self._numbers = itertools.count()
        self._repository = f"{registry.ADDRESS}/bench-{time.time_ns()}"
        self._versions: list[str] = []

    def create(self) -> None:
        """Begin with a repository of a new name, into which nothing was pushed."""
        super().create()
        self._repository = f"{registry.ADDRESS}/bench-{time.time_ns()}"
        self._versions = []

    def package(self) -> Run:
        """`docker commit && docker push`."""
        self.reference = f"{self._repository}:v{next(self._numbers)}"
        self._versions.append(self.reference)
        commit = self._commit()
        return together(commit, self._docker("push", "--quiet", self.reference), away_seconds=commit.seconds)

    def load(self, newest: bool) -> Run:
        """`docker pull`."""
        self.reference = self._versions[-1 if newest else -2]
        return self._docker("pull", "--quiet", self.reference)

    def restore(self) -> None:
        """Each version has a name of its own here."""
        remove_image(self.engine, self._versions[-1])
        if not identity_of(self.engine, self._versions[-2]):
            self.load(newest=False)


def _version(tarball: Path) -> int:
    return int(tarball.stem.rpartition("-")[2])
