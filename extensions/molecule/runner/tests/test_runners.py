# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every Runner has an engine and its SDK, and sees the Host's shared directory."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://haku_runners"]


def test_the_engine_runs_and_starts_with_the_machine(host: Host) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_the_sdk_reaches_the_engine(host: Host) -> None:
    assert host.check_output("python3 -c 'import docker; print(docker.from_env().ping())'") == "True"


def test_the_shared_directory_is_marked(host: Host) -> None:
    assert host.file("/shared/hakuriver-containers/.haku-river").content_string.strip()
