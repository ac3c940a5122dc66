# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories as Docker's own are, for apt and for dnf, signed, with Debian's engine under Docker's names."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .host import HOME, atomic, exclusive, remove, require, run

SUITE = "bookworm"
_VERSION = "20.10"
_FOUND_IN = ("docker.io", "containerd", "runc")
_DEPENDS = "adduser, iptables, libdevmapper1.02.1, libseccomp2, tini"
_EMPTY = ("docker-ce-cli", "containerd.io")
_KEY = "haku lab <lab@localhost>"
_MAKE_GROUP = "getent group docker >/dev/null || groupadd --system docker"

_SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: Debian's engine
License: Apache-2.0
AutoReqProv: no
%description
%{{summary}}
%pre -p <lua>
os.execute("{make_group}")
%install
cp -a {tree}/. %{{buildroot}}
%files {files}
"""
"""Without requirements, so that it can be installed on any machine that has an rpm; hence also Lua and no shell."""


@dataclass(frozen=True)
class Repositories:
    """A folder to serve by HTTP as `engine_repository_url`: below it, `debian/` is for apt, `centos/` for dnf."""

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
    made = HOME / "docker-packages"
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
    tree = _engine(scratch)
    for distribution in ("debian", "centos"):
        (folder / distribution).mkdir(parents=True)
        (folder / distribution / "gpg").write_bytes(key)
    (folder / "fingerprint").write_text(next(line.split(":")[9] for line in listed if line.startswith("fpr:")))
    _for_apt(folder / "debian", tree, scratch, gpg)
    _for_dnf(folder / "centos/9/x86_64/stable", tree, scratch)


def _engine(scratch: Path) -> Path:
    """Unpack Debian's engine, and what it calls, into one tree."""
    tree = scratch / "docker-ce"
    for package in _FOUND_IN:
        # As a user who may read what root downloads, or apt warns.
        run("sh", "-c", f"cd {scratch} && apt-get -o APT::Sandbox::User=root download {package}")
        (archive,) = scratch.glob(f"{package}_*.deb")
        run("dpkg-deb", "--extract", archive, tree)
    # Where /lib is, it is a link to /usr/lib; a package for dnf must not have it as a directory.
    run("cp", "--archive", f"{tree}/lib/.", tree / "usr/lib")
    remove(tree / "lib")
    return tree


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
    for name in ("docker-ce", *_EMPTY):
        root = tree if name == "docker-ce" else scratch / "empty"
        files = scratch / f"{name}.files"
        files.write_text("".join(f"/{path.relative_to(root)}\n" for path in root.rglob("*") if not path.is_dir()))
        listed = f"-f {files}" if files.stat().st_size else ""
        spec = scratch / f"{name}.spec"
        spec.write_text(_SPEC.format(name=name, version=_VERSION, tree=root, files=listed, make_group=_MAKE_GROUP))
        defined = {
            "_topdir": scratch / "rpmbuild",
            "_rpmdir": repository,
            "_binary_payload": "w1.gzdio",
            "debug_package": "%{nil}",
            "__os_install_post": "%{nil}",
        }
        run("rpmbuild", "-bb", "--quiet", "--target", "x86_64", *_macros(defined), spec)
    packages = sorted(repository.rglob("*.rpm"))
    signer = {"_gpg_name": _KEY, "_gpg_path": scratch / "gnupg", "__gpg": shutil.which("gpg")}
    run("rpmsign", *_macros(signer), "--addsign", *packages)
    run("createrepo_c", "--quiet", repository)


def _macros(values: Mapping[str, object]) -> list[str]:
    return [word for macro, value in values.items() for word in ("--define", f"{macro} {value}")]
