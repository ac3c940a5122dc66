# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Host has an engine, its SDK, and a marked directory for tarballs."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://haku_host"]


def test_the_engine_runs_and_starts_with_the_machine(host: Host) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_the_sdk_reaches_the_engine(host: Host) -> None:
    assert host.check_output("python3 -c 'import docker; print(docker.from_env().ping())'") == "True"


def test_only_the_host_may_write_tarballs(host: Host) -> None:
    directory = host.file("/shared/hakuriver-containers")
    assert directory.is_directory
    assert (directory.user, oct(directory.mode)) == ("root", "0o755")


def test_the_marker_can_be_read_by_all(host: Host) -> None:
    marker = host.file("/shared/hakuriver-containers/.haku-river")
    assert marker.content_string.strip()
    assert oct(marker.mode) == "0o644"


def test_nothing_is_exported_unasked(host: Host) -> None:
    assert not host.file("/etc/exports.d/haku-river.exports").exists
