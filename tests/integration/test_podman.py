# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Podman says otherwise than Docker, and what it cannot do; the rest is tried where each module is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import converge, fail, succeed, without
from tests.lab import images
from tests.lab.engines import PODMAN, Engine
from tests.tarballs import hand_made, tar_of

EACH = pytest.mark.parametrize("engine", PODMAN, indirect=True)
OF_ROOT = pytest.mark.parametrize("engine", ["podman"], indirect=True)
WITHOUT_ROOT = pytest.mark.parametrize("engine", ["podman-rootless"], indirect=True)


@pytest.mark.parametrize("source", ["d20", "d28c", *PODMAN])
def test_tarballs_of_docker_and_podman_load_on_each_other(
    source: str, engines: dict[str, Engine], podmans: dict[str, Engine], tmp_path: Path
) -> None:
    (tmp_path / "hakuriver-containers").mkdir()
    packaged = Environment({**engines, **podmans}[source], f"podman-matrix-{source}", tmp_path)
    packaged.create(images.provide(images.BUSYBOX, packaged.engine))
    packaged.execute(f"mkdir /data && echo {packaged.name} > /data/name && rm -r /bin/cat && mkfifo /data/pipe")
    succeed("haku_tar", **packaged.options, rebase=False)
    packaged.engine.docker("rm", "--force", packaged.name)
    targets = list(podmans.values()) if source in engines else [engines["d20"], engines["d28c"], *podmans.values()]
    for engine in targets:
        synchronised = packaged.on(engine)
        assert converge("haku_sync", **synchronised.options).first["action"] == "load"
        said = synchronised.run_image("read word < /data/name; echo $word; ls -d /data/pipe; ls /bin/cat 2>&1 || true")
        assert said.startswith(f"{packaged.name}\n/data/pipe\nls: ")
        assert synchronised.references == [synchronised.image]
        engine.docker("image", "rm", synchronised.image)


@EACH
@pytest.mark.parametrize("named", [True, False], ids=["with RepoTags", "without RepoTags"])
def test_what_podman_itself_commits_and_saves_is_loaded(environment: Environment, named: bool) -> None:
    environment.execute("echo hello > /greeting")
    image_id = environment.engine.docker("commit", environment.name, environment.image).strip()
    saved = environment.image if named else image_id
    environment.engine.docker("save", "--output", environment.tarball(1767225600), saved)
    environment.engine.docker("image", "rm", environment.image)
    seen = converge("haku_sync", **environment.options)
    assert (seen.first["action"], seen.first["version"]) == ("load", 1767225600)
    assert environment.run_image("cat /greeting").strip() == "hello"


@EACH
def test_nothing_new_is_not_published_where_podman_itself_has_to_commit(environment: Environment) -> None:
    environment.execute("echo hello > /greeting")
    assert succeed("haku_tar", **environment.options)["rebased"]
    root = environment.engine.docker("info", "--format", "{{.DockerRootDir}}").strip()
    unreadable = {**environment.options, "within": without(root)}
    assert converge("haku_tar", **unreadable).first["changed"] is False
    environment.execute("echo more > /more")
    seen = converge("haku_tar", **unreadable)
    assert (seen.first["layers_from"], seen.first["rebased"]) == ("docker save", False)
    environment.leave()
    assert converge("haku_sync", **environment.options).first["action"] == "load"
    assert environment.run_image("cat /greeting /more").split() == ["hello", "more"]
    variables = [entry.partition("=")[0] for entry in environment.inspect(environment.image)["Config"]["Env"]]
    assert variables == ["PATH"]


@EACH
def test_an_image_is_proven_by_what_podman_tells_of_it(environment: Environment) -> None:
    """It tells nothing of health checks, shells and triggers."""
    config: dict[str, Any] = {
        "Cmd": ["sh"],
        "Healthcheck": {"Test": ["CMD", "true"]},
        "Shell": ["/bin/ash", "-c"],
        "OnBuild": ["RUN true"],
    }
    hand_made(tar_of({"file": b"content"}), **config).write(environment.tarball(1767225600), environment.image)
    seen = converge("haku_sync", **environment.options)
    assert (seen.first["action"], seen.first["fallback"]) == ("load", None)


@pytest.fixture
def network(environment: Environment) -> Iterator[str]:
    """Give a network that the container is in no more when it is removed."""
    name = f"{environment.name}-net"
    environment.engine.docker("network", "create", name)
    yield name
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    environment.engine.docker("network", "rm", name)


@EACH
def test_networks_ports_volumes_and_variables_stay_after_packages(environment: Environment, network: str) -> None:
    engine = environment.engine
    engine.docker("rm", "--force", environment.name)
    asked: dict[str, Any] = {
        "name": environment.name,
        "docker_host": engine.url,
        "image": images.BUSYBOX.name,
        "network": network,
        "env": {"GREETING": "hello", "HOME": "/tmp"},
        "labels": {"team": "a"},
        "volumes": ["/etc:/host:ro", f"{environment.name}-data:/data"],
        "restart_policy": "always",
    }
    converge("haku_container", **asked)
    environment.execute("touch /data/file")
    for package in range(2):
        environment.execute(f"echo {package} > /package")
        seen = converge("haku_tar", **environment.options)
        assert seen.first["published"]
        assert succeed("haku_container", **asked)["changed"] is False
        assert environment.execute("ls /data; echo $GREETING $HOME; test -s /host/passwd && echo host").split() == [
            *("file", "hello", "/tmp", "host"),
        ]
        there = environment.inspect(environment.name)
        assert list(there["NetworkSettings"]["Networks"]) == [network]
        hostname = environment.execute("hostname; echo $HOSTNAME").split()
        assert hostname == [there["Id"][:12]] * 2
    converge("haku_container", name=environment.name, docker_host=engine.url, state="absent")
    engine.docker("volume", "rm", f"{environment.name}-data")


@OF_ROOT
def test_a_container_whose_network_others_use_continues_as_it_is(environment: Environment) -> None:
    engine, sidecar = environment.engine, f"{environment.name}-sidecar"
    mode = f"--network=container:{environment.name}"
    engine.docker("run", "--detach", "--init", "--name", sidecar, mode, images.BUSYBOX.name, "sleep", "infinity")
    seen = converge("haku_tar", **environment.options)
    engine.docker("rm", "--force", sidecar)
    assert (seen.first["published"], seen.first["rebased"]) == (True, False)
    assert sidecar in str(seen.first["warnings"])


@EACH
def test_gpus_that_podman_would_leave_out_in_silence_are_refused(environment: Environment) -> None:
    options: dict[str, Any] = {"docker_host": environment.engine.url, "image": images.BUSYBOX.name, "gpus": "all"}
    name = f"{environment.name}-gpu"
    for check in (True, False):
        assert "cannot select a device driver" in fail("haku_container", check=check, name=name, **options)
    assert name not in environment.engine.docker("ps", "--all", "--format", "{{.Names}}").split()


@WITHOUT_ROOT
@pytest.mark.parametrize("limit", [{"memory": "64M"}, {"cpus": 0.5}])
def test_limits_that_podman_would_leave_out_in_silence_are_refused(
    environment: Environment, limit: dict[str, Any]
) -> None:
    """With systemd and control groups of version 2 it has them; the lab's has no systemd."""
    options = {"docker_host": environment.engine.url, "image": images.BUSYBOX.name, "network": "none", **limit}
    name = f"{environment.name}-limits"
    for check in (True, False):
        assert "can set no limits" in fail("haku_container", check=check, name=name, **options)
    assert name not in environment.engine.docker("ps", "--all", "--format", "{{.Names}}").split()
    assert "can set no limits" in fail("haku_container", **{**options, "name": environment.name})


@WITHOUT_ROOT
def test_a_numa_node_is_refused_as_well(environment: Environment) -> None:
    task = {"command": "true", "task_id": "bound", "numa_node": 0, **environment.options}
    for check in (True, False):
        assert "can set no limits" in fail("haku_task", check=check, **task)
