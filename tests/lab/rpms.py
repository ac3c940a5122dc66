# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages for the family of Red Hat and for SUSE, with what Debian's packages have in them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from .host import remove, require, run

_SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: What Debian has
License: Apache-2.0
AutoReqProv: no
%description
%{{summary}}
%pre -p <lua>
os.execute([[{before}]])
%post -p <lua>
os.execute([[{after}]])
%install
cp -a {tree}/. %{{buildroot}}
%files {files}
"""
"""Without requirements, so that it can be installed on any machine that has an rpm; hence also Lua and no shell."""


def unpack(packages: tuple[str, ...], tree: Path, scratch: Path) -> Path:
    """Unpack Debian's packages into one tree, and return it."""
    for package in packages:
        # As a user who may read what root downloads, or apt warns.
        run("sh", "-c", f"cd {scratch} && apt-get -o APT::Sandbox::User=root download {package}")
        (archive,) = scratch.glob(f"{package}_*.deb")
        run("dpkg-deb", "--extract", archive, tree)
    if (tree / "lib").exists():
        # Where /lib is, it is a link to /usr/lib; another package must not have it as a directory.
        run("cp", "--archive", f"{tree}/lib/.", tree / "usr/lib")
        remove(tree / "lib")
    return tree


def build(
    repository: Path, name: str, version: str, tree: Path, scratch: Path, before: str = "", after: str = ""
) -> None:
    """Build a package with all files of the tree, and with commands to run before and after they are unpacked."""
    require("rpmbuild")
    files = scratch / f"{name}.files"
    paths = [path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()]
    files.write_text("".join(f"/{path.relative_to(tree)}\n" for path in paths))
    listed = f"-f {files}" if files.stat().st_size else ""
    spec = scratch / f"{name}.spec"
    spec.write_text(_SPEC.format(name=name, version=version, tree=tree, files=listed, before=before, after=after))
    defined = {
        "_topdir": scratch / "rpmbuild",
        "_rpmdir": repository,
        "_binary_payload": "w1.gzdio",
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
    }
    run("rpmbuild", "-bb", "--quiet", "--target", "x86_64", *_macros(defined), spec)


def sign(repository: Path, key: str, keys: Path) -> None:
    """Sign all packages with the key of that name, in that home of GnuPG."""
    require("gpg", "rpmbuild")
    signer = {"_gpg_name": key, "_gpg_path": keys, "__gpg": shutil.which("gpg")}
    run("rpmsign", *_macros(signer), "--addsign", *sorted(repository.rglob("*.rpm")))


def index(repository: Path) -> None:
    """Make the folder what dnf and zypper take for a repository."""
    require("createrepo_c")
    run("createrepo_c", "--quiet", repository)


def _macros(values: Mapping[str, object]) -> list[str]:
    return [word for macro, value in values.items() for word in ("--define", f"{macro} {value}")]
