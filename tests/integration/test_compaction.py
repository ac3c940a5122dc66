# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compaction: fewer layers, the same files, and the base image still shared."""

from __future__ import annotations

from tests.integration.environment import Environment
from tests.integration.modules import converge, fail, succeed
from tests.tarballs import document

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


def test_a_limit_that_leaves_no_room_for_changes_is_refused(one_environment: Environment) -> None:
    assert "max_layers: 1 is not possible" in fail("haku_tar", **one_environment.options, max_layers=1)
