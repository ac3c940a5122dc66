# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VPS by plays: keys that lie on the controller, the playbooks, and plays that work on the new machine."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plays import CHECKOUT, Run, run_play, run_playbook
from tests.integration.project import Project
from tests.integration.vps import Place, make_key
from tests.lab import images
from tests.lab.host import run
from tests.lab.machines import MACHINES, Machine
from tests.lab.packages import NAME as HELLO, Packages

TASK = "Have a machine"
INSIDE = """
- name: Write inside
  ansible.builtin.copy:
    content: "{{ inventory_hostname }}"
    dest: /root/inside
    mode: "0644"
"""
PLAYBOOK = f"""
- ansible.builtin.import_playbook: haku.river.vps

- hosts: haku_river_vps
  tasks:
    - name: Remove
      ansible.builtin.apt: {{name: {HELLO}, state: absent}}

    - name: Install
      ansible.builtin.apt: {{name: {HELLO}, state: present, update_cache: true}}
"""
LOOPBACK = {"vps": "a", "name": "b", "runner": "node2", "address": "127.0.0.1"}


@pytest.fixture
def controller(tmp_path: Path) -> Path:
    """Give an inventory of the controller alone, which is Runner too."""
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("localhost ansible_connection=local ansible_python_interpreter={{ansible_playbook_python}}\n")
    return inventory


def have(controller: Path, place: Place, *arguments: str, **options: Any) -> Run:
    """Have a play make the VPS."""
    asked = {"vps": place.vps, "name": place.environment, "docker_host": place.engine.url, **options}
    return run_play(controller, "localhost", [{"name": TASK, "haku.river.haku_vps": asked}], *arguments)


# The controller's part


def test_a_key_pair_is_made_once_on_the_controller_and_the_private_key_is_nowhere_else(
    main_vps_place: Place, controller: Path, tmp_path: Path
) -> None:
    private = tmp_path / "keys/machine"
    forecast = have(controller, main_vps_place, "--check", "--diff", generate_key=str(private)).succeeded()
    assert forecast.result(TASK)["changed"]
    assert not private.exists()
    first = have(controller, main_vps_place, "-vvvv", "--diff", generate_key=str(private)).succeeded()
    assert first.result(TASK)["private_key_file"] == str(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    second = have(controller, main_vps_place, "-vvvv", generate_key=str(private)).succeeded()
    assert second.result(TASK)["changed"] is False
    secret = "".join(private.read_text().splitlines()[1:-1])
    for run_ in (forecast, first, second):
        assert "PRIVATE KEY" not in run_.printed
        assert secret[:40] not in run_.printed
    machine = first.result(TASK)["vps"]
    assert main_vps_place.ssh(machine, "id -un", key=private) == "root\n"
    assert "PRIVATE KEY" not in main_vps_place.ssh(machine, "cat .ssh/*", key=private)


def test_keys_of_a_text_with_commas_and_of_a_file_are_taken(
    main_vps_place: Place, controller: Path, tmp_path: Path
) -> None:
    bob = make_key(tmp_path, "bob")
    options = f'from="127.0.0.0/8,172.16.0.0/12,192.168.0.0/16",no-pty {main_vps_place.public_key}'
    first = have(controller, main_vps_place, authorized_keys=options, key_file=f"{bob}.pub").succeeded()
    machine = first.result(TASK)["vps"]
    assert machine["host"] == "localhost"
    assert main_vps_place.ssh(machine, "wc -l < .ssh/authorized_keys", key=bob) == "3\n"
    assert main_vps_place.ssh(machine, "true") == ""
    assert "key_file" in have(controller, main_vps_place, key_file=f"{tmp_path}/nobody.pub").failed()


@pytest.mark.parametrize("option", ["key_file", "authorized_keys"])
def test_a_private_key_given_by_mistake_does_not_leave_the_controller(
    controller: Path, tmp_path: Path, option: str
) -> None:
    private = make_key(tmp_path)
    given = str(private) if option == "key_file" else f"{{{{ lookup('ansible.builtin.file', '{private}') }}}}"
    step = {"name": TASK, "haku.river.haku_vps": {"vps": "alice", "name": "nowhere", option: given}}
    run_ = run_play(controller, "localhost", [step], "-vvvv")
    assert "has a private key. Give the public one" in run_.failed()
    assert private.read_text().splitlines()[1] not in run_.printed
    assert "invocation" not in run_.result(TASK)


def test_the_short_names_work_in_a_checkout(main_vps_place: Place, controller: Path) -> None:
    task = {
        "name": TASK,
        "haku_vps": {"vps": main_vps_place.vps, "name": "nowhere", "key_file": f"{main_vps_place.key}.pub"},
    }
    assert "There is no image hakuriver/nowhere:base" in run_play(controller, "localhost", [task]).failed()


# The playbooks


@pytest.fixture
def project(machines: dict[str, Machine], inventory: Path, tmp_path: Path) -> Iterator[Project]:
    """Give a user's directory, and machines without environments and VPS."""
    (tmp_path / "inventory.ini").write_text(inventory.read_text())
    project = Project(tmp_path, machines)
    _clean(project)
    yield project
    _clean(project)


def _clean(project: Project) -> None:
    for machine in project.machines.values():
        for container in machine.docker("ps", "--all", "--quiet", "--filter", "name=^haku-vps-").split():
            machine.docker("rm", "--force", "--volumes", container)
    project.clean()


def test_from_the_base_image_to_a_machine_in_which_the_next_play_installs(
    project: Project, local_packages: Packages, tmp_path: Path
) -> None:
    source = MACHINES.shared / "packages/lab.list"
    source.write_text(local_packages.apt_source + "\n")
    lists = [
        f"{local_packages.folder}:{local_packages.folder}:ro",
        f"{local_packages.folder / source.name}:/etc/apt/sources.list:ro",
    ]
    environment = {
        "name": "haku-playbooks-ssh",
        "image": images.provide(images.SSH, project.machines["node1"]),
        "pull": "never",
        "volumes": lists,
        "packages": [HELLO],
        "vps": True,
    }
    known_hosts = tmp_path / "known_hosts"
    common = {
        "haku_vps_known_hosts": str(known_hosts),
        "haku_vps_port_range": "22100-22101",
        "haku_prepare": False,
    }
    alice = {
        "vps": "alice",
        "name": environment["name"],
        "runner": "node2",
        "generate_key": "keys/alice",
        "memory": "512M",
        "volumes": lists,
        "tasks_file": "alice.yml",
    }
    (tmp_path / "alice.yml").write_text(INSIDE)
    project.declare(environment, haku_vps=[alice], **common)

    forecast = project.run("vps_site", "--check").succeeded()
    assert "Not packaged yet" in forecast.printed
    first = project.run("vps_site").succeeded()
    machine = first.result("Have each machine as it is declared", "node2")["results"][0]["vps"]
    assert machine["port"] == 22100
    assert machine["host"] == project.machines["node2"].address
    assert known_hosts.read_text().strip() == machine["known_hosts"]
    assert ("Write inside", "alice@node2") in first.changed
    assert f"ssh -p 22100 root@{machine['host']}" in first.printed
    assert project.run("haku.river.vps_site").succeeded().changed == []
    assert project.run("vps", "--check").succeeded().changed == []

    # What a user's own playbook does next.
    playbook = tmp_path / "mine.yml"
    playbook.write_text(PLAYBOOK)
    own = run_playbook(playbook, project.inventory).succeeded()
    assert own.changed == [("Remove", "alice@node2"), ("Install", "alice@node2")]
    private = tmp_path / "keys/alice"
    ssh = ("ssh", "-F/dev/null", f"-i{private}", f"-oUserKnownHostsFile={known_hosts}", "-oBatchMode=yes")
    place = ("-p22100", f"root@{machine['host']}")
    assert run(*ssh, "-oStrictHostKeyChecking=yes", *place, f"{HELLO}; cat inside") == f"{HELLO} 1.0\nalice@node2"

    # A second one, on another Runner, while the first stays as it is.
    bob = {"vps": "bob", "name": environment["name"], "runner": "node3", "key_file": "keys/alice.pub", "port": 22000}
    project.declare(environment, haku_vps=[alice, {**bob, "address": "127.0.0.1"}], **common)
    second = run_playbook(playbook, project.inventory).succeeded()
    assert second.result("Install")["changed"] is True
    assert [machine for task, machine in second.changed if task not in ("Remove", "Install")] == ["node3"]
    # The second one is reached through its Runner only, which is no business of plays.
    assert f"ssh -J {project.machines['node3'].address} -p 22000 root@127.0.0.1" in second.printed
    assert known_hosts.read_text().strip() == machine["known_hosts"]
    project.declare(environment, haku_vps=[{**bob, "packages": ["jq"]}], **common)
    assert "bob answers at 127.0.0.1 of node3 only" in project.run("vps").failed()
    project.declare(environment, haku_vps=[{**alice, "state": "absent"}], **common)
    project.run("vps").succeeded()
    assert "haku-vps-" not in project.machines["node2"].docker("ps", "--all", "--format", "{{.Names}}")


def test_the_documentations_example_without_the_playbook_works_as_it_stands(
    project: Project, machines: dict[str, Machine], tmp_path: Path
) -> None:
    """With another home for the user, whose `ssh` looks for known hosts in the true one unless it is told."""
    page = (CHECKOUT / "docs/vps.md").read_text()
    example = page.partition("Or without the playbook, by the module alone:")[2].split("```")[1].removeprefix("yaml\n")
    (tmp_path / "example.yml").write_text(example)
    name = "python-data-science"
    there = {
        **dict(
            line.split("=", 1) for line in project.inventory.read_text().splitlines() if line.startswith("ansible_")
        ),
        "ansible_host": machines["node2"].address,
    }
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"gpu01": there}}}))
    (MACHINES.shared / "hakuriver-containers").mkdir()
    container = {"name": name, "image": images.provide(images.SSH, machines["node1"]), "pull": "never"}
    steps = [{"haku.river.haku_container": container}, {"haku.river.haku_tar": {"name": name, "shared_dir": "/shared"}}]
    known = f"-oUserKnownHostsFile={tmp_path}/.ssh/known_hosts -oStrictHostKeyChecking=yes"
    # Without connections that are kept, whose sockets would lie too deep in that home.
    home = {"HOME": str(tmp_path), "ANSIBLE_SSH_COMMON_ARGS": known, "ANSIBLE_SSH_ARGS": "-C"}
    try:
        run_play(project.inventory, "node1", steps).succeeded()
        first = run_playbook(tmp_path / "example.yml", inventory, environment=home).succeeded()
        assert first.result("See that it answers", "builder")["ping"] == "pong"
        second = run_playbook(tmp_path / "example.yml", inventory, environment=home).succeeded()
        assert [task for task, _machine in second.changed] in ([], ["Have the next play work on it"])
    finally:
        for machine in (machines["node1"], machines["node2"]):
            machine.docker("rm", "--force", "--volumes", name, "haku-vps-builder")
            for image in machine.docker("images", "--quiet", f"hakuriver/{name}").split():
                machine.docker("rmi", "--force", image)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([{"vps": "a", "name": "b"}], "missing required arguments: runner"),
        ([{"vps": "a", "name": "b", "runner": "node2", "kyes": []}], "kyes"),
        ([{"vps": "a", "name": "b", "runner": "node9"}], "does not have node9"),
        ([{"vps": "a", "name": "b", "runner": "node2"}] * 2, "may be there once for each Runner"),
        ([{**LOOPBACK, "packages": ["jq"]}], "a answers at 127.0.0.1 of node2 only"),
        ("none", "haku_vps"),
    ],
    ids=["no runner", "unknown key", "unknown runner", "name twice", "out of reach", "no list"],
)
def test_a_wrong_declaration_is_refused_before_anything_is_done(project: Project, declared: Any, words: str) -> None:
    project.declare(haku_vps=declared)
    assert words in project.run("vps").failed()


def test_a_limit_that_leaves_the_machines_out_is_refused(project: Project) -> None:
    project.declare(haku_vps=[])
    assert "Use --limit haku_runners,haku_river_vps" in project.run("vps", "--limit=haku_runners").failed()
