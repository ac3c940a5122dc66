# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules answer ad hoc, by both names, from a checkout and from the artifact that users install."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.modules import CHECKOUT
from tests.lab import images
from tests.lab.machines import MACHINES, Machine

NAME = "ad-hoc"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def packaged(machines: dict[str, Machine], inventory: Path) -> Iterator[Path]:
    """Package an environment on the Host; gives the inventory."""
    host = machines["node1"]
    image = images.provide(images.BUSYBOX, host)
    (MACHINES.shared / "hakuriver-containers").mkdir(exist_ok=True)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={NAME}")
    host.docker("run", "--detach", "--init", *labels, "--name", NAME, image, "sleep", "infinity")
    assert "CHANGED" in ad_hoc("haku_host", "haku_tar", inventory)
    yield inventory
    host.docker("rm", "--force", NAME)
    assert "CHANGED" in ad_hoc("haku_runners", "haku_sync", inventory, state="absent")
    assert "CHANGED" in ad_hoc("haku_host", "haku_tar", inventory, state="absent")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build and install the artifact; returns the environment in which Ansible knows it, and no checkout."""
    directory = tmp_path_factory.mktemp("installed")
    run("ansible-galaxy", "collection", "build", "--output-path", str(directory), cwd=CHECKOUT)
    (artifact,) = directory.glob("haku-river-*.tar.gz")
    install = ("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "--collections-path")
    run(*install, str(directory / "collections"), str(artifact), cwd=directory)
    collection = directory / "collections/ansible_collections/haku/river"
    assert not (collection / ".checkout").exists()
    return {
        "PWD": str(directory),
        "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
        "ANSIBLE_LIBRARY": str(collection / "plugins/modules"),
    }


def run(*command: str, cwd: Path, **environment: str) -> str:
    finished = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=cwd,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def ad_hoc(group: str, module: str, inventory: Path, state: str = "present", **environment: str) -> str:
    """Run a module as README shows it."""
    options = f"name={NAME} shared_dir=/shared state={state}"
    cwd = Path(environment.pop("PWD", CHECKOUT))
    return run("ansible", group, "-i", str(inventory), "-m", module, "-a", options, cwd=cwd, **environment)


@pytest.mark.parametrize("name", ["haku_sync", "haku.river.haku_sync"])
def test_from_a_checkout(name: str, packaged: Path, machines: dict[str, Machine]) -> None:
    _synchronised_once(name, packaged, machines)


@pytest.mark.parametrize("name", ["haku_sync", "haku.river.haku_sync"])
def test_from_the_installed_artifact(
    name: str, packaged: Path, machines: dict[str, Machine], installed: dict[str, str]
) -> None:
    _synchronised_once(name, packaged, machines, **installed)


def test_the_program_of_the_installed_artifact(inventory: Path, installed: dict[str, str], tmp_path: Path) -> None:
    """It is found by a link, as from a directory of the PATH, and finds its collection and Ansible's Python itself."""
    (tmp_path / "haku-shell").symlink_to(Path(installed["ANSIBLE_LIBRARY"]).parents[1] / "shell/haku-shell")
    path = f"{tmp_path}:{BIN}:{os.environ['PATH']}"
    listed = run("/usr/bin/env", "haku-shell", "-i", str(inventory), cwd=tmp_path, PATH=path)
    assert listed.startswith("Environments on node1:\nNAMES")


def _synchronised_once(name: str, inventory: Path, machines: dict[str, Machine], **environment: str) -> None:
    for runner in ("node2", "node3"):
        machines[runner].run("sh", "-c", f"docker image rm hakuriver/{NAME}:base 2>/dev/null || true")
    assert ad_hoc("haku_runners", name, inventory, **environment).count("CHANGED") == 2
    assert ad_hoc("haku_runners", name, inventory, **environment).count("SUCCESS") == 2
