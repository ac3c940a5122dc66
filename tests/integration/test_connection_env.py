# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection plugin haku.river.env: tasks inside a container, of a Host over SSH and of the controller's engine."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.people import PASSWORD, operator
from tests.integration.plays import Run, run_play
from tests.lab import images
from tests.lab.engines import Engine
from tests.lab.host import PREFIX
from tests.lab.images import Docker
from tests.lab.machines import Machine

pytestmark = pytest.mark.usefixtures("as_files")

CONTAINER = f"{PREFIX}-connection"
PART = 4 * 2**20
"""What one command of the plugin carries."""
AWKWARD = 'it\'s "quoted" $HOME `id` \\n ü 漢\ttab\nline two; rm -rf / & * ~ %s'


@dataclass(frozen=True)
class Place:
    """A running container, and an inventory in which it is the machine `inside`.

    `arguments` are those of `ansible-playbook`.
    """

    inventory: Path
    docker: Docker
    arguments: tuple[str, ...] = ()

    def play(self, *tasks: dict[str, Any], **variables: Any) -> Run:
        """Run tasks inside the container; `variables` are those of the play."""
        return run_play(self.inventory, "inside", tasks, *self.arguments, vars=variables)

    def inside(self, command: str) -> str:
        """Run a shell command in the container without the plugin."""
        return self.docker.docker("exec", CONTAINER, "sh", "-c", command)


def write_inventory(folder: Path, host: str) -> Path:
    """Write an inventory with the Host (its line, of which `the_host` is the name) and the container."""
    inventory = folder / "inventory.ini"
    inventory.write_text(
        f"[haku_host]\n{host}\n\n"
        "[containers]\ninside\n\n"
        "[containers:vars]\n"
        "ansible_connection=haku.river.env\n"
        f"ansible_haku_container={CONTAINER}\n"
        "ansible_haku_via=\"{{ hostvars['the_host'] | haku.river.connection_variables }}\"\n"
        "ansible_python_interpreter=/usr/bin/python3\n"
    )
    return inventory


def ssh_line(machine: Machine, inventory: Path, **others: str) -> str:
    """Write a machine's line with all that the lab's inventory says of its connection."""
    settings = dict(line.split("=", 1) for line in inventory.read_text().splitlines() if line.startswith("ansible_"))
    settings.update(ansible_host=machine.address, **others)
    return " ".join(["the_host", *(f'{name}="{value}"' for name, value in settings.items())])


@pytest.fixture(scope="module")
def host(machines: dict[str, Machine]) -> Iterator[Machine]:
    """Give the machine that has the container."""
    machine = machines["node1"]
    yield from with_container(machine, machine)


@pytest.fixture(scope="module")
def own(main_engine: Engine) -> Iterator[Engine]:
    """Give the controller's own engine, which has the container."""
    yield from with_container(main_engine, main_engine)


def with_container(engine: Any, given: Any) -> Iterator[Any]:
    """Have the container run on an engine while the block lasts."""
    image = images.provide(images.PYTHON, engine)
    engine.docker("run", "--detach", "--init", "--name", CONTAINER, "--network", "none", image, "sleep", "infinity")
    yield given
    engine.docker("rm", "--force", "--volumes", CONTAINER)


@pytest.fixture
def over_ssh(host: Machine, inventory: Path, tmp_path: Path) -> Place:
    """Give the container on a Host that SSH reaches."""
    return Place(write_inventory(tmp_path, ssh_line(host, inventory)), host)


@pytest.fixture(params=["ssh", "local"])
def place(request: pytest.FixtureRequest, over_ssh: Place, own: Engine, tmp_path: Path) -> Place:
    """Give the container; the test runs once over SSH and once on the controller itself."""
    if request.param == "ssh":
        return over_ssh
    return Place(write_inventory(tmp_path, "the_host ansible_connection=local"), own)


def test_arguments_arrive_as_they_are(place: Place) -> None:
    command = {"argv": ["printf", "%s", AWKWARD], "expand_argument_vars": False}
    run = place.play({"name": "echo", "ansible.builtin.command": command}).succeeded()
    assert run.result("echo")["stdout"] == AWKWARD


def test_output_errors_and_exit_code_come_back_apart(place: Place) -> None:
    script = {"name": "speak", "ansible.builtin.raw": "echo one; echo two >&2; exit 7", "failed_when": False}
    result = place.play(script).succeeded().result("speak")
    assert (result["rc"], result["stdout"]) == (7, "one\n")
    assert result["stderr"].splitlines()[-1] == "two"


def test_a_command_that_reads_its_input_ends(place: Place) -> None:
    result = place.play({"name": "read", "ansible.builtin.raw": "cat; echo end"}).succeeded().result("read")
    assert result["stdout"] == "end\n"


def test_facts_are_those_of_the_container(place: Place) -> None:
    result = place.play({"name": "facts", "ansible.builtin.setup": {"gather_subset": ["!all", "min"]}}).result("facts")
    assert result["ansible_facts"]["ansible_hostname"] == place.inside("hostname").strip()


def test_binary_files_go_in_and_come_back(place: Place, tmp_path: Path) -> None:
    sizes = {"empty": 0, "one part": PART, "parts": PART + 1}
    folder = '/tmp/it\'s "quoted" ü $x'
    tasks: list[dict[str, Any]] = [{"name": "folder", "ansible.builtin.file": {"path": folder, "state": "directory"}}]
    for name, size in sizes.items():
        source, target = tmp_path / f"{name} ü.bin", f"{folder}/{name}"
        source.write_bytes(os.urandom(size))
        copy = {"ansible.builtin.copy": {"src": str(source), "dest": target, "mode": "0640"}}
        back = {"src": target, "dest": f"{tmp_path}/{name}.back", "flat": True}
        tasks += [
            {"name": f"{name} in", **copy},
            {"name": f"{name} there", "ansible.builtin.stat": {"path": target}},
            {"name": f"{name} back", "ansible.builtin.fetch": back},
        ]
    run = place.play(*tasks).succeeded()
    for name, size in sizes.items():
        content = (tmp_path / f"{name} ü.bin").read_bytes()
        there = run.result(f"{name} there")["stat"]
        assert (there["size"], there["mode"], there["pw_name"]) == (size, "0640", "root")
        assert there["checksum"] == hashlib.sha1(content).hexdigest()
        assert (tmp_path / f"{name}.back").read_bytes() == content


def test_modules_work_without_pipelining(place: Place) -> None:
    copy = {"ansible.builtin.copy": {"content": "ü\n", "dest": "/unpipelined", "mode": "0600"}}
    run = place.play({"name": "first", **copy}, {"name": "second", **copy}, ansible_pipelining=False).succeeded()
    assert (run.result("first")["changed"], run.result("second")["changed"]) == (True, False)


def test_a_large_file_takes_little_memory(over_ssh: Place, tmp_path: Path) -> None:
    source, back = tmp_path / "large.bin", tmp_path / "back.bin"
    with source.open("wb") as file:
        file.truncate(300 * 2**20)
        file.write(os.urandom(2**20))
    run = over_ssh.play(
        {"name": "put", "ansible.builtin.copy": {"src": str(source), "dest": "/large.bin", "mode": "0600"}},
        {"name": "get", "ansible.builtin.fetch": {"src": "/large.bin", "dest": str(back), "flat": True}},
        {"name": "gone", "ansible.builtin.file": {"path": "/large.bin", "state": "absent"}},
    ).succeeded()
    assert run.result("get")["checksum"] == run.result("put")["checksum"]
    assert run.memory_bytes < 160 * 2**20


def test_a_file_that_cannot_be_written_says_why(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    task = {"name": "put", "ansible.builtin.copy": {"src": str(tmp_path / "file"), "dest": "/tmp/x", "mode": "0600"}}
    complaint = place.play(task, ansible_remote_tmp="/proc/nowhere").failed()
    assert "/proc/nowhere" in complaint


def test_templates_scripts_and_background_jobs_work(place: Place, tmp_path: Path) -> None:
    (tmp_path / "hello.j2").write_text("hello {{ word }}\n")
    (tmp_path / "script.sh").write_text('#!/bin/sh\necho "got $1"\n')
    run = place.play(
        {
            "name": "template",
            "ansible.builtin.template": {"src": str(tmp_path / "hello.j2"), "dest": "/t", "mode": "0644"},
        },
        {"name": "script", "ansible.builtin.script": f"{tmp_path}/script.sh 'a b'"},
        {"name": "async", "ansible.builtin.command": "echo done", "async": 30, "poll": 1},
        word=AWKWARD,
    ).succeeded()
    assert place.inside("cat /t") == f"hello {AWKWARD}\n"
    assert run.result("script")["stdout"] == "got a b\n"
    assert run.result("async")["stdout"] == "done"


def test_the_user_can_be_chosen(place: Place) -> None:
    run = place.play({"name": "who", "ansible.builtin.raw": "id -un"}, ansible_haku_user="nobody")
    assert run.succeeded().result("who")["stdout"] == "nobody\n"


def test_root_becomes_another_user(place: Place) -> None:
    who = {"name": "who", "ansible.builtin.command": "id -un", "become": True, "become_user": "nobody"}
    su = {"ansible_become_method": "ansible.builtin.su", "ansible_become_flags": "-s /bin/sh"}
    assert place.play(who, **su).succeeded().result("who")["stdout"] == "nobody"


def test_a_user_becomes_root_by_password(place: Place) -> None:
    place.inside(f"echo root:{PASSWORD} | chpasswd; id tester 2>/dev/null || useradd --create-home tester")
    who = {"name": "who", "ansible.builtin.command": "id -un", "become": True}
    settings = {"ansible_haku_user": "tester", "ansible_become_method": "ansible.builtin.su"}
    run = place.play(who, **settings, ansible_become_password=PASSWORD)
    assert run.succeeded().result("who")["stdout"] == "root"
    refused = place.play(who, **settings, ansible_become_password="wrong")
    assert refused.code != 0
    # The first is what the ssh connection makes of it, the second are the words of su.
    assert "Incorrect su password" in refused.printed or "Authentication failure" in refused.printed


@pytest.fixture
def unprivileged(host: Machine) -> Iterator[str]:
    """Give a user of the Host who may use the engine only by sudo, with a password."""
    with operator(host) as user:
        yield user


def test_the_host_may_need_become_with_a_password(
    host: Machine, unprivileged: str, inventory: Path, tmp_path: Path
) -> None:
    settings = {"ansible_user": unprivileged, "ansible_become": "true", "ansible_become_password": PASSWORD}
    place = Place(write_inventory(tmp_path, ssh_line(host, inventory, **settings)), host, ("-vvvvv",))
    (tmp_path / "file").write_bytes(os.urandom(9 * 2**20))
    run = place.play(
        {"name": "who", "ansible.builtin.command": "id -un"},
        {"name": "put", "ansible.builtin.copy": {"src": str(tmp_path / "file"), "dest": "/f", "mode": "0600"}},
        {"name": "get", "ansible.builtin.fetch": {"src": "/f", "dest": str(tmp_path / "back"), "flat": True}},
    ).succeeded()
    assert run.result("who")["stdout"] == "root"
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert PASSWORD not in run.printed


def test_a_user_who_may_not_use_the_engine_is_told_so(
    host: Machine, unprivileged: str, inventory: Path, tmp_path: Path
) -> None:
    place = Place(write_inventory(tmp_path, ssh_line(host, inventory, ansible_user=unprivileged)), host)
    complaint = place.play({"name": "who", "ansible.builtin.raw": "id"}).failed()
    assert "does not reach an engine" in complaint
    assert "permission denied" in complaint.lower()
    assert "ansible_become" in complaint


def test_a_container_that_does_not_run_is_told_with_the_remedy(place: Place) -> None:
    who = {"name": "who", "ansible.builtin.command": "id"}
    place.docker.docker("stop", "--time=1", CONTAINER)
    try:
        complaint = place.play(who).failed()
    finally:
        place.docker.docker("start", CONTAINER)
    assert f"env container {CONTAINER} on the_host is exited" in complaint
    assert "state=started" in complaint
    place.docker.docker("pause", CONTAINER)
    try:
        complaint = place.play(who).failed()
    finally:
        place.docker.docker("unpause", CONTAINER)
    assert "is paused" in complaint


def test_no_such_container_no_engine_no_user_and_no_name(place: Place) -> None:
    who = {"name": "who", "ansible.builtin.raw": "id"}
    assert (
        "There is no env container haku-none on the_host"
        in place.play(who, ansible_haku_container="haku-none").failed()
    )
    assert "does not reach an engine" in place.play(who, ansible_haku_docker_command=["no-such-docker"]).failed()
    assert "has no user haku-nobody" in place.play(who, ansible_haku_user="haku-nobody").failed()
    assert "cannot be a container" in place.play(who, ansible_haku_container="-v /:/x").failed()


def test_a_command_that_fails_in_the_engines_words_is_a_failed_task(place: Place) -> None:
    script = {"name": "lie", "ansible.builtin.raw": "echo 'Error response from daemon: is not running' >&2; exit 1"}
    run = place.play({**script, "failed_when": False}).succeeded()
    assert run.result("lie")["rc"] == 1


def test_tasks_can_be_delegated_to_the_host_and_the_controller(over_ssh: Place, host: Machine) -> None:
    name = {"ansible.builtin.command": "hostname"}
    run = over_ssh.play(
        {"name": "host", **name, "delegate_to": "the_host"}, {"name": "controller", **name, "delegate_to": "localhost"}
    ).succeeded()
    assert run.result("host")["stdout"] == host.name
    assert run.result("controller")["stdout"] == os.uname().nodename


def test_a_file_of_the_container_keeps_its_mode_when_rewritten(place: Place, tmp_path: Path) -> None:
    place.inside("echo old >/kept; chmod 600 /kept")
    place.play(
        {"name": "rewrite", "ansible.builtin.copy": {"content": "new\n", "dest": "/kept"}},
        {"name": "get", "ansible.builtin.fetch": {"src": "/kept", "dest": f"{tmp_path}/kept", "flat": True}},
    ).succeeded()
    assert place.inside("cat /kept; stat -c %a /kept") == "new\n600\n"
    assert stat.S_ISREG((tmp_path / "kept").stat().st_mode)
