# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From three machines with nothing on them to a distributed environment, by one playbook."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import pytest

from tests.integration.plays import Run, run_playbook
from tests.lab import images, machines as lab_machines, registry as lab_registry
from tests.lab.host import remove
from tests.lab.machines import BARE, Machine
from tests.lab.registry import Registry

ENVIRONMENT = "from-bare"
INSTALLED = ("Install docker.io", "Install python3-docker")


@dataclass(frozen=True)
class Site:
    """What happened on the machines: a check, the run, the run once more, and a check of the rest alone."""

    machines: dict[str, Machine]
    check: Run
    first: Run
    second: Run
    unprepared: Run


@pytest.fixture(scope="module")
def site(bare_machines: dict[str, Machine], registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Run haku.river.site on machines that were never touched."""
    window = lab_registry.open_window()
    image = registry.push(images.BUSYBOX, "site/busybox:1").replace(registry.address, window.address)
    for machine in bare_machines.values():
        lab_machines.discard(machine)
    remove(BARE.shared)
    machines = lab_machines.start(BARE)
    for machine in machines.values():
        assert not machine.succeeds("sh", "-c", "command -v dockerd || python3 -c 'import docker'")

    project = tmp_path_factory.mktemp("site")
    shutil.copy(BARE.inventory, project / "inventory.ini")
    variables = {
        "haku_environments": [{"name": ENVIRONMENT, "image": image}],
        "engine_daemon_options": {"insecure-registries": [window.address]},
    }
    (project / "group_vars").mkdir()
    (project / "group_vars/all.yml").write_text(json.dumps(variables))

    def run(*arguments: str) -> Run:
        return run_playbook("haku.river.site", project / "inventory.ini", *arguments).succeeded()

    return Site(machines, run("--check", "--diff"), run(), run(), run("--check", "--extra-vars=haku_prepare=false"))


def test_one_run_takes_bare_machines_to_a_distributed_environment(site: Site) -> None:
    assert {(task, machine) for task in INSTALLED for machine in site.machines} <= set(site.first.changed)
    for runner in list(site.machines)[1:]:
        image = f"hakuriver/{ENVIRONMENT}:base"
        assert site.machines[runner].docker("run", "--rm", "--network", "none", image, "echo", "served") == "served\n"


def test_the_second_run_changes_nothing(site: Site) -> None:
    assert site.second.changed == []
    assert site.unprepared.changed == []


def test_setting_up_the_machines_can_be_left_out(site: Site) -> None:
    asked = [result for task, _machine, result in site.unprepared.results() if task == "Ask the engine for its version"]
    assert len(asked) == len(site.machines)
    assert all(result["skipped"] for result in asked)


def test_a_check_of_bare_machines_tells_what_it_can_and_what_it_leaves_out(site: Site) -> None:
    assert {(task, machine) for task in INSTALLED for machine in site.machines} <= set(site.check.changed)
    assert set(site.check.changed) <= set(site.first.changed)
    for machine in site.machines:
        assert f"No engine and SDK yet, so left out of this check: {machine}" in site.check.printed


def test_engines_start_with_the_machines(site: Site) -> None:
    for machine in site.machines.values():
        assert machine.run("systemctl", "is-enabled", "docker.service") == "enabled\n"
        assert machine.run("systemctl", "is-active", "docker.service") == "active\n"
