# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a version has in common with the one before it is on the disk once, where the file system can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import open_archive
from ansible_collections.haku.river.plugins.module_utils.saved import SavedImage
from ansible_collections.haku.river.plugins.module_utils.tarball import write_tarball

from tests.integration.environment import Environment
from tests.integration.modules import succeed
from tests.lab.filesystems import shared_bytes, xfs

MIB = 1 << 20


@pytest.fixture
def on_xfs(one_environment: Environment, tmp_path: Path) -> Iterator[Environment]:
    """Give an environment whose shared directory is an XFS."""
    with xfs(tmp_path / "xfs") as directory:
        (directory / "hakuriver-containers").mkdir()
        yield Environment(one_environment.engine, one_environment.name, directory)


def free_bytes(directory: Path) -> int:
    os.sync()
    status = os.statvfs(directory)
    return status.f_bfree * status.f_frsize


def test_a_version_takes_the_space_of_what_changed(on_xfs: Environment) -> None:
    on_xfs.execute("dd if=/dev/urandom of=/large bs=1M count=60 2>/dev/null")
    former = succeed("haku_tar", **on_xfs.options)
    before = free_bytes(on_xfs.tarballs)
    on_xfs.execute("dd if=/dev/urandom of=/change bs=1M count=3 2>/dev/null")
    result = succeed("haku_tar", **on_xfs.options, keep=2)
    assert (result["layers_cloned"], result["layers_written"]) == (2, 1)
    assert 3 * MIB < result["bytes_written"] < 3 * MIB + 64 * 1024
    assert before - free_bytes(on_xfs.tarballs) < 3 * MIB + MIB
    assert on_xfs.versions == [result["version"], former["version"]]
    tarball = on_xfs.tarball(result["version"])
    assert shared_bytes(tarball) > 60 * MIB


def test_a_cloned_tarball_is_the_one_that_would_be_written_in_full(on_xfs: Environment, tmp_path: Path) -> None:
    on_xfs.execute("dd if=/dev/urandom of=/large bs=1000 count=7001 2>/dev/null")
    succeed("haku_tar", **on_xfs.options)
    on_xfs.execute("echo more > /more")
    result = succeed("haku_tar", **on_xfs.options)
    assert result["layers_cloned"] == 2
    tarball = on_xfs.tarball(result["version"])
    with open_archive(tarball) as archive, (tmp_path / "full").open("x+b") as full:
        image = archive.image
        write_tarball(full, image.config, image.identity.diff_ids, SavedImage(archive), on_xfs.image)
    assert (tmp_path / "full").read_bytes() == tarball.read_bytes()


def test_where_nothing_can_be_cloned_it_is_copied(one_environment: Environment) -> None:
    former = succeed("haku_tar", **one_environment.options)
    one_environment.execute("echo more > /more")
    result = succeed("haku_tar", **one_environment.options, keep=2)
    assert result["layers_cloned"] == 2
    with open_archive(one_environment.tarball(result["version"])) as archive:
        for layer in archive.image.layers:
            archive.prove(layer)
        shared = archive.image.layers[1]
    prefix = shared.offset + shared.size_bytes
    old, new = (one_environment.tarball(version).read_bytes() for version in (former["version"], result["version"]))
    assert old[:prefix] == new[:prefix]
