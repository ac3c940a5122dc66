# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How haku-shell reaches a machine follows from the inventory, and each word arrives there as it is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultEditor, VaultLib, VaultSecret
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.plugin_utils.shell_inventory import Inventory, machine_of
from ansible_collections.haku.river.plugins.plugin_utils.shell_machine import Machine
from ansible_collections.haku.river.plugins.plugin_utils.shell_session import (
    ENVIRONMENTS,
    environment,
    listing,
    opening,
    work,
)

CHECKOUT = Path(__file__).parents[2]
AWKWARD = 'it\'s "one" $HOME `id` word\\n; *'


def machine(**variables: Any) -> Machine:
    return machine_of({"inventory_hostname": "storage1", **variables})


# How a machine is reached


def test_ssh_gets_what_the_variables_say_in_the_order_of_ansible() -> None:
    reached = machine(
        ansible_host="192.0.2.1",
        ansible_port=2222,
        ansible_user="admin",
        ansible_ssh_private_key_file="/keys/my key",
        ansible_ssh_args="-C",
        ansible_ssh_common_args='-o ProxyCommand="ssh -W %h:%p gateway"',
        ansible_ssh_extra_args="-v",
        ansible_ssh_timeout=5,
    )
    assert reached.ssh == (
        *("ssh", "-C", "-p", "2222", "-i", "/keys/my key", "-l", "admin", "-oConnectTimeout=5"),
        *("-o", "ProxyCommand=ssh -W %h:%p gateway", "-v", "192.0.2.1"),
    )


def test_what_nobody_says_is_left_to_ssh() -> None:
    words = set(machine(ansible_ssh_args="").ssh)
    assert words == {"ssh", "-oConnectTimeout=10", "storage1"}


def test_host_keys_are_left_unchecked_only_where_ansible_leaves_them() -> None:
    assert "-oStrictHostKeyChecking=no" in machine(ansible_host_key_checking=False).ssh
    assert "-oStrictHostKeyChecking=no" not in machine().ssh


@pytest.mark.parametrize("connection", ["local", "ansible.builtin.local"])
def test_the_controller_needs_no_ssh(connection: str) -> None:
    assert machine(ansible_connection=connection).command("true", "-t") == ["sh", "-c", "true"]


def test_another_connection_is_refused() -> None:
    with pytest.raises(HakuError, match=r"community\.docker\.docker, and haku-shell knows only ssh and local"):
        machine(ansible_connection="community.docker.docker")


def test_sudo_asks_on_the_terminal() -> None:
    become = {"ansible_become": True, "ansible_become_user": "operator", "ansible_become_password": "secret"}
    assert machine(**become).become == ("sudo", "-H", "-u", "operator")
    assert machine(ansible_become=False).become == ()
    with pytest.raises(HakuError, match="knows only sudo"):
        machine(ansible_become=True, ansible_become_method="ansible.builtin.su")


@pytest.mark.parametrize("command", ["podman --url unix:///s", ["podman", "--url", "unix:///s"]])
def test_the_engines_command_may_be_words_or_a_line(command: Any) -> None:
    assert machine(ansible_haku_docker_command=command).engine == ("podman", "--url", "unix:///s")


# The inventory


def test_variables_are_templated_also_from_those_of_other_machines(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("""
all:
  vars:
    ansible_user: "{{ 'ad' ~ 'min' }}"
    broken: "{{ nowhere_to_be_found }}"
  children:
    haku_host:
      hosts:
        storage1:
          ansible_ssh_common_args: "-J {{ hostvars[groups.gateways[0]].address }}"
    gateways:
      hosts:
        gateway:
          address: 192.0.2.9
    haku_runners:
      hosts:
        gpu[1:2]:
""")
    found = Inventory(DataLoader(), [str(inventory)])
    host = found.host()
    assert host.name == "storage1"
    assert host.ssh[-5:] == ("admin", "-oConnectTimeout=10", "-J", "192.0.2.9", "storage1")
    assert found.runners == ["gpu1", "gpu2"]
    assert found.machine("gpu2").name == "gpu2"
    with pytest.raises(HakuError, match=r"no machine gpu3\. Its Runners are: gpu1, gpu2\."):
        found.machine("gpu3")


@pytest.mark.parametrize(("hosts", "count"), [("[haku_runners]\na", 0), ("[haku_host]\na\nb", 2)])
def test_there_is_one_host(tmp_path: Path, hosts: str, count: int) -> None:
    (tmp_path / "inventory.ini").write_text(f"{hosts}\n")
    with pytest.raises(HakuError, match=f"exactly one machine, and has {count}"):
        Inventory(DataLoader(), [str(tmp_path / "inventory.ini")]).host()


def test_variables_in_a_vault_are_read_with_its_password(tmp_path: Path) -> None:
    """The engine's command, which the vault has, shows its words instead of a list."""
    (tmp_path / "inventory.ini").write_text("[haku_host]\nstorage1 ansible_connection=local\n")
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "group_vars").mkdir()
    secret = VaultSecret(b"open sesame")
    vault = VaultEditor(VaultLib([("default", secret)]))
    (tmp_path / "group_vars/haku_host.yml").write_text("ansible_haku_docker_command: [echo, hidden]\n")
    vault.encrypt_file(str(tmp_path / "group_vars/haku_host.yml"), secret)
    done = subprocess.run(
        [
            CHECKOUT / "shell/haku-shell",
            "-i",
            tmp_path / "inventory.ini",
            "--vault-password-file",
            tmp_path / "password",
        ],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "Environments on storage1:"
    assert done.stdout.splitlines()[1].startswith("hidden ps --all")


# What is run there


def test_one_line_goes_to_the_shell_there_and_comes_apart_as_it_was() -> None:
    command = Machine("storage1", ssh=("ssh", "-p", "22", "192.0.2.1")).command(f"echo {AWKWARD}", "-t")
    assert command[:-1] == ["ssh", "-t", "-p", "22", "192.0.2.1"]
    assert shlex.split(command[-1]) == ["sh", "-c", f"echo {AWKWARD}"]


@pytest.mark.parametrize("engine", [None, ("docker", "--host", AWKWARD)])
def test_scripts_are_one_line_that_every_shell_takes(engine: tuple[str, ...] | None) -> None:
    there = Machine("storage1", become=("sudo",), engine=engine)
    for script in (
        opening(there, environment("my-env", start=True, again=AWKWARD), "xterm"),
        opening(there, work("Night.1"), None),
        listing(there, ENVIRONMENTS, "{{.Names}}"),
    ):
        assert "\n" not in script
        subprocess.run(["sh", "-n", "-c", script], check=True)


def test_the_engines_words_arrive_as_they_are() -> None:
    """The listing goes on as the engine's command, so a command that prints its words shows them."""
    there = Machine("storage1", engine=("printf", "%s\n", AWKWARD))
    done = subprocess.run(
        there.command(listing(there, ENVIRONMENTS, "{{.Names}}")), stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines()[:2] == [AWKWARD, "ps"]
    assert done.stdout.splitlines()[-1] == "{{.Names}}"


@pytest.mark.parametrize("name", ["../x", "a b", "A", "x;rm -rf", "", "-v", "x\n"])
def test_what_cannot_be_an_environment_is_refused(name: str) -> None:
    with pytest.raises(HakuError, match="cannot be the name of an environment"):
        environment(name, start=False, again="")


@pytest.mark.parametrize("name", ["../x", "a b", "x;rm", "-v", "x\n", "x" * 101])
def test_what_cannot_be_a_task_or_a_vps_is_refused(name: str) -> None:
    with pytest.raises(HakuError, match="cannot be a task_id"):
        work(name)
