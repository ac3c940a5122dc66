# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine has an engine with the options that were asked for, its SDK, and nothing else of the collection's."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://runner2"]


def test_the_engine_runs_and_starts_with_the_machine(host: Host) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_the_engine_started_with_the_options(host: Host) -> None:
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"


def test_the_options_are_roots(host: Host) -> None:
    options = host.file("/etc/docker/daemon.json")
    assert (options.user, oct(options.mode)) == ("root", "0o644")


def test_the_sdk_reaches_the_engine(host: Host) -> None:
    assert host.check_output("python3 -c 'import docker; print(docker.from_env().ping())'") == "True"


def test_nothing_is_shared(host: Host) -> None:
    assert not host.file("/shared/hakuriver-containers").exists
