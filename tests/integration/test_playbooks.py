# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks, from declarations to the Runners: a Host and two Runners over SSH."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.project import ENVIRONMENT, Project
from tests.lab import images
from tests.lab.machines import MACHINES
from tests.lab.packages import NAME as HELLO, Packages

PLAYBOOKS = ("create", "customize", "package", "distribute")
BARE = images.debian("haku-lab/debian:bare", ("ca-certificates",), "bash")
"""Debian without Python."""

ROLE = """
- name: Become somebody
  ansible.builtin.command: id -un
  become: true
  become_user: nobody
  changed_when: false
  check_mode: false
  register: somebody

- name: Write who that is
  ansible.builtin.copy:
    content: "{{ somebody.stdout }} on {{ ansible_facts.distribution }}\\n"
    dest: /etc/from-the-role
    mode: "0644"
  notify: Write what a handler has done
"""
HANDLER = """
- name: Write what a handler has done
  ansible.builtin.copy:
    content: "handled\\n"
    dest: /etc/from-the-handler
    mode: "0644"
"""
TASKS = """
- name: Write from the tasks file
  ansible.builtin.copy:
    content: "tasks of {{ inventory_hostname }}\\n"
    dest: /etc/from-the-tasks
    mode: "0644"
"""


@pytest.fixture
def project(project: Project) -> Project:
    """Give a project without declarations, with a role and a file of tasks."""
    (project.folder / "roles/somebody/tasks").mkdir(parents=True)
    (project.folder / "roles/somebody/tasks/main.yml").write_text(ROLE)
    (project.folder / "roles/somebody/handlers").mkdir()
    (project.folder / "roles/somebody/handlers/main.yml").write_text(HANDLER)
    (project.folder / "envs").mkdir()
    (project.folder / "envs/tasks.yml").write_text(TASKS)
    return project


@pytest.fixture
def declared(project: Project, local_packages: Packages) -> Project:
    """Give a project with an environment that uses every kind of customising, on an image with Python and apt."""
    source = MACHINES.shared / "packages/lab.list"
    source.write_text(local_packages.apt_source + "\n")
    project.declare(
        {
            "name": ENVIRONMENT,
            "image": images.provide(images.PYTHON, project.machines["node1"]),
            "pull": "never",
            "env": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(local_packages.folder)},
            "volumes": [
                f"{local_packages.folder}:{local_packages.folder}:ro",
                f"{local_packages.folder / source.name}:/etc/apt/sources.list:ro",
            ],
            "memory": "1G",
            "packages": [HELLO],
            "pip": [HELLO],
            "pip_break_system_packages": True,
            "roles": ["somebody"],
            "tasks_file": "envs/tasks.yml",
        },
        {
            "name": f"{ENVIRONMENT}-plain",
            "image": images.provide(images.BUSYBOX, project.machines["node1"]),
            "pull": "never",
        },
    )
    return project


def test_each_playbook_does_what_its_check_said_and_nothing_the_second_time(as_files: None, declared: Project) -> None:
    for playbook in PLAYBOOKS:
        forecast = declared.run(playbook, "--check", "--diff").succeeded()
        first = declared.run(playbook).succeeded()
        second = declared.run(playbook).succeeded()
        assert first.changed, playbook
        assert forecast.changed == first.changed, playbook
        assert second.changed == [], playbook

    script = f"{HELLO}; python3 -c 'import {HELLO.replace('-', '_')}'; cat /etc/from-the-*"
    for runner in ("node2", "node3"):
        image = f"hakuriver/{ENVIRONMENT}:base"
        output = declared.machines[runner].docker("run", "--rm", "--network", "none", image, "sh", "-c", script)
        assert output.splitlines() == [
            f"{HELLO} 1.0",
            "handled",
            "nobody on Debian",
            f"tasks of {ENVIRONMENT}@node1",
        ]

    # All of them together, and their check, have nothing to do then, and leave no traces that would be packaged.
    site = ("haku.river.site", "--extra-vars=haku_prepare=false")
    assert declared.run(*site).succeeded().changed == []
    assert declared.run(*site, "--check").succeeded().changed == []
    left = declared.machines["node1"].docker("diff", ENVIRONMENT)
    assert ".ansible" not in left


def test_what_is_half_customised_is_not_packaged(project: Project) -> None:
    failing = [{"name": "Do half of it", "ansible.builtin.raw": "touch /half"}, {"ansible.builtin.fail": {"msg": "No"}}]
    (project.folder / "envs/failing.yml").write_text(json.dumps(failing))
    usual = {"image": images.provide(images.PYTHON, project.machines["node1"]), "pull": "never"}
    bad, good = f"{ENVIRONMENT}-bad", f"{ENVIRONMENT}-good"
    project.declare(
        {"name": bad, **usual, "tasks_file": "envs/failing.yml"},
        {"name": good, **usual, "tasks_file": "envs/tasks.yml"},
    )
    run = project.run("site", "--extra-vars=haku_prepare=false")
    assert run.code != 0
    assert any(f"Not customised: {bad}. " in complaint for complaint in run.complaints)
    assert not list((MACHINES.shared / "hakuriver-containers").glob("*.tar"))


def test_a_check_on_empty_machines_says_what_it_leaves_out(declared: Project) -> None:
    run = declared.run("site", "--check").succeeded()
    assert {task for task, _machine in run.changed} == {
        "Create the directory of tarballs",
        "Create and start the environments' containers",
    }
    assert "Not created yet" in run.printed
    assert "Not packaged yet" in run.printed


def test_an_image_without_python_gets_it(project: Project) -> None:
    image = images.provide(BARE, project.machines["node1"])
    project.declare({"name": ENVIRONMENT, "image": image, "pull": "never", "tasks_file": "envs/tasks.yml"})
    project.run("create").succeeded()
    bootstrap = ("Install what Ansible's modules need", f"{ENVIRONMENT}@node1")
    assert project.run("customize", "--check").succeeded().changed == [bootstrap]
    first = project.run("customize").succeeded()
    assert first.changed == [bootstrap, ("Write from the tasks file", f"{ENVIRONMENT}@node1")]
    assert project.run("customize").succeeded().changed == []


def test_an_environment_for_ssh_is_prepared_for_it_after_all_else(project: Project) -> None:
    image = images.provide(images.PYTHON, project.machines["node1"])
    tasks = {"tasks_file": "envs/tasks.yml"}
    project.declare({"name": ENVIRONMENT, "image": image, "pull": "never", "vps": True, **tasks})
    project.run("create").succeeded()
    forecast = project.run("customize", "--check").succeeded()
    first = project.run("customize").succeeded()
    assert forecast.changed == first.changed
    steps = [task for task, _machine in first.changed]
    assert steps[0] == "Write from the tasks file"
    assert "Install the SSH server" in steps[1:]
    assert project.run("customize").succeeded().changed == []


def test_a_stopped_environment_is_started_to_be_customised(declared: Project) -> None:
    declared.run("create").succeeded()
    declared.machines["node1"].docker("stop", ENVIRONMENT)
    started = ("Start those that are to be customised", "node1")
    check = declared.run("customize", "--check").succeeded()
    assert check.changed == [started]
    assert "Not running yet" in check.printed
    assert started in declared.run("customize").succeeded().changed


def test_some_environments_can_be_chosen(declared: Project) -> None:
    run = declared.run("create", f"--extra-vars=haku_only={ENVIRONMENT}-plain").succeeded()
    assert run.changed
    names = declared.machines["node1"].docker("ps", "--format", "{{.Names}}")
    assert names.split() == [f"{ENVIRONMENT}-plain"]
    assert "haku_only: nobody" in declared.run("create", "--extra-vars=haku_only=nobody").failed()


@pytest.mark.parametrize(
    ("environments", "words"),
    [
        ([{"name": "a", "image": "b", "packges": ["c"]}], ["packges", "Supported parameters"]),
        ([{"name": "a"}], ["missing required arguments: image"]),
        ([{"name": "a", "image": "b"}, {"name": "a", "image": "c"}], ["each name may be there once"]),
        ([{"name": "a", "image": "b", "restart_policy": "sometimes"}], ["restart_policy", "unless-stopped"]),
        ("none", ["haku_environments"]),
    ],
    ids=["unknown key", "no image", "name twice", "no such choice", "no list"],
)
def test_a_wrong_declaration_is_refused_before_anything_is_done(
    project: Project, environments: Any, words: list[str]
) -> None:
    variables = json.dumps({"haku_environments": environments})
    complaint = project.run("create", f"--extra-vars={variables}").failed()
    for word in words:
        assert word in complaint
    assert not (MACHINES.shared / "hakuriver-containers").exists()


def test_nothing_declared_is_refused(project: Project) -> None:
    assert "haku_environments" in project.run("site").failed()


def test_a_shared_directory_that_is_not_there_is_not_made(declared: Project) -> None:
    complaint = declared.run("create", "--extra-vars=haku_shared_dir=/not-mounted").failed()
    assert "no directory /not-mounted on node1" in complaint
    assert not declared.machines["node1"].succeeds("test", "-e", "/not-mounted")


def test_an_inventory_without_one_host_or_without_runners_is_refused(project: Project) -> None:
    lines = project.inventory.read_text().splitlines()
    project.inventory.write_text("\n".join(line for line in lines if not line.startswith("node1 ")))
    assert "exactly one machine, and has 0" in project.run("create").failed()
    project.inventory.write_text("\n".join(lines).replace("[haku_runners]", ""))
    assert "exactly one machine, and has 3" in project.run("package").failed()
    assert "haku_runners has no machine" in project.run("distribute").failed()


def test_an_environment_that_was_not_created_or_packaged_is_told(declared: Project) -> None:
    assert "Run haku.river.create first" in declared.run("customize").failed()
    assert "Run haku.river.create first" in declared.run("package").failed()
    (MACHINES.shared / "hakuriver-containers").mkdir()
    run = declared.run("distribute")
    assert run.code != 0
    said = {machine: result["msg"] for task, machine, result in run.results() if task == "Say what went wrong"}
    assert set(said) == {"node2", "node3"}
    for sentence in said.values():
        for name in (ENVIRONMENT, f"{ENVIRONMENT}-plain"):
            assert f"There is no tarball of {name} in /shared/hakuriver-containers" in sentence


def test_a_limit_that_leaves_the_environments_out_is_refused(declared: Project) -> None:
    declared.run("create", "--limit=haku_host").succeeded()
    assert "haku_only" in declared.run("customize", "--limit=haku_host").failed()
    run = declared.run("customize", "--limit=haku_host,haku_river_containers").succeeded()
    assert run.changed
