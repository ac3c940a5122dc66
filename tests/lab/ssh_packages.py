# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OpenSSH's server, as Debian builds it, in repositories for dnf and zypper, and for pacman."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from . import rpms
from .host import HOME, atomic, exclusive, require

REPOSITORY = "lab"
"""What pacman has to call the repository."""

_FOUND_IN = ("openssh-server", "openssh-client", "openssh-sftp-server")
_VERSION = "9.2"
_MAKE_USER = "useradd --system --no-create-home --home-dir /run/sshd --shell /usr/sbin/nologin sshd"


def published() -> Path:
    """Return a folder, made on first use, that each of them takes for a repository."""
    require("createrepo_c", "rpmbuild")
    made = HOME / "ssh-packages"
    with exclusive(made.name):
        if not made.exists():
            with atomic(made) as partial, TemporaryDirectory(dir=made.parent) as scratch:
                partial.mkdir()
                tree = _server(Path(scratch))
                rpms.build(partial, "openssh-server", _VERSION, tree, Path(scratch), before=_MAKE_USER)
                rpms.index(partial)
                _for_pacman(partial, tree)
    return made


def _server(scratch: Path) -> Path:
    tree = rpms.unpack(_FOUND_IN, scratch / "openssh-server", scratch)
    # Debian's package copies this one when it is installed.
    shutil.copy(tree / "usr/share/openssh/sshd_config", tree / "etc/ssh")
    return tree


def _for_pacman(repository: Path, tree: Path) -> None:
    """Write a package and the database that lists it; see PKGBUILD(5) and repo-add(8)."""
    fields = {"name": "openssh", "version": f"{_VERSION}-1", "arch": "x86_64"}
    package = repository / "{name}-{version}-{arch}.pkg.tar.gz".format(**fields)
    information = "pkgname = {name}\npkgver = {version}\narch = {arch}\n".format(**fields)
    with tarfile.open(package, "w:gz", compresslevel=1) as archive:
        _add(archive, ".PKGINFO", information)
        _add(archive, ".INSTALL", f"pre_install() {{\n{_MAKE_USER}\n}}\n")
        for path in sorted(tree.iterdir()):
            archive.add(path, path.name)
    listed = {
        "FILENAME": package.name,
        "NAME": fields["name"],
        "VERSION": fields["version"],
        "ARCH": fields["arch"],
        "GROUPS": "network",  # as a repository without any group is an error to Ansible's module
        "CSIZE": package.stat().st_size,
        "SHA256SUM": hashlib.sha256(package.read_bytes()).hexdigest(),
    }
    with tarfile.open(repository / f"{REPOSITORY}.db", "w:gz") as database:
        description = "".join(f"%{name}%\n{value}\n\n" for name, value in listed.items())
        _add(database, "{name}-{version}/desc".format(**fields), description)


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    archive.addfile(member, io.BytesIO(text.encode()))
