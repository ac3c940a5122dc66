# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks on Runners over SSH: the playbook, and runs, connections and engines that are gone in the middle of a task."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plays import CHECKOUT, Run, run_play, run_playbook
from tests.integration.task.tasks import HOSTILE
from tests.lab import images
from tests.lab.host import wait_until
from tests.lab.machines import MACHINES, Machine

ENVIRONMENT = "haku-tasks"
SCRIPT = """\
import numpy, pandas

table = pandas.DataFrame({"x": numpy.arange(5)})
print(table.x.mean())
"""


@dataclass(frozen=True)
class Runner:
    """A machine of the group haku_runners, and how to run tasks on it."""

    machine: Machine
    inventory: Path

    def run(self, command: Any, *arguments: str, **more: Any) -> Run:
        """Run one task by a play of its own."""
        return run_play(self.inventory, self.machine.name, [self.step(command, **more)], *arguments)

    @staticmethod
    def step(command: Any, **more: Any) -> dict[str, Any]:
        options = {"name": ENVIRONMENT, "shared_dir": "/shared", "command": command, **more}
        return {"name": "Run it", "haku.river.haku_task": options}

    @property
    def containers(self) -> list[str]:
        return self.machine.docker("ps", "--all", "--quiet", "--filter", "label=haku.river.task").split()

    def wait_for_a_container(self) -> None:
        running = ("ps", "--quiet", "--filter", "label=haku.river.task")
        wait_until(lambda: bool(self.machine.docker(*running)), "the task to run")

    def wait_for_no_container(self) -> None:
        wait_until(lambda: not self.containers, "the task's container to be removed")

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in MACHINES.shared.glob("task_records/*.json")]

    def wait_for_outcome(self) -> str:
        wait_until(lambda: any(record["outcome"] for record in self.records), "the task's record")
        (record,) = self.records
        return str(record["outcome"])


@pytest.fixture
def runner(machines: dict[str, Machine], inventory: Path) -> Iterator[Runner]:
    """Give a Runner, and an environment that is packaged."""
    host, runner = machines["node1"], Runner(machines["node2"], inventory)
    _clean(machines)
    (MACHINES.shared / "hakuriver-containers").mkdir()
    image = images.provide(images.BUSYBOX, host)
    container = {"name": ENVIRONMENT, "image": image, "pull": "never"}
    tarball = {"name": ENVIRONMENT, "shared_dir": "/shared"}
    steps = [{"haku.river.haku_container": container}, {"haku.river.haku_tar": tarball}]
    run_play(inventory, "node1", steps).succeeded()
    yield runner
    _clean(machines)


def _clean(machines: dict[str, Machine]) -> None:
    for machine in machines.values():
        mine = ("--filter", f"name=^{ENVIRONMENT}", "--filter", "label=haku.river.task")
        for condition in (mine[:2], mine[2:]):
            for container in machine.docker("ps", "--all", "--quiet", *condition).split():
                machine.docker("rm", "--force", "--volumes", container)
        for image in machine.docker("images", "--quiet", f"hakuriver/{ENVIRONMENT}*").split():
            machine.docker("rmi", "--force", image)
    for folder in ("hakuriver-containers", "task_outputs", "task_errors", "task_records", "projects"):
        shutil.rmtree(MACHINES.shared / folder, ignore_errors=True)


def test_the_example_of_the_documentation_works(runner: Runner, machines: dict[str, Machine]) -> None:
    """Numpy and pandas come from PyPI; the script is in the shared directory, and its output ends up there."""
    image = images.provide(images.PYTHON, machines["node1"])
    declared = {"name": f"{ENVIRONMENT}-science", "image": image, "pull": "never", "pip": ["numpy", "pandas"]}
    variables = {"haku_environments": [{**declared, "pip_break_system_packages": True}]}
    run_playbook("haku.river.site", runner.inventory, f"--extra-vars={json.dumps(variables)}").succeeded()
    (MACHINES.shared / "projects").mkdir()
    (MACHINES.shared / "projects/mean.py").write_text(SCRIPT)
    asked = {
        "haku_task_runners": "node2",
        "haku_task_environment": f"{ENVIRONMENT}-science",
        "haku_task_command": "python3 /shared/projects/mean.py",
        "haku_task_memory": "1G",
    }
    run = run_playbook("haku.river.task", runner.inventory, f"--extra-vars={json.dumps(asked)}").succeeded()
    (output,) = MACHINES.shared.glob("task_outputs/*.out")
    assert output.read_text() == "2.0\n"
    assert run.result("Show what it wrote")["msg"] == ["2.0"]
    assert runner.containers == []


def test_the_playbook_says_what_it_needs(runner: Runner) -> None:
    nothing = run_playbook("haku.river.task", runner.inventory, "--extra-vars=haku_task_runners=node2")
    assert "Set haku_task_environment" in nothing.failed()
    nowhere = run_playbook("haku.river.task", runner.inventory, "--extra-vars=haku_task_runners=nobody")
    assert "no machine nobody" in nowhere.failed()


def test_the_playbook_runs_on_every_runner_and_its_check_runs_nothing(runner: Runner) -> None:
    asked = json.dumps({"haku_task_environment": ENVIRONMENT, "haku_task_command": ["hostname"]})
    check = run_playbook("haku.river.task", runner.inventory, "--check", f"--extra-vars={asked}").succeeded()
    assert not (MACHINES.shared / "task_outputs").exists()
    run = run_playbook("haku.river.task", runner.inventory, f"--extra-vars={asked}").succeeded()
    assert check.changed == run.changed
    assert sorted(machine for _task, machine in run.changed) == ["node2", "node3"]
    outputs = {path.read_text() for path in MACHINES.shared.glob("task_outputs/*.out")}
    assert len(outputs) == 2


def test_the_playbook_shows_both_streams_of_a_command_that_fails(runner: Runner) -> None:
    asked = {
        "haku_task_runners": "node2",
        "haku_task_environment": ENVIRONMENT,
        "haku_task_command": "echo found; echo 123456 >&2; ls /shared; exit 3",
        "haku_task_id": "failing",
        "haku_task_output": "tail",
        "haku_task_output_bytes": 6,
        "haku_task_mount_shared_dir": False,
        "haku_task_init": False,
        "haku_task_stop_timeout": 1,
    }
    run = run_playbook("haku.river.task", runner.inventory, f"--extra-vars={json.dumps(asked)}")
    assert run.failed() == "The command ended with exit code 3"
    assert run.result("Show what it wrote")["msg"] == ["found"]
    assert run.result("Show what it wrote to standard error")["msg"] == ["ctory"]
    assert run.result("Say where all of it is")["msg"].startswith("failing: /shared/task_outputs/failing.out")
    again = run_playbook(
        "haku.river.task", runner.inventory, f"--extra-vars={json.dumps({**asked, 'haku_task_sync': False})}"
    )
    assert "There is a task failing already" in again.failed()


def test_what_hostile_strings_say_arrives_through_a_play(runner: Runner) -> None:
    """By way of the action plugin, SSH and Ansible's wrapper of modules; !unsafe is what templating leaves alone."""
    script = 'for word; do printf "%s\\0" "$word"; done'
    # What the tag does not know from something else, such as nothing or an alias, needs none.
    tags = {word: "" if word in ("", "~", "*") else "!unsafe " for word in ["sh", "-c", script, *HOSTILE]}
    words = ["sh", "-c", script, "sh", *HOSTILE]
    command = ", ".join(f"{tags[word]}{json.dumps(word, ensure_ascii=False)}" for word in words)
    playbook = MACHINES.directory / "hostile.yml"
    playbook.write_text(
        "- hosts: node2\n  gather_facts: false\n  tasks:\n  - name: Run it\n    haku.river.haku_task:\n"
        f"      name: {ENVIRONMENT}\n      shared_dir: /shared\n      task_id: hostile\n      command: [{command}]\n"
    )
    run_playbook(playbook, runner.inventory).succeeded()
    written = (MACHINES.shared / "task_outputs/hostile.out").read_bytes()
    assert written.split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert not runner.machine.succeeds("test", "-e", "/tmp/pwned")


def test_what_failed_when_says_is_what_counts(runner: Runner) -> None:
    step = runner.step("echo found; exit 1")
    accepted = {**step, "register": "result", "failed_when": "result.rc > 1"}
    run = run_play(runner.inventory, "node2", [accepted]).succeeded()
    assert run.result("Run it")["stdout_lines"] == ["found"]
    assert run_play(runner.inventory, "node2", [step]).failed() == "The command ended with exit code 1"


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "no pipelining"])
@pytest.mark.parametrize("become", [True, False], ids=["become", "no become"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_a_killed_run_leaves_no_container(
    runner: Runner, number: signal.Signals, become: bool, pipelining: bool
) -> None:
    with started(runner, ANSIBLE_PIPELINING=str(pipelining), ANSIBLE_BECOME=str(become)) as run:
        # The terminal sends its signal to the whole group, `kill -9` to the one process that is named.
        if number == signal.SIGINT:
            os.killpg(run.pid, number)
        else:
            run.kill()
        run.wait(60)
    runner.wait_for_no_container()
    assert runner.wait_for_outcome() == "abandoned"


def test_a_broken_connection_leaves_no_container(runner: Runner) -> None:
    with started(runner) as run:
        # The server's end of the connection, as if the network had reset it.
        runner.machine.run("pkill", "-KILL", "-f", "^sshd: root@")
        run.wait(120)
    runner.wait_for_no_container()
    assert runner.wait_for_outcome() == "abandoned"


def test_an_engine_that_restarts_ends_the_task_and_its_container(runner: Runner) -> None:
    with started(runner) as run:
        runner.machine.run("pkill", "-KILL", "-x", "dockerd")
        said = run.communicate(timeout=120)[0]
    assert "The engine went away while the task ran" in said
    assert "Traceback" not in said
    wait_until(lambda: runner.machine.succeeds("docker", "version"), "the engine to be back")
    runner.wait_for_no_container()
    assert runner.wait_for_outcome() == "engine_lost"


def test_a_detached_task_goes_on_without_the_run(runner: Runner) -> None:
    (MACHINES.shared / "projects").mkdir()
    run = runner.run("while [ ! -e /shared/projects/go ]; do sleep 0.1; done; echo done", detach=True).succeeded()
    assert run.result("Run it")["state"] == "running"
    (MACHINES.shared / "projects/go").touch()
    assert runner.wait_for_outcome() == "exited"
    runner.wait_for_no_container()
    assert Path(MACHINES.shared, *Path(run.result("Run it")["stdout_file"]).parts[2:]).read_text() == "done\n"


def test_a_task_is_killed_where_it_runs(runner: Runner) -> None:
    runner.run("sleep 600", task_id="where", detach=True).succeeded()
    absent = {
        "name": "Kill it",
        "haku.river.haku_task": {"shared_dir": "/shared", "task_id": "where", "state": "absent"},
    }
    run = run_play(runner.inventory, "node2,node3", [absent], serial=1, order="reverse_inventory").succeeded()
    elsewhere = run.result("Kill it", "node3")
    assert (elsewhere["changed"], elsewhere["state"]) == (False, "running")
    assert "runs on node2" in str(elsewhere["warnings"])
    assert run.result("Kill it", "node2")["state"] == "finished"
    assert runner.wait_for_outcome() == "killed"
    assert runner.containers == []


def test_an_asynchronous_task_goes_on_without_the_connection(runner: Runner) -> None:
    go = "/shared/projects/go"
    (MACHINES.shared / "projects").mkdir()
    step = {**runner.step(f"while [ ! -e {go} ]; do sleep 0.1; done; echo done"), "async": 600, "poll": 0}
    run_play(runner.inventory, "node2", [step]).succeeded()
    runner.wait_for_a_container()
    (MACHINES.shared / "projects/go").touch()
    assert runner.wait_for_outcome() == "exited"
    runner.wait_for_no_container()


@contextmanager
def started(runner: Runner, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """An `ansible-playbook` with a task that does not end; it has a process group of its own, as in a shell."""
    play = {"hosts": "node2", "gather_facts": False, "tasks": [runner.step("sleep 600", stop_timeout=1)]}
    playbook = MACHINES.directory / "endless.json"
    playbook.write_text(json.dumps([play]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    with subprocess.Popen(
        [program, f"--inventory={runner.inventory}", str(playbook)],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as run:
        try:
            runner.wait_for_a_container()
            yield run
        finally:
            run.kill()
