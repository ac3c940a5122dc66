# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine that goes away in the middle: a clear error, nothing half done, and trying again works."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.modules import CHECKOUT
from tests.lab import images
from tests.lab.machines import MACHINES, Machine

NAME = "engine-faults"
IMAGE = f"hakuriver/{NAME}:base"
TARBALLS = MACHINES.shared / "hakuriver-containers"


@pytest.fixture
def host(machines: dict[str, Machine]) -> Iterator[Machine]:
    """Give the Host with an environment that takes a while to package."""
    host = machines["node1"]
    image = images.provide(images.BUSYBOX, host)
    TARBALLS.mkdir(exist_ok=True)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={NAME}")
    host.docker("run", "--detach", "--init", *labels, "--name", NAME, image, "sleep", "infinity")
    host.docker("exec", NAME, "sh", "-c", "dd if=/dev/urandom of=/large bs=1M count=300 2>/dev/null")
    yield host
    host.docker("rm", "--force", NAME)
    for reference in references(host).split():
        host.docker("image", "rm", reference)
    for tarball in TARBALLS.glob(f"*{NAME}*"):
        tarball.unlink()


def start(
    machine: Machine, module: str, inventory: Path, interpreter: str = "/usr/bin/python3"
) -> subprocess.Popen[str]:
    """Start a module on a machine, over SSH."""
    ansible = str(Path(sys.executable).with_name("ansible"))
    options = f"name={NAME} shared_dir=/shared"
    return subprocess.Popen(
        [
            ansible,
            machine.name,
            "-i",
            str(inventory),
            "-m",
            module,
            "-a",
            options,
            "-e",
            f"ansible_python_interpreter={interpreter}",
        ],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[bool, str]:
    """Whether it ended well, and what it said."""
    said, _nothing = process.communicate(timeout=300)
    return process.returncode == 0, said


def restart_engine(machine: Machine, once: Callable[[], object]) -> None:
    """Restart the machine's engine as soon as `once` is true."""
    deadline = time.monotonic() + 120
    while not once():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    machine.run("systemctl", "restart", "docker")


def test_an_engine_that_restarts_during_a_save_costs_a_try(host: Machine, inventory: Path) -> None:
    with start(host, "haku_tar", inventory, interpreter=without_storage(host)) as packaging:
        restart_engine(host, once=lambda: any(TARBALLS.glob(f".{NAME}-*.part")))
        succeeded, said = outcome(packaging)
    assert not succeeded
    assert "Traceback" not in said
    assert "Cannot save image" in said
    assert list(TARBALLS.glob(f"*{NAME}-*")) == []
    assert_packaged_next_time(host, inventory)


def test_an_engine_that_restarts_while_a_tarball_is_written_costs_a_try_at_most(host: Machine, inventory: Path) -> None:
    with start(host, "haku_tar", inventory) as packaging:
        restart_engine(host, once=lambda: any(TARBALLS.glob(f".{NAME}-*.part")))
        _succeeded, said = outcome(packaging)
    assert "Traceback" not in said
    assert_packaged_next_time(host, inventory)


def assert_packaged_next_time(host: Machine, inventory: Path) -> None:
    """The environment is there once, its package as well, and nothing else is left."""
    host.docker("start", NAME)
    host.docker("exec", NAME, "touch", "/again")
    with start(host, "haku_tar", inventory) as again:
        succeeded, said = outcome(again)
    assert succeeded, said
    (tarball,) = TARBALLS.glob(f"*{NAME}-*")
    version = tarball.stem.rpartition("-")[2]
    assert references(host) == f"hakuriver/{NAME}:host-{version}"
    assert host.docker("ps", "--all", "--format", "{{.Names}}", "--filter", f"name={NAME}").strip() == NAME


def without_storage(machine: Machine) -> str:
    """The path of a Python on the machine that cannot see the engine's images."""
    path = "/usr/local/bin/python-without-storage"
    hide = 'mount -t tmpfs none /var/lib/docker/image && exec python3 "$@"'
    machine.run("tee", path, stdin=f"#!/bin/sh\nexec unshare --mount sh -c '{hide}' sh \"$@\"\n".encode())
    machine.run("chmod", "755", path)
    return path


def references(machine: Machine) -> str:
    return machine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"hakuriver/{NAME}").strip()


def test_an_engine_that_restarts_during_a_load_costs_a_try(
    host: Machine, machines: dict[str, Machine], inventory: Path
) -> None:
    with start(host, "haku_tar", inventory) as packaging:
        assert outcome(packaging)[0]
    runner = machines["node2"]
    with start(runner, "haku_sync", inventory) as loading:
        restart_engine(runner, once=lambda: runner.run("find", "/var/lib/docker/tmp", "-name", "docker-import-*"))
        succeeded, said = outcome(loading)
    assert not succeeded
    assert "Traceback" not in said
    assert "The engine cannot load /shared/hakuriver-containers" in said
    assert runner.docker("image", "ls", "--quiet", f"hakuriver/{NAME}") == ""
    with start(runner, "haku_sync", inventory) as again:
        assert outcome(again)[0]
    assert references(runner) == IMAGE
    runner.docker("image", "rm", IMAGE)
