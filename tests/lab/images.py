# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base images without a registry: made once from Debian's packages, kept as tarballs, loaded into any engine."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from .host import HOME, atomic, ca_bundle, debootstrap, exclusive, run

_RECIPE_LABEL = "haku.river.lab.recipe"
_CREATED = "2024-01-01T00:00:00Z"  # long past, so that whatever a test commits on top is newer


class Docker(Protocol):
    """What runs Docker command lines: an engine of the lab, or a machine with its own."""

    def docker(self, *arguments: str | Path, stdin: bytes | Path | None = None) -> str:
        """Run the Docker command line and return what it printed."""


@dataclass(frozen=True)
class Image:
    """A base image with one layer. `make` writes that layer's tar file; `recipe` changes whenever its content would."""

    name: str
    command: tuple[str, ...]
    recipe: str
    make: Callable[[Path], None]

    @property
    def tarball(self) -> Path:
        """The image as `docker load` takes it; made on first use, and byte for byte the same for every engine."""
        name = f"{self.name.replace('/', '-').replace(':', '-')}-{self._digest}"
        path = HOME / "images" / f"{name}.tar"
        with exclusive(name):
            if not path.exists():
                with atomic(path) as partial, TemporaryDirectory(dir=path.parent) as scratch:
                    layer = Path(scratch, "layer.tar")
                    self.make(layer)
                    self._pack(layer, partial)
        return path

    def is_on(self, engine: Docker) -> bool:
        """Tell whether the engine has this image, of this recipe."""
        labelled = ("--filter", f"reference={self.name}", "--filter", f"label={_RECIPE_LABEL}={self._digest}")
        return bool(engine.docker("image", "ls", "--quiet", *labelled))

    @property
    def _digest(self) -> str:
        return hashlib.sha256(repr((self.recipe, self.command)).encode()).hexdigest()[:8]

    def _pack(self, layer: Path, destination: Path) -> None:
        """Write the archive of the Docker image specification v1.2, which every engine loads."""
        with layer.open("rb") as stream:
            diff_id = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        config = {
            "architecture": run("dpkg", "--print-architecture").strip(),
            "os": "linux",
            "created": _CREATED,
            "config": {"Cmd": self.command, "Labels": {_RECIPE_LABEL: self._digest}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": _CREATED, "created_by": "haku.river lab"}],
        }
        manifest = [{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]
        with tarfile.open(destination, "w") as archive:
            archive.add(layer, "layer.tar")
            for name, content in {"config.json": config, "manifest.json": manifest}.items():
                text = json.dumps(content).encode()
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))


def provide(image: Image, engine: Docker) -> str:
    """Make sure that an engine has the image, and return its name."""
    if not image.is_on(engine):
        engine.docker("load", stdin=image.tarball)
    return image.name


def debian(name: str, packages: tuple[str, ...], *command: str, suite: str = "bookworm") -> Image:
    """Describe an image of a minimal Debian with these packages."""
    recipe = repr((suite, packages, ca_bundle()))
    return Image(name, command, recipe, lambda layer: debootstrap(suite, packages, layer))


def _busybox(layer: Path) -> None:
    with TemporaryDirectory() as scratch:
        package, root = Path(scratch, "package"), Path(scratch, "root")
        # Unpacked, not installed: the package conflicts with the `busybox` that a host may need to boot.
        debootstrap("bookworm", ("busybox-static",), package, variant="extract")
        busybox = package / "bin/busybox"
        for folder in ("bin", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var/log"):
            (root / folder).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy(busybox, root / "bin")
        for applet in run(busybox, "--list").split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        run(
            "tar",
            "--create",
            "--file",
            layer,
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--sort=name",
            "-C",
            root,
            ".",
        )


BUSYBOX = Image("haku-lab/busybox:mini", ("sh",), "busybox-static 1", _busybox)
"""2 MB: a shell and its tools."""

PYTHON = debian(
    "haku-lab/python:bookworm",
    ("python3", "python3-apt", "python3-pip", "python3-packaging", "ca-certificates"),
    "bash",
)
"""250 MB: Debian with Python, pip and apt, what a module needs to manage a container and install into it."""

SSH = debian("haku-lab/ssh:bookworm", ("openssh-server", "python3", "python3-apt"), "bash")
"""Debian with an SSH server, just as its package leaves it: with host keys, and with passwords allowed."""

MANAGERS = debian(
    "haku-lab/managers:bookworm",
    (
        *("python3", "dnf", "python3-dnf", "pacman-package-manager", "zypper"),
        *("libedit2", "libfido2-1", "libgssapi-krb5-2", "libssl3", "libwrap0"),
    ),
    "bash",
)
"""Package managers that are not Debian's, and the libraries that its SSH server needs; see `ssh_packages`."""

NAMED = {"busybox": BUSYBOX, "python": PYTHON}
"""The base images by the names that the command line takes."""
