# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compaction: fewer layers, the same files, and the base image still shared."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import open_archive

from tests.integration.environment import Environment
from tests.integration.modules import converge, fail, peak_memory, start_module, succeed, until
from tests.lab import images
from tests.lab.host import run
from tests.tarballs import document, hand_made

# Whatever a file system can say of the files that people and package managers leave behind.
LISTING = (
    "cd / && find bin opt srv usr -xdev -exec stat -c '%n %f %u %g %s %Y' {} + | sort;"
    "find opt srv -type f | sort | xargs sha256sum; find opt -type l | sort | xargs -r readlink"
)
CHANGES = (
    "mkdir -p /opt/gone /opt/stays /srv /usr; echo 1 >/opt/gone/1; echo 1 >/opt/stays/1; echo 1 >/opt/name",
    "ln /opt/name /opt/first; ln /opt/name /opt/second; ln -s nowhere /opt/link; rm /bin/yes; chmod 4755 /bin/busybox",
    "rm /opt/name; rm -r /opt/gone; mkdir /opt/gone; echo 3 >/opt/gone/3; rm -r /opt/stays; echo file >/opt/stays",
    "echo 4 >/opt/4; mkfifo /opt/fifo; rm /opt/link; mkdir /opt/link; echo 4 >/opt/link/4",
    "echo 5 >/srv/5",
)


def diff_ids(environment: Environment) -> list[str]:
    tarball = environment.tarball(environment.versions[0])
    (manifest,) = document(tarball, "manifest.json")
    found: list[str] = document(tarball, manifest["Config"])["rootfs"]["diff_ids"]
    return found


def test_too_many_layers_become_one_that_has_the_same_files(environment: Environment) -> None:
    compacted = []
    for change in CHANGES:
        environment.execute(change)
        files = environment.execute(LISTING)
        seen = converge("haku_tar", **environment.options, max_layers=3)
        compacted.append(seen.first["compacted"])
        assert environment.execute(LISTING) == files
        assert environment.running
    assert compacted == [False, False, False, True, False]
    base = environment.inspect(environment.inspect(environment.name)["Config"]["Labels"]["haku.river.image"])
    layers = diff_ids(environment)
    assert layers[0] == base["RootFS"]["Layers"][0]
    assert len(layers) == 4
    files = environment.execute(LISTING)
    succeed("haku_sync", **environment.options)
    assert environment.run_image(LISTING) == files
    assert environment.run_image("[ /opt/first -ef /opt/second ] && echo linked") == "linked\n"
    assert environment.dangling == []
    assert environment.leftovers == []
    assert not succeed("haku_tar", **environment.options, max_layers=3)["changed"]


def test_a_base_without_history_is_compacted_like_any_other(environment: Environment, tmp_path: Path) -> None:
    with open_archive(images.BUSYBOX.tarball) as archive:
        layers = [b"".join(archive.uncompressed(layer)) for layer in archive.image.layers]
    reference = f"hakuriver/{environment.name}:untold"
    environment.leave()
    environment.engine.docker("load", "--input", hand_made(*layers, Cmd=["sh"]).write(tmp_path / "base.tar", reference))
    environment.create(reference)
    compacted = []
    for greeting in ("one", "two", "three"):
        environment.execute(f"echo {greeting} > /greeting")
        compacted.append(succeed("haku_tar", **environment.options, max_layers=2)["compacted"])
    assert compacted == [False, False, True]
    assert len(diff_ids(environment)) == len(layers) + 2
    assert environment.execute("cat /greeting") == "three\n"
    # Podman commits nothing on an image whose history lists only the layers of packages.
    environment.engine.docker("commit", environment.name, f"hakuriver/{environment.name}:committed")


def test_dead_weight_is_shed(one_environment: Environment) -> None:
    for number in range(8):
        one_environment.execute(f"dd if=/dev/urandom of=/large bs=1M count=10 2>/dev/null; echo {number} >/number")
        assert not succeed("haku_tar", **one_environment.options)["compacted"]
    one_environment.execute("echo small >/small")
    seen = converge("haku_tar", **one_environment.options)
    assert seen.first["compacted"]
    assert seen.first["size_bytes"] < 20_000_000
    history = one_environment.engine.docker("history", one_environment.image_of(seen.first["version"]))
    assert "8 layers made one" in history


def test_what_was_published_without_its_container_is_not_published_again_to_compact_it(
    one_environment: Environment,
) -> None:
    for number in range(3):
        one_environment.execute(f"echo {number} >/number")
        seen = converge("haku_tar", **one_environment.options, consistency="pause" if number == 2 else "stop")
        assert seen.first["rebased"] is (number < 2)
    seen = converge("haku_tar", **one_environment.options, max_layers=2)
    assert (seen.first["published"], seen.first["compacted"]) == (False, False)
    assert one_environment.dangling == []
    assert one_environment.leftovers == []
    one_environment.execute("echo more >/number")
    assert converge("haku_tar", **one_environment.options, max_layers=2).first["compacted"]


def test_a_limit_that_leaves_no_room_for_changes_is_refused(one_environment: Environment) -> None:
    assert "max_layers: 1 is not possible" in fail("haku_tar", **one_environment.options, max_layers=1)


@pytest.fixture
def compactable(one_environment: Environment) -> Environment:
    """Give an environment that the next package with `max_layers=2` compacts: 60 MB in two layers, and a change."""
    for number in range(2):
        one_environment.execute(f"dd if=/dev/urandom of=/opt{number} bs=1M count=30 2>/dev/null")
        assert not succeed("haku_tar", **one_environment.options, max_layers=3)["compacted"]
    one_environment.execute("echo change >/change")
    return one_environment


def assert_nothing_happened(environment: Environment, container: str, version: int) -> None:
    assert environment.inspect(environment.name)["Id"] == container
    assert environment.running
    assert environment.versions == [version]


def test_a_packager_killed_while_it_compacts_costs_nothing(compactable: Environment) -> None:
    container, (version,) = compactable.inspect(compactable.name)["Id"], compactable.versions
    with start_module("haku_tar", **compactable.options, max_layers=2) as packager:
        until(lambda: compactable.leftovers)
        packager.send_signal(signal.SIGKILL)
    assert_nothing_happened(compactable, container, version)
    files = compactable.execute("sha256sum /opt0 /opt1 /change")
    result = succeed("haku_tar", **compactable.options, max_layers=2)
    assert result["compacted"]
    assert compactable.execute("sha256sum /opt0 /opt1 /change") == files
    assert compactable.leftovers == []
    assert compactable.references == [compactable.image_of(result["version"])]


@pytest.fixture
def filled(compactable: Environment) -> Iterator[Environment]:
    """Give it on a disk that has no room for the layer that compacting makes."""
    (tarball,) = compactable.tarballs.glob("*.tar")
    content = tarball.read_bytes()
    run("mount", "-t", "tmpfs", "-o", f"size={len(content) + (20 << 20)}", "none", compactable.tarballs)
    tarball.write_bytes(content)
    yield compactable
    run("umount", compactable.tarballs)


def test_a_disk_that_fills_while_compacting_loses_nothing(filled: Environment) -> None:
    container, (version,) = filled.inspect(filled.name)["Id"], filled.versions
    references = filled.references
    sentence = fail("haku_tar", **filled.options, max_layers=2)
    assert f"Cannot write into {filled.tarballs}: {os.strerror(errno.ENOSPC)}" in sentence
    assert_nothing_happened(filled, container, version)
    assert filled.leftovers == []
    assert filled.references == references


def test_compacting_needs_no_more_memory_for_more_data(one_environment: Environment) -> None:
    for number in range(2):
        one_environment.execute(f"dd if=/dev/urandom of=/opt{number} bs=1M count=150 2>/dev/null")
        succeed("haku_tar", **one_environment.options, max_layers=3)
    one_environment.execute("echo change >/change")
    result, peak_bytes = peak_memory("haku_tar", **one_environment.options, max_layers=2)
    assert result["compacted"]
    assert result["bytes_written"] > 300_000_000
    assert peak_bytes < 100_000_000
