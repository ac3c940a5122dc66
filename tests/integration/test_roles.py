# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles engine, host and runner, on machines that start without anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plays import Run, run_play, run_playbook
from tests.lab.host import wait_until
from tests.lab.machines import BARE, Machine

START = "Start the engine, now and whenever the machine starts"
TARBALLS = "hakuriver-containers"
EXPORTS = "/etc/exports.d/haku-river.exports"


@dataclass(frozen=True)
class Fleet:
    """Machines that are prepared, and an inventory for one test."""

    machines: dict[str, Machine]
    folder: Path

    def give(self, machine: str, **variables: Any) -> None:
        """Give one machine variables of its own."""
        path = self.folder / f"host_vars/{machine}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(variables))

    def prepare(self, *arguments: str) -> Run:
        """Run haku.river.prepare."""
        return run_playbook("haku.river.prepare", self.folder / "inventory.ini", *arguments)

    def apply(self, role: str, machine: str, *arguments: str, **variables: Any) -> Run:
        """Apply one role to one machine."""
        task = {"ansible.builtin.import_role": {"name": f"haku.river.{role}"}, "vars": variables}
        return run_play(self.folder / "inventory.ini", machine, [task], *arguments)


@pytest.fixture(scope="module")
def prepared(bare_machines: dict[str, Machine], bare_inventory: Path) -> dict[str, Machine]:
    """Give machines with engine and SDK; whatever a test changes on one, it puts back."""
    run_playbook("haku.river.prepare", bare_inventory).succeeded()
    return bare_machines


@pytest.fixture
def fleet(prepared: dict[str, Machine], tmp_path: Path) -> Fleet:
    """Give the machines with an inventory that the test may add to."""
    shutil.copy(BARE.inventory, tmp_path / "inventory.ini")
    return Fleet(prepared, tmp_path)


def _engine_process(machine: Machine) -> str:
    return machine.run("pgrep", "--exact", "dockerd")


# Tags


PARTS = {
    "haku_engine": {"Check that the accounts exist"},
    "haku_sdk": {"Look for the SDK"},
    "haku_shared": {"Read the marker", "Read the Host's marker"},
    "haku_nfs": {"Export the shared directory no more"},
}


def test_each_tag_runs_its_part_of_the_roles_and_no_other(fleet: Fleet) -> None:
    for tag in PARTS:
        run = fleet.prepare("--check", f"--tags={tag}", '--extra-vars={"engine_users": ["root"]}').succeeded()
        done = {task for task, _machine, result in run.results() if not result.get("skipped")}
        assert {part for part, tasks in PARTS.items() if tasks & done} == {tag}
        assert done >= PARTS[tag]


# The engine


@pytest.fixture
def own_engine(fleet: Fleet) -> Iterator[Machine]:
    """Give a machine whose engine somebody has started by hand."""
    machine = fleet.machines["bare2"]
    machine.run("systemctl", "disable", "--now", "docker.service", "docker.socket")
    machine.run("systemd-run", "--unit=own-engine", "dockerd")
    wait_until(lambda: machine.succeeds("docker", "version"), "the engine started by hand", 60)
    yield machine
    machine.run("systemctl", "stop", "own-engine")
    machine.run("systemctl", "enable", "--now", "docker.service", "docker.socket")


def test_an_engine_that_is_there_is_left_alone(fleet: Fleet, own_engine: Machine) -> None:
    process = _engine_process(own_engine)
    assert fleet.apply("engine", "bare2").succeeded().changed == []
    assert _engine_process(own_engine) == process
    assert not own_engine.succeeds("systemctl", "is-enabled", "docker.service")


def test_an_engine_that_is_stopped_is_started(fleet: Fleet) -> None:
    machine = fleet.machines["bare2"]
    machine.run("systemctl", "stop", "docker.socket", "docker.service")
    assert fleet.apply("engine", "bare2", "--check").succeeded().changed == [(START, "bare2")]
    assert fleet.apply("engine", "bare2").succeeded().changed == [(START, "bare2")]
    assert machine.succeeds("docker", "version")


def test_nothing_is_installed_beside_another_engine(fleet: Fleet) -> None:
    machine = fleet.machines["bare2"]
    machine.run("systemctl", "stop", "docker.socket", "docker.service")
    # What is left is a command, as that of podman-docker, or of the client of an engine elsewhere.
    files = "lib/systemd/system/docker.service etc/init.d/docker"
    machine.run("sh", "-c", f"tar --create --directory=/ --file=/root/hidden.tar {files} --remove-files")
    machine.run("systemctl", "daemon-reload")
    try:
        complaint = fleet.apply("engine", "bare2").failed()
    finally:
        machine.run("tar", "--extract", "--directory=/", "--file=/root/hidden.tar")
        machine.run("systemctl", "daemon-reload")
    assert "On bare2 there is /usr/bin/docker, but no engine answers at /var/run/docker.sock" in complaint
    fleet.apply("engine", "bare2").succeeded()


def test_options_join_those_that_are_there_and_restart_the_engine(fleet: Fleet) -> None:
    machine = fleet.machines["bare2"]
    path = "/etc/docker/daemon.json"
    machine.run("sh", "-c", f"mkdir -p /etc/docker; cat >{path}; chmod 600 {path}", stdin=b'{"debug": true}')
    process = _engine_process(machine)
    options = {"labels": ["rack=7"]}
    try:
        forecast = fleet.apply("engine", "bare2", "--check", engine_daemon_options=options).succeeded()
        run = fleet.apply("engine", "bare2", engine_daemon_options=options).succeeded()
        again = fleet.apply("engine", "bare2", engine_daemon_options=options).succeeded()
        assert json.loads(machine.run("cat", path)) == {"debug": True, "labels": ["rack=7"]}
        assert machine.run("stat", "--format=%a", path) == "600\n"
        assert machine.docker("info", "--format", "{{.Labels}}") == "[rack=7]\n"
        assert _engine_process(machine) != process
    finally:
        machine.run("rm", path)
    assert run.changed == [("Write the engine's options", "bare2"), ("Restart the engine", "bare2")]
    assert forecast.changed == run.changed
    assert again.changed == []


@pytest.mark.parametrize("former", [None, '{"debug": true}'])
def test_options_that_the_engine_does_not_take_are_undone(fleet: Fleet, former: str | None) -> None:
    machine, path = fleet.machines["bare2"], "/etc/docker/daemon.json"
    if former:
        machine.run("sh", "-c", f"mkdir -p /etc/docker; cat >{path}; chmod 600 {path}", stdin=former.encode())
    try:
        run = fleet.apply("engine", "bare2", engine_daemon_options={"no-such-option": True})
        assert run.code != 0
        assert "runs with the former ones again" in run.complaints[-1]
        assert "no-such-option" in run.complaints[-1]
        assert machine.succeeds("docker", "version")
        if former:
            assert machine.run("cat", path) == former
            assert machine.run("stat", "--format=%a", path) == "600\n"
        else:
            assert not machine.succeeds("test", "-e", path)
    finally:
        machine.run("rm", "-f", path)


def test_an_engine_that_does_not_start_is_told_with_its_own_words(fleet: Fleet) -> None:
    machine, path = fleet.machines["bare2"], "/etc/docker/daemon.json"
    machine.run("systemctl", "stop", "docker.socket", "docker.service")
    machine.run("sh", "-c", f"mkdir -p /etc/docker; cat >{path}", stdin=b'{"no-such-option": true}')
    try:
        complaints = fleet.apply("engine", "bare2").complaints
    finally:
        machine.run("rm", path)
        machine.run("systemctl", "reset-failed")
    assert complaints[-1].startswith("The engine of bare2 does not start. ")
    assert "no-such-option" in complaints[-1]
    fleet.apply("engine", "bare2").succeeded()


def test_an_engine_that_listens_elsewhere_only_is_told_from_one_that_is_slow(fleet: Fleet) -> None:
    machine, override = fleet.machines["bare2"], "/etc/systemd/system/docker.service.d/elsewhere.conf"
    elsewhere = b"[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --host=tcp://127.0.0.1:2375\n"
    machine.run("systemctl", "stop", "docker.socket", "docker.service")
    machine.run("install", "-D", "/dev/stdin", override, stdin=elsewhere)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "docker.service")
    machine.run("rm", "-f", "/run/docker.sock")
    try:
        complaint = fleet.apply("engine", "bare2").complaints[-1]
    finally:
        machine.run("rm", override)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "stop", "docker.socket", "docker.service")
    assert complaint.startswith("The engine of bare2 runs, but does not answer at /var/run/docker.sock.")
    assert "set engine_source to none" in complaint
    fleet.apply("engine", "bare2").succeeded()


@pytest.fixture
def rita(fleet: Fleet) -> Iterator[Machine]:
    """Give a machine on which there is the account rita."""
    machine = fleet.machines["bare3"]
    machine.run("useradd", "--create-home", "rita")
    yield machine
    machine.run("userdel", "--force", "--remove", "rita")  # her login may not have ended yet


def test_accounts_may_use_the_engine(fleet: Fleet, rita: Machine) -> None:
    assert not rita.succeeds("runuser", "--user", "rita", "--", "docker", "version")
    run = fleet.apply("engine", "bare3", engine_users=["rita"]).succeeded()
    assert run.changed == [("Put the accounts into the group docker", "bare3")]
    assert fleet.apply("engine", "bare3", engine_users=["rita"]).succeeded().changed == []
    assert rita.succeeds("runuser", "--user", "rita", "--", "docker", "version")


def test_an_account_that_does_not_exist_is_not_made(fleet: Fleet) -> None:
    fleet.apply("engine", "bare3", engine_users=["nobody-knows"]).failed()
    assert not fleet.machines["bare3"].succeeds("id", "nobody-knows")


def test_an_account_without_access_to_the_engine_is_told(fleet: Fleet, rita: Machine) -> None:
    become = ("--become", "--become-user=rita", "--become-method=ansible.builtin.su")
    complaint = fleet.apply("engine", "bare3", *become).failed()
    assert "On bare3 this account may not use /var/run/docker.sock" in complaint


# The SDK


@pytest.fixture
def without_sdk(fleet: Fleet) -> Iterator[Machine]:
    """Give a machine from which the distribution's SDK is removed."""
    machine = fleet.machines["bare3"]
    machine.run("dpkg", "--remove", "python3-docker")
    yield machine
    machine.run("apt-get", "install", "--yes", "python3-docker")


def test_the_sdk_can_come_from_pip_into_a_virtual_environment(fleet: Fleet, without_sdk: Machine) -> None:
    machine = without_sdk
    wanted = {"engine_sdk_source": "pip", "engine_sdk_venv": "/opt/haku"}
    fleet.apply("engine", "bare3", "--check", **wanted).succeeded()
    assert not machine.succeeds("test", "-e", "/opt/haku")
    first = fleet.apply("engine", "bare3", **wanted).succeeded()
    second = fleet.apply("engine", "bare3", **wanted).succeeded()
    assert ("Install the SDK with pip", "bare3") in first.changed
    assert second.changed == []
    # The proof ran on that Python, since later tasks of the run do.
    told = first.result("Use the virtual environment's Python for the rest of the run")
    assert told["ansible_facts"] == {"ansible_python_interpreter": "/opt/haku/bin/python"}
    imported = machine.run("/opt/haku/bin/python", "-c", "import apt, docker; print(docker.__file__)")
    assert imported.startswith("/opt/haku/lib/")


def test_a_python_without_sdk_is_told(fleet: Fleet) -> None:
    machine = fleet.machines["bare3"]
    machine.run("python3", "-m", "venv", "--without-pip", "/opt/without")
    fleet.give("bare3", ansible_python_interpreter="/opt/without/bin/python")
    complaint = fleet.apply("engine", "bare3", engine_sdk_source="none").failed()
    assert "/opt/without/bin/python on bare3 has no Docker SDK, and 5.0 or newer is needed" in complaint
    assert "engine_sdk_source to pip" in complaint


# The shared directory


def test_a_runner_without_the_shared_directory_is_named_and_the_others_are_served(fleet: Fleet) -> None:
    fleet.give("bare2", haku_shared_dir="/not-mounted")
    run = fleet.prepare()
    assert f"On bare2 there is no /not-mounted/{TARBALLS}/.haku-river" in run.failed()
    proof = run.result("Check that the shared directory is the same as the Host's", "bare3")
    assert not proof.get("failed")


def test_a_runner_with_another_directory_is_told_from_one_with_the_hosts(fleet: Fleet) -> None:
    machine = fleet.machines["bare2"]
    machine.run("install", "-D", "/dev/stdin", f"/srv/other/{TARBALLS}/.haku-river", stdin=b"another\n")
    fleet.give("bare2", haku_shared_dir="/srv/other")
    complaint = fleet.prepare().failed()
    assert f"/srv/other/{TARBALLS} on bare2 is not the directory that bare1 has" in complaint
    assert "says another, and the Host's says" in complaint


def test_a_runner_mounts_the_shared_directory(fleet: Fleet) -> None:
    machine = fleet.machines["bare2"]
    mount = {"runner_mount_src": "/shared", "runner_mount_fstype": "none", "runner_mount_opts": "bind"}
    fleet.give("bare2", haku_shared_dir="/srv/mounted", **mount)
    mounted = [("Mount the shared directory, now and whenever the machine starts", "bare2")]
    check = fleet.apply("runner", "bare2", "--check").succeeded()
    assert check.changed == mounted
    assert f"left out of this check: /srv/mounted/{TARBALLS}" in check.printed
    assert fleet.prepare().succeeded().changed == mounted
    assert fleet.apply("runner", "bare2").succeeded().changed == []
    assert "/shared /srv/mounted none bind" in machine.run("cat", "/etc/fstab")
    machine.run("umount", "/srv/mounted")
    machine.run("truncate", "--size=0", "/etc/fstab")


def test_mounting_by_nfs_brings_the_client(fleet: Fleet) -> None:
    check = fleet.apply(
        "runner", "bare2", "--check", "--tags=haku_shared", runner_mount_src="storage1:/shared"
    ).succeeded()
    assert check.changed[0] == ("Install nfs-common", "bare2")


def test_the_directory_of_tarballs_can_have_another_name(fleet: Fleet) -> None:
    fleet.apply("host", "bare1", "--tags=haku_shared", host_container_dir="versions").succeeded()
    fleet.machines["bare1"].run("test", "-e", "/shared/versions/.haku-river")
    run = fleet.apply("runner", "bare2", "--tags=haku_shared", runner_container_dir="versions").succeeded()
    assert run.result("Look for the Host's marker")["stat"]["path"] == "/shared/versions/.haku-river"


def test_the_host_makes_a_shared_directory_when_asked_and_leaves_one_that_is_there(fleet: Fleet) -> None:
    machine = fleet.machines["bare1"]
    wanted = {"host_shared_dir": "/srv/made", "host_shared_dir_create": True}

    def modes() -> list[str]:
        return machine.run("stat", "--format=%U:%G %a", "/srv/made", f"/srv/made/{TARBALLS}").splitlines()

    assert (
        "There is no directory /srv/made on bare1" in fleet.apply("host", "bare1", host_shared_dir="/srv/made").failed()
    )
    check = fleet.apply("host", "bare1", "--check", **wanted).succeeded()
    assert not machine.succeeds("test", "-e", "/srv/made")
    made = fleet.apply("host", "bare1", **wanted).succeeded()
    assert modes() == ["root:root 755", "root:root 755"]
    assert check.changed == made.changed[:-1]  # a mark in a directory that a check has not made
    assert made.changed[-1] == ("Mark the directory", "bare1")

    machine.run("chmod", "750", "/srv/made")
    identity = machine.run("cat", f"/srv/made/{TARBALLS}/.haku-river")
    assert fleet.apply("host", "bare1", **wanted).succeeded().changed == []
    assert modes()[0] == "root:root 750"
    owned = {"host_shared_dir_owner": "daemon", "host_shared_dir_group": "mail", "host_shared_dir_mode": "2775"}
    fleet.apply("host", "bare1", **wanted, **owned).succeeded()
    assert modes() == ["daemon:mail 2775", "root:root 755"]
    assert machine.run("cat", f"/srv/made/{TARBALLS}/.haku-river") == identity
    machine.run("rm", "-r", "/srv/made")


def test_a_mode_without_quotes_is_refused(fleet: Fleet) -> None:
    # What YAML makes of 0770, and of which ansible-core 2.17 makes mode 0504.
    wanted = {"host_shared_dir": "/srv/made", "host_shared_dir_create": True, "host_shared_dir_mode": 0o770}
    complaint = fleet.apply("host", "bare1", **wanted).failed()
    assert "host_shared_dir_mode of bare1 is the number 504" in complaint
    assert 'Put it in quotes: "0770"' in complaint
    assert not fleet.machines["bare1"].succeeds("test", "-e", "/srv/made")


def test_nothing_is_made_below_a_mount_point_where_nothing_is_mounted(fleet: Fleet) -> None:
    machine = fleet.machines["bare1"]
    machine.run("tee", "/etc/fstab", stdin=b"storage1:/srv/later /srv/later nfs rw 0 0\n")
    wanted = {"host_shared_dir": "/srv/later/shared", "host_shared_dir_create": True}
    complaint = fleet.apply("host", "bare1", **wanted).failed()
    machine.run("truncate", "--size=0", "/etc/fstab")
    assert "/srv/later on bare1 is not mounted, although /etc/fstab has it" in complaint
    assert not machine.succeeds("test", "-e", "/srv/later/shared")


NFS_SERVER = b"""
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""
"""Stands in for the kernel's part, which containers do not have; what is exported is up to the real exportfs."""


@pytest.fixture
def nfs_server(fleet: Fleet) -> Machine:
    """Give a Host whose NFS server can be started."""
    machine = fleet.machines["bare1"]
    machine.run("tee", "/etc/systemd/system/nfs-server.service", stdin=NFS_SERVER)
    machine.run("systemctl", "daemon-reload")
    return machine


def _exported(machine: Machine) -> dict[tuple[str, str], set[str]]:
    """Tell what the machine exports, as path and client, and with which options."""
    # A line: /shared 192.0.2.0/24(sync,wdelay,…)
    lines = (line.rstrip(")").split() for line in machine.run("exportfs", "-s").splitlines())
    exports = ((path, *client.split("(")) for path, client in lines)
    return {(path, client): set(options.split(",")) for path, client, options in exports}


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("clients", [""], '""'),
        ("clients", "192.0.2.0/24,", '""'),
        ("clients", ["192.0.2.0/24 *"], '"192.0.2.0/24 *"'),
        ("clients", ["gpu1(rw)"], '"gpu1(rw)"'),
        ("clients", ["-rw"], '"-rw"'),
        ("options", ["rw", "sync) *(rw"], '"sync) *(rw"'),
    ],
)
def test_what_would_export_to_everybody_is_refused(fleet: Fleet, variable: str, value: object, named: str) -> None:
    wanted = {"host_nfs_clients": ["192.0.2.0/24"], f"host_nfs_{variable}": value}
    complaint = fleet.apply("host", "bare1", **wanted).failed()
    assert complaint.startswith(f"host_nfs_{variable} of bare1 has {named}, which could export /shared to everybody.")
    assert not fleet.machines["bare1"].succeeds("test", "-e", EXPORTS)


def test_the_host_exports_the_shared_directory_by_nfs(fleet: Fleet, nfs_server: Machine) -> None:
    clients = {"host_nfs_clients": ["192.0.2.0/24", "198.51.100.7"]}
    fleet.apply("host", "bare1", "--check", **clients).succeeded()
    assert not nfs_server.succeeds("test", "-e", EXPORTS)
    fleet.apply("host", "bare1", **clients).succeeded()
    assert fleet.apply("host", "bare1", **clients).succeeded().changed == []
    exported = _exported(nfs_server)
    assert set(exported) == {("/shared", "192.0.2.0/24"), ("/shared", "198.51.100.7")}
    assert all({"rw", "sync", "root_squash", "no_subtree_check"} <= options for options in exported.values())

    # As they come from the command line, which knows no lists.
    strings = {
        "host_nfs_clients": "192.0.2.0/24, 198.51.100.7 ",
        "host_nfs_options": "rw,sync, no_subtree_check,root_squash",
    }
    assert fleet.apply("host", "bare1", **strings).succeeded().changed == []

    removed = fleet.apply("host", "bare1").succeeded()
    assert _exported(nfs_server) == {}
    assert removed.changed == [
        ("Export the shared directory no more", "bare1"),
        ("Export what is to be exported", "bare1"),
    ]


def test_an_export_that_fails_is_tried_again(fleet: Fleet, nfs_server: Machine) -> None:
    def export(*clients: str) -> Run:
        return fleet.apply("host", "bare1", "--tags=haku_nfs", host_nfs_clients=clients)

    complaint = export("gpu1.invalid").failed()
    assert complaint.startswith("On bare1 exportfs has not exported all that it should")
    assert "Failed to resolve gpu1.invalid" in complaint
    nfs_server.run("tee", "--append", "/etc/hosts", stdin=b"192.0.2.9 gpu1.invalid\n")
    assert ("Export what is to be exported", "bare1") in export("gpu1.invalid").succeeded().changed
    assert set(_exported(nfs_server)) == {("/shared", "gpu1.invalid")}
    export().succeeded()
