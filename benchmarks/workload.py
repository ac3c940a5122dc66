# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is packaged and synchronised: a real environment, larger ones made from it, and the change of a working day."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any

from tests.lab import images
from tests.lab.engines import Engine, start_main
from tests.lab.host import HOME, LabError, atomic, exclusive

BASE = images.debian(
    "bench-base:bookworm", ("python3", "python3-pip", "python3-venv", "git", "ca-certificates"), "sleep", "infinity"
)
"""What a public image would be. Not the tests' base image, so that its layer can be taken off an engine."""

PIP_PACKAGES = ("numpy", "pandas", "scikit-learn", "matplotlib")

SIZES = (1, 2, 4)
"""How often an environment has the content of the real one."""

CHANGE_BYTES = 3_000_000
_CHANGE_FILES = 4
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def image(size: int = 1) -> str:
    """The name of the environment's image, `size` times as large as the real one."""
    return f"bench-env:x{size}"


def tarball(size: int = 1) -> Path:
    """The environment's image for `docker load`, made on first use: the base, the pip packages, and copies of both."""
    recipe = hashlib.sha256(repr((BASE.tarball.name, PIP_PACKAGES, "3")).encode()).hexdigest()[:8]
    path = HOME / "images" / f"bench-env-{recipe}-x{size}.tar"
    with exclusive(f"bench-env-{size}"):
        if not path.exists():
            with atomic(path) as partial:
                if size == 1:
                    _install(partial)
                else:
                    _enlarge(tarball(1), partial, size)
    return path


def provide(engine: Engine, size: int = 1) -> str:
    """Make sure that an engine has the environment's image, and return its name."""
    if not engine.docker("image", "ls", "--quiet", image(size)).strip():
        engine.docker("load", "--input", tarball(size))
    return image(size)


def pip_layer() -> Path:
    """The tar stream of the layer that pip made, to be copied into a container."""
    path = tarball().with_suffix(".pip.tar")
    with exclusive("bench-pip"):
        if not path.exists():
            with atomic(path) as partial, tarfile.open(tarball()) as archive, partial.open("wb") as file:
                shutil.copyfileobj(_file(archive, _manifest(archive)["Layers"][1]), file)
    return path


@functools.cache
def base_diff_id() -> str:
    """The layer that every image of the benchmark begins with, and no other image has."""
    with tarfile.open(BASE.tarball) as archive:
        diff_ids: list[str] = _document(archive, _manifest(archive)["Config"])["rootfs"]["diff_ids"]
    return diff_ids[0]


def versions() -> dict[str, str]:
    """The pip packages that the environment has, and their versions."""
    with tarfile.open(pip_layer()) as files:
        folders = [Path(name) for name in files.getnames() if name.endswith(".dist-info")]
    found = dict(folder.stem.split("-", 1) for folder in folders)
    return {name: found[name.replace("-", "_")] for name in PIP_PACKAGES}


def contents(size: int = 1) -> tuple[int, int]:
    """How many bytes the environment's files have, and how many files and directories there are."""
    total = files = 0
    with tarfile.open(tarball(size)) as archive:
        for name in _manifest(archive)["Layers"]:
            with tarfile.open(fileobj=_file(archive, name)) as layer:
                for member in layer:
                    total += member.size
                    files += 1
    return total, files


def layers(image_tarball: Path) -> dict[str, int]:
    """The layers in an image's tarball, by their names in it, and their sizes in bytes."""
    with tarfile.open(image_tarball) as archive:
        return {name: archive.getmember(name).size for name in _manifest(archive)["Layers"]}


def change(engine: Engine, container: str) -> None:
    """Give a container a few new files that nothing compresses and no layer has yet."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(_CHANGE_FILES):
            entry = tarfile.TarInfo(f"work/result-{number}.bin")
            entry.size = CHANGE_BYTES // _CHANGE_FILES
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    engine.docker("cp", "-", f"{container}:/opt", stdin=stream.getvalue())


def _install(destination: Path) -> None:
    """Have pip install into a container of the base, as a user would; only the host's own engine has the network."""
    engine = start_main()
    builder = "bench-build"
    engine.docker("rm", "--force", builder)
    images.provide(BASE, engine)
    pip = ("python3", "-m", "pip", "install", "--no-cache-dir", "--break-system-packages", "--root-user-action=ignore")
    volume, certificates = [], []
    if Path(_CA_BUNDLE).exists():
        volume = [f"--volume={_CA_BUNDLE}:{_CA_BUNDLE}:ro"]
        certificates = [f"--env=PIP_CERT={_CA_BUNDLE}"]  # for this command only; the image does not keep it
    try:
        engine.docker("run", "--detach", "--init", "--name", builder, "--network", "host", *volume, BASE.name)
        engine.docker("exec", *certificates, builder, *pip, *PIP_PACKAGES)
        engine.docker("commit", builder, image())
        engine.docker("save", "--output", destination, image())
    finally:
        engine.docker("rm", "--force", builder)
        engine.docker("image", "rm", "--force", image(), BASE.name)


def _enlarge(source: Path, destination: Path, size: int) -> None:
    """Write the image again with `size - 1` more layers, each with all files of the first ones under another path."""
    with tarfile.open(source) as old, tarfile.open(destination, "w") as new:
        manifest = _manifest(old)
        config = _document(old, manifest["Config"])
        names = []
        for number, name in enumerate(manifest["Layers"]):
            names.append(f"layer-{number}.tar")
            member = tarfile.TarInfo(names[-1])
            member.size = old.getmember(name).size
            new.addfile(member, _file(old, name))
        for number in range(1, size):
            names.append(f"copy-{number}.tar")
            copy = destination.with_name(f".{destination.name}-{names[-1]}")
            try:
                _copy_layers(old, manifest["Layers"], f"srv/copy-{number}", copy)
                new.add(copy, names[-1])
                with copy.open("rb") as stream:
                    diff_id = hashlib.file_digest(stream, "sha256").hexdigest()
            finally:
                copy.unlink(missing_ok=True)
            config["rootfs"]["diff_ids"].append(f"sha256:{diff_id}")
            config["history"].append({"created": config["created"], "created_by": f"copy {number}"})
        document = {"Config": "config.json", "RepoTags": [image(size)], "Layers": names}
        _add(new, "config.json", json.dumps(config).encode())
        _add(new, "manifest.json", json.dumps([document]).encode())


def _copy_layers(source: tarfile.TarFile, layers: list[str], folder: str, destination: Path) -> None:
    with tarfile.open(destination, "w", format=tarfile.PAX_FORMAT) as copy:
        for number, name in enumerate(layers):
            # A folder for each: engines refuse a layer that has a path twice.
            place = f"{folder}/{number}"
            with tarfile.open(fileobj=_file(source, name)) as files:
                for member in files:
                    content = files.extractfile(member) if member.isreg() else None
                    member.name = f"{place}/{member.name}"
                    if member.islnk():
                        member.linkname = f"{place}/{member.linkname}"
                    member.pax_headers = {}
                    if member.isreg() or member.isdir() or member.issym() or member.islnk():
                        copy.addfile(member, content)


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    manifest: dict[str, Any] = _document(archive, "manifest.json")[0]
    return manifest


def _document(archive: tarfile.TarFile, name: str) -> Any:
    return json.load(_file(archive, name))


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise LabError(f"the tar archive has no file {name}")
    return file


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
