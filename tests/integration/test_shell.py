# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""haku-shell at a real terminal: over SSH to the Host and to a Runner, and on engines of the controller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import CHECKOUT
from tests.integration.people import PASSWORD, operator
from tests.integration.plays import run_play
from tests.integration.project import ENVIRONMENT, Project
from tests.integration.vps import make_key
from tests.lab import engines as lab_engines, images
from tests.lab.engines import Engine
from tests.lab.host import require, wait_until
from tests.lab.images import Docker
from tests.lab.machines import MACHINES, Machine
from tests.lab.terminal import Terminal, terminal

BASH = "haku-shell-bash"
ASH = "haku-shell-ash"
FOREIGN = "haku-shell-foreign"
BASH_HERE = "PS1='here> ' bash --norc --noprofile"
SEARCHED = {"PATH": f"{CHECKOUT / 'shell'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def host(machines: dict[str, Machine]) -> Iterator[Machine]:
    """Give the Host, with two environments, of which one has bash, and a container that is nobody's."""
    host = machines["node1"]
    made = {BASH: images.PYTHON, ASH: images.BUSYBOX, FOREIGN: images.BUSYBOX}
    host.succeeds("docker", "rm", "--force", *made)  # what a killed run has left
    for name, image in made.items():
        make(host, name, images.provide(image, host), managed=name != FOREIGN)
    yield host
    host.docker("rm", "--force", *made)


def make(engine: Docker, name: str, image: str, managed: bool = True) -> None:
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={name}") if managed else ()
    engine.docker("run", "--detach", "--network=none", "--name", name, *labels, image, "sleep", "infinity")


@pytest.fixture
def window() -> Iterator[Terminal]:
    """Give a terminal at the controller, with haku-shell in its PATH."""
    with terminal(BASH_HERE, SEARCHED) as window:
        window.waits_for("here>")
        yield window


def haku_shell(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run haku-shell without a terminal."""
    return subprocess.run(
        ["haku-shell", *arguments],
        cwd="/",
        env={**os.environ, **SEARCHED},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def write_inventory(folder: Path, name: str, **variables: Any) -> Path:
    """Write an inventory with one machine, which is the Host."""
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps({"haku_host": {"hosts": {name: variables}}}))
    return inventory


def own_inventory(folder: Path, engine: Engine, *command: str) -> Path:
    """Write an inventory in which the controller is the Host, with this engine."""
    command = command or ("docker", "--host", engine.url)
    return write_inventory(folder, "localhost", ansible_connection="local", ansible_haku_docker_command=command)


def variables_of(inventory: Path) -> dict[str, str]:
    """What the lab's inventory says of all machines."""
    return dict(line.split("=", 1) for line in inventory.read_text().splitlines() if line.startswith("ansible_"))


# Over SSH, at a terminal


def test_keys_and_exit_codes_go_through(window: Terminal, host: Machine, inventory: Path) -> None:
    window.enter(f"haku-shell -i {inventory} {BASH}; echo ended with $?")
    window.waits_for("root@")
    window.enter("echo bash-${BASH_VERSION%%.*} in $(hostname)")
    window.waits_for(f"bash-5 in {host.docker('exec', BASH, 'hostname').strip()}")

    window.enter("echo asl''eep; sleep 600")
    window.waits_for("asleep")
    window.press("C-c")
    window.waits_for("^C")
    window.enter("echo interrupted with $?")
    window.waits_for("interrupted with 130")

    window.press("C-l")
    wait_until(lambda: not any("130" in line for line in window.lines), "an empty window")
    window.press("C-p")  # answered at once, and not with the next key
    window.waits_for("echo interrupted with $?")
    window.press("C-u")

    window.enter("exit 7")
    window.waits_for("ended with 7")


def test_the_end_of_input_ends_the_shell(window: Terminal, host: Machine, inventory: Path) -> None:
    window.enter(f"haku-shell -i {inventory} {ASH}; echo ended with $?")
    window.waits_for("/ #")
    window.press("C-d")
    window.waits_for("ended with 0")


@pytest.mark.parametrize("name", [BASH, ASH])
def test_a_broken_connection_ends_the_shell_and_what_runs_in_it(
    window: Terminal, host: Machine, inventory: Path, tmp_path: Path, name: str
) -> None:
    client = tmp_path / "client"
    # Each program becomes the next one, up to the SSH client.
    window.enter(f"sh -c 'echo $$ >{client}; exec haku-shell -i {inventory} {name}'")
    window.waits_for("root@" if name == BASH else "/ #")
    window.enter("(trap '' HUP; exec sleep 601) & echo asl''eep; sleep 602")
    window.waits_for("asleep")
    os.kill(int(client.read_text()), signal.SIGKILL)
    window.waits_for("Killed")
    wait_until(lambda: "sleep 602" not in host.docker("top", name), "the shell to be gone")
    left = [line for line in host.docker("top", name).splitlines()[1:] if "sleep infinity" not in line]
    # As on any terminal, what was told not to mind goes on.
    assert [line.split()[-2:] for line in left] == [["sleep", "601"]]


def test_a_full_screen_program_follows_the_size_of_the_window(window: Terminal, host: Machine, inventory: Path) -> None:
    window.enter(f"haku-shell -i {inventory} {ASH}")
    window.waits_for("/ #")
    has_size(window, 120, 30)
    window.enter("vi /etc/passwd")
    has_vi(window, 30)
    for columns, rows in ((90, 40), (140, 20)):
        window.resize(columns, rows)
        has_vi(window, rows)
    window.enter(":q")
    has_size(window, 140, 20)


@pytest.mark.parametrize(("own", "inside"), [("xterm-256color", "xterm-256color"), ("no-such-terminal", "xterm")])
def test_the_terminal_is_of_the_users_kind_where_the_image_knows_it(
    window: Terminal, host: Machine, inventory: Path, own: str, inside: str
) -> None:
    window.enter(f"TERM={own} haku-shell -i {inventory} {BASH}")
    window.waits_for("root@")
    window.enter("echo a terminal: $TERM")
    window.waits_for(f"a terminal: {inside}\n")


def test_the_host_is_reached_through_a_gateway_and_sudo_asks_for_its_password(
    window: Terminal, host: Machine, unprivileged: str, inventory: Path, tmp_path: Path
) -> None:
    """From here, nothing answers at 127.0.0.1:22 with the Host's key; from the Host itself, the Host does."""
    variables = variables_of(inventory)
    key, known = variables["ansible_ssh_private_key_file"], variables["ansible_ssh_common_args"]
    gateway = f"ssh -i {key} {known} -W %h:%p root@{host.address}"
    behind = write_inventory(
        tmp_path,
        "behind",
        gateway=gateway,
        address="127.0.0.1",
        ansible_host="{{ address }}",
        ansible_port=22,
        ansible_user=unprivileged,
        ansible_ssh_private_key_file=key,
        ansible_ssh_common_args=f'{known} -o HostKeyAlias={host.address} -o ProxyCommand="{{{{ gateway }}}}"',
        ansible_become=True,
    )
    window.enter(f"haku-shell -i {behind} {BASH}; echo ended with $?")
    window.waits_for(f"password for {unprivileged}:")
    window.enter(PASSWORD)
    window.waits_for("root@")
    window.enter("exit 3")
    window.waits_for("ended with 3")
    assert PASSWORD not in "\n".join(window.lines)


@pytest.fixture
def unprivileged(host: Machine) -> Iterator[str]:
    """Give a user of the Host who may use the engine only by sudo, with a password."""
    with operator(host) as user:
        yield user


def has_size(window: Terminal, columns: int, rows: int) -> None:
    """See that the shell inside has a terminal of this size."""
    size = f"{rows} {columns}"
    window.enter(f"until [ \"$(stty size)\" = '{size}' ]; do sleep 0.1; done; echo size-'{size}'")
    window.waits_for(f"size-{size}")


def has_vi(window: Terminal, rows: int) -> None:
    """See that vi fills a window of so many lines, with its status in the last one."""
    wait_until(lambda: "/etc/passwd" in "".join(window.lines[rows - 1 : rows]), f"vi in {rows} lines")


# What it refuses, and what it says


def test_a_stopped_environment_is_started_only_when_that_is_asked_for(host: Machine, inventory: Path) -> None:
    host.docker("stop", "--time=1", ASH)
    refused = haku_shell("-i", inventory, ASH)
    assert refused.returncode == 1
    assert f"The environment {ASH} on node1 does not run: Exited (" in refused.stderr
    assert f"haku-shell --start -i {inventory} {ASH}" in refused.stderr
    assert haku_shell("--start", "-i", inventory, ASH, stdin="exit 5\n").returncode == 5
    assert haku_shell("-i", inventory, ASH, stdin="exit 6\n").returncode == 6
    host.docker("pause", ASH)
    paused = haku_shell("--start", "-i", inventory, ASH)
    host.docker("unpause", ASH)
    assert "is paused" in paused.stderr


def test_what_is_not_there_or_not_managed_is_refused(host: Machine, inventory: Path) -> None:
    missing = haku_shell("-i", inventory, "haku-shell-none")
    assert missing.returncode == 1
    assert "There is no environment haku-shell-none on node1. There are:" in missing.stderr
    assert ASH in missing.stderr
    assert BASH in missing.stderr
    foreign = haku_shell("--start", "-i", inventory, FOREIGN)
    assert foreign.returncode == 1
    assert "not managed by haku.river" in foreign.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../x"], "cannot be the name of an environment"),
        (["x;reboot"], "cannot be the name of an environment"),
        (["node2:$(reboot)"], "cannot be a task_id"),
        (["node9:x"], "The inventory has no machine node9. Its Runners are: node2, node3."),
        (["--start", "node2:x"], "--start is for environments"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(inventory: Path, arguments: list[str], words: str) -> None:
    refused = haku_shell("-i", inventory, *arguments)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_engine_that_does_not_answer_is_told_with_the_remedy(
    host: Machine, unprivileged: str, inventory: Path, tmp_path: Path
) -> None:
    variables = {**variables_of(inventory), "ansible_host": host.address, "ansible_user": unprivileged}
    refused = haku_shell("-i", write_inventory(tmp_path, "node1", **variables), BASH)
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr.lower()
    assert "The engine on node1 does not answer" in refused.stderr


def test_without_a_terminal_commands_come_from_standard_input(host: Machine, inventory: Path) -> None:
    done = haku_shell("-i", inventory, BASH, stdin="echo 'it'\\''s' \"$((6 * 7))\"\necho trouble >&2\nexit 7\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "it's 42\n", "trouble\n")


# Lists and completion


def test_without_a_name_it_lists_environments(host: Machine, inventory: Path) -> None:
    aside = f"{ASH}.FORMER"
    host.docker("run", "--detach", "--name", aside, "--label=haku.river.managed=true", "--label=haku.river.env=x",
                images.BUSYBOX.name, "true")  # fmt: skip
    listed = haku_shell("-i", inventory)
    host.docker("rm", "--force", aside)
    assert listed.returncode == 0
    first, *rest = listed.stdout.splitlines()
    assert first == "Environments on node1:"
    rows = {line.split()[0]: line for line in rest}
    assert "Up" in rows[BASH]
    assert {FOREIGN, aside}.isdisjoint(rows)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_names_are_completed(shell: str, host: Machine, inventory: Path) -> None:
    starts = {
        "bash": (BASH_HERE, f"source {CHECKOUT}/shell/haku-shell.bash"),
        "zsh": ("PS1='here> ' zsh -f", f"fpath+=({CHECKOUT}/shell); autoload -U compinit; compinit -u -D"),
    }
    require(shell)
    start, setting = starts[shell]
    with terminal(start, SEARCHED) as window:
        window.waits_for("here>")
        window.enter(setting)
        window.type(f"haku-shell -i {inventory} haku-shell-b")
        window.press("Tab")
        window.waits_for(BASH)
        window.type("--start")
        window.waits_for(f"{BASH} --start")
        window.press("C-u")
        window.type(f"haku-shell -i {inventory} node2")
        window.press("Tab")
        window.waits_for("node2:")
        window.type("x")
        window.waits_for("node2:x")


# Runners


def test_a_task_and_a_vps_on_a_runner_are_opened(
    window: Terminal, project: Project, inventory: Path, tmp_path: Path
) -> None:
    name, runner = f"{ENVIRONMENT}-shell", project.machines["node2"]
    image = images.provide(images.SSH, project.machines["node1"])
    (MACHINES.shared / "hakuriver-containers").mkdir()
    tarball = {"name": name, "shared_dir": "/shared"}
    on_host = [
        {"haku.river.haku_container": {"name": name, "image": image, "pull": "never"}},
        {"haku.river.haku_tar": tarball},
    ]
    run_play(inventory, "node1", on_host).succeeded()
    task = {**tarball, "command": "touch /task; sleep 600", "task_id": "Night.1", "detach": True}
    vps = {**tarball, "vps": "night", "key_file": f"{make_key(tmp_path)}.pub"}
    try:
        run_play(inventory, "node2", [{"haku.river.haku_task": task}, {"haku.river.haku_vps": vps}]).succeeded()
        assert haku_shell("-i", inventory, "node2:Night.1", stdin="ls /task\nexit 4\n").returncode == 4
        window.enter(f"haku-shell -i {inventory} node2:night; echo ended with $?")
        window.waits_for("root@night")
        window.enter("exit 9")
        window.waits_for("ended with 9")
        listed = haku_shell("-i", inventory, "node2:").stdout
        assert "haku-task-Night.1" in listed
        assert "haku-vps-night" in listed
        completed = haku_shell("-i", inventory, "--complete", "node2:").stdout.split()
        assert {"node2:Night.1", "node2:night"} <= set(completed)
        runner.docker("stop", "--time=1", "haku-vps-night")
        stopped = haku_shell("-i", inventory, "node2:night")
        assert "The task or VPS night on node2 does not run: Exited (" in stopped.stderr
        assert "vps=night and state=present" in stopped.stderr
        assert "There is no task or VPS day on node2" in haku_shell("-i", inventory, "node2:day").stderr
    finally:
        absent = [
            {"haku.river.haku_task": {"task_id": "Night.1", "shared_dir": "/shared", "state": "absent"}},
            {"haku.river.haku_vps": {"vps": "night", "state": "absent"}},
        ]
        run_play(inventory, "node2", absent).succeeded()


# The controller's own engines


def test_every_engine_of_the_controller_gives_a_terminal(
    window: Terminal, environment: Environment, tmp_path: Path
) -> None:
    inventory = own_inventory(tmp_path, environment.engine)
    window.enter(f"haku-shell -i {inventory} {environment.name}; echo ended with $?")
    window.waits_for("/ #")
    has_size(window, 120, 30)
    window.resize(100, 40)
    has_size(window, 100, 40)
    window.enter("exit 7")
    window.waits_for("ended with 7")


def test_podmans_own_command_line_serves(window: Terminal, podman: Engine, tmp_path: Path) -> None:
    name = "haku-shell-podman"
    make(podman, name, images.provide(images.BUSYBOX, podman))
    command_line = (*lab_engines.within("podman"), "podman", "--remote", "--url", podman.url)
    inventory = own_inventory(tmp_path, podman, *command_line)
    try:
        assert name in haku_shell("-i", inventory).stdout
        window.enter(f"haku-shell -i {inventory} {name}; echo ended with $?")
        window.waits_for("/ #")
        has_size(window, 120, 30)
        window.enter("exit 7")
        window.waits_for("ended with 7")
        podman.docker("stop", "--time=1", name)
        assert "does not run: Exited (" in haku_shell("-i", inventory, name).stderr
        assert haku_shell("-i", inventory, "--start", name, stdin="exit 5\n").returncode == 5
    finally:
        podman.docker("rm", "--force", name)
