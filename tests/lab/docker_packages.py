# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories as Docker's own are, for apt and for dnf, signed, with Debian's engine under Docker's names.

Another is for dnf as the distribution's own is, with Debian's Podman.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from . import rpms
from .host import HOME, atomic, exclusive, remove, require, run

SUITE = "bookworm"
_VERSION = "20.10"
_FOUND_IN = ("docker.io", "containerd", "runc")
_DEPENDS = "adduser, iptables, libdevmapper1.02.1, libseccomp2, tini"
_EMPTY = ("docker-ce-cli", "containerd.io")
_KEY = "haku lab <lab@localhost>"
_MAKE_GROUP = "getent group docker >/dev/null || groupadd --system docker"
# There, systemd's own package makes what a new file in tmpfiles.d asks for: the link from Docker's socket to Podman's.
_PODMAN = (("podman", "4.3", ""), ("podman-docker", "4.3", "systemd-tmpfiles --create podman-docker.conf"))


@dataclass(frozen=True)
class Repositories:
    """A folder to serve by HTTP as `engine_repository_url`: below it, `debian/` is for apt, `centos/` for dnf.

    `almalinux/` is that of the distribution, for dnf.
    """

    folder: Path

    @property
    def checksum(self) -> str:
        """The value of `engine_repository_key_checksum`."""
        return f"sha256:{hashlib.sha256((self.folder / 'debian/gpg').read_bytes()).hexdigest()}"

    @property
    def fingerprint(self) -> str:
        """The value of `engine_repository_key_fingerprint`."""
        return (self.folder / "fingerprint").read_text()


def publish(folder: Path) -> Repositories:
    """Put the repositories, made on first use, into a folder."""
    require("createrepo_c", "gpg", "rpmbuild")
    made = HOME / "engine-packages"
    with exclusive(made.name):
        if not made.exists():
            with atomic(made) as partial, TemporaryDirectory(dir=made.parent) as scratch:
                _make(partial, Path(scratch))
    remove(folder)
    run("cp", "--recursive", made, folder)
    return Repositories(folder)


def _make(folder: Path, scratch: Path) -> None:
    gpg = ("gpg", "--homedir", scratch / "gnupg", "--batch", "--quiet", "--yes")
    (scratch / "gnupg").mkdir(mode=0o700)
    run(*gpg, "--passphrase", "", "--quick-generate-key", _KEY, "rsa3072", "sign", "never")
    key = run(*gpg, "--armor", "--export").encode()
    listed = run(*gpg, "--with-colons", "--fingerprint").splitlines()
    tree = rpms.unpack(_FOUND_IN, scratch / "docker-ce", scratch)
    for distribution in ("debian", "centos"):
        (folder / distribution).mkdir(parents=True)
        (folder / distribution / "gpg").write_bytes(key)
    (folder / "fingerprint").write_text(next(line.split(":")[9] for line in listed if line.startswith("fpr:")))
    _for_apt(folder / "debian", tree, scratch, gpg)
    _for_dnf(folder / "centos/9/x86_64/stable", tree, scratch)
    _podman(folder / "almalinux", scratch)


def _for_apt(repository: Path, tree: Path, scratch: Path, gpg: tuple[str | Path, ...]) -> None:
    """Write packages and indices; see Debian's wiki, DebianRepository/Format."""
    packages = repository / "dists" / SUITE / "stable/binary-amd64"
    packages.mkdir(parents=True)
    index = ""
    for name in ("docker-ce", *_EMPTY):
        built = packages / f"{name}.deb"
        contents = scratch / f"deb-{name}"
        if name == "docker-ce":
            run("cp", "--archive", tree, contents)
        (contents / "DEBIAN").mkdir(parents=True)
        depends = f"Depends: {_DEPENDS}\n" if name == "docker-ce" else ""
        (contents / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {_VERSION}\nArchitecture: amd64\nMaintainer: {_KEY}\n{depends}"
            "Conflicts: docker.io, containerd, runc\nDescription: Debian's engine\n"
        )
        script = contents / "DEBIAN/preinst"
        script.write_text(f"#!/bin/sh\n{_MAKE_GROUP}\n")
        script.chmod(0o755)
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", contents, built)
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        path = built.relative_to(repository)
        fields = f"Filename: {path}\nSize: {built.stat().st_size}\nSHA256: {digest}\n"
        index += f"{run('dpkg-deb', '--field', built)}{fields}\n"
    (packages / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = scratch / "Release"
    release.write_text(
        f"Suite: {SUITE}\nCodename: {SUITE}\nComponents: stable\nArchitectures: amd64\n"
        f"SHA256:\n {digest} {len(index.encode())} stable/binary-amd64/Packages\n"
    )
    run(*gpg, "--clearsign", "--output", repository / "dists" / SUITE / "InRelease", release)


def _for_dnf(repository: Path, tree: Path, scratch: Path) -> None:
    """Build, sign and index packages."""
    repository.mkdir(parents=True)
    (scratch / "empty").mkdir()
    rpms.build(repository, "docker-ce", _VERSION, tree, scratch, before=_MAKE_GROUP)
    for name in _EMPTY:
        rpms.build(repository, name, _VERSION, scratch / "empty", scratch)
    rpms.sign(repository, _KEY, scratch / "gnupg")
    rpms.index(repository)


def _podman(repository: Path, scratch: Path) -> None:
    """Build and index what the family of Red Hat has in place of Docker."""
    repository.mkdir(parents=True)
    for name, version, after in _PODMAN:
        rpms.build(repository, name, version, rpms.unpack((name,), scratch / name, scratch), scratch, after=after)
    rpms.index(repository)
