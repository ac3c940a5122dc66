# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Something for apt and for pip to install where no package mirror can be reached: a folder that is both."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from .host import run

NAME = "haku-lab-hello"
"""The Debian package, the program in it, and the Python distribution (whose module has underscores)."""

VERSION = "1.0"


@dataclass(frozen=True)
class Packages:
    """How a machine, or a container that has the folder at the same path, installs `NAME`."""

    folder: PurePath

    @property
    def apt_source(self) -> str:
        """The line for sources.list, or for `ansible.builtin.apt_repository`."""
        return f"deb [trusted=yes] file:{self.folder} ./"

    @property
    def pip_arguments(self) -> str:
        """The `extra_args` of `ansible.builtin.pip`."""
        return f"--no-index --find-links {self.folder}"


def publish(folder: Path, seen_as: PurePath) -> Packages:
    """Fill a folder with a Debian package, its index and a wheel; `seen_as` is the folder's path on the machines."""
    folder.mkdir(parents=True, exist_ok=True)
    _index(_debian_package(folder))
    _wheel(folder)
    return Packages(seen_as)


def _debian_package(folder: Path) -> Path:
    package = folder / f"{NAME}_{VERSION}_all.deb"
    with TemporaryDirectory() as scratch:
        tree = Path(scratch, NAME)
        program = tree / "usr/bin" / NAME
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho {NAME} {VERSION}\n")
        program.chmod(0o755)
        control = tree / "DEBIAN/control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n"
            "Description: proves that a package was installed\n"
        )
        run("dpkg-deb", "--root-owner-group", "--build", tree, package)
    return package


def _index(package: Path) -> None:
    """Write the index of a repository with this one package; see Debian's wiki, DebianRepository/Format."""
    content = package.read_bytes()
    fields = {
        "Filename": f"./{package.name}",
        "Size": len(content),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }
    control = run("dpkg-deb", "--field", package)
    package.with_name("Packages").write_text(control + "".join(f"{name}: {value}\n" for name, value in fields.items()))


def _wheel(folder: Path) -> None:
    """Write a wheel by hand (PyPA's binary distribution format); so the folder needs no build tool."""
    module = NAME.replace("-", "_")
    information = f"{module}-{VERSION}.dist-info"
    members = {
        f"{module}.py": f'VERSION = "{VERSION}"\n',
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: haku.river\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*members, f"{information}/RECORD"))
    with zipfile.ZipFile(folder / f"{module}-{VERSION}-py3-none-any.whl", "w") as wheel:
        for name, text in {**members, f"{information}/RECORD": record}.items():
            wheel.writestr(name, text)
