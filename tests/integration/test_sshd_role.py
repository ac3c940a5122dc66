# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role sshd: an image without keys, and machines made of it that root enters by key, and nobody by password."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import succeed
from tests.integration.plays import Run, run_play
from tests.lab import images, ssh_packages
from tests.lab.engines import Engine
from tests.lab.host import PREFIX, run, succeeds, wait_until

NAME = f"{PREFIX}-sshd"
PASSWORD = "correct-horse-battery"
START = "mkdir -p /run/sshd && ssh-keygen -A && exec /usr/sbin/sshd -D -e"
"""The start that the role's documentation gives."""

PROMISED = {
    "authenticationmethods publickey",
    "kbdinteractiveauthentication no",
    "passwordauthentication no",
    "permitemptypasswords no",
    "permitrootlogin without-password",
    "pubkeyauthentication yes",
    "usepam no",
}


@dataclass(frozen=True)
class Manager:
    """A package manager, how it is asked for a package, and what a distribution has of it and of itself."""

    name: str
    query: str
    files: dict[str, str]

    def set_up(self, container: Container) -> None:
        """Make it the only one in a container, which then takes itself for the distribution."""
        others = [manager.name for manager in MANAGERS if manager.name != self.name]
        container.inside(f"cd /usr/bin && rm apt-get {' '.join(others)} && rm /etc/os-release")
        for path, content in self.files.items():
            container.inside(f"install -D /dev/stdin {path} <<'EOF'\n{content}EOF")


RPM_REPOSITORY = "[lab]\nname=Lab\nenabled=1\ngpgcheck=0\nbaseurl=file:///packages\n"
PACMAN = f"[options]\nArchitecture=x86_64\nSigLevel=Never\n[{ssh_packages.REPOSITORY}]\nServer=file:///packages\n"
# The module takes it for an error if nothing at all is installed, or nothing because something else needs it.
INSTALLED = "/var/lib/pacman/local"

MANAGERS = (
    Manager(
        "dnf",
        "dnf list --installed openssh-server",
        {"/etc/os-release": "NAME=AlmaLinux\nID=almalinux\n", "/etc/yum.repos.d/lab.repo": RPM_REPOSITORY},
    ),
    Manager(
        "pacman",
        "pacman --query openssh",
        {
            "/etc/os-release": 'NAME="Arch Linux"\nID=arch\n',
            "/etc/pacman.conf": PACMAN,
            f"{INSTALLED}/ALPM_DB_VERSION": "9\n",
            f"{INSTALLED}/base-1-1/desc": "%NAME%\nbase\n\n%VERSION%\n1-1\n\n",
            f"{INSTALLED}/glibc-1-1/desc": "%NAME%\nglibc\n\n%VERSION%\n1-1\n\n%REASON%\n1\n\n",
        },
    ),
    Manager(
        "zypper",
        "zypper search --installed-only openssh-server",
        {"/etc/os-release": "NAME=openSUSE\nID=opensuse\n", "/etc/zypp/repos.d/lab.repo": RPM_REPOSITORY},
    ),
)

# The line after it too, since programs that handle keys have the first one in them.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{32}")


@dataclass(frozen=True)
class Container:
    """A running container on the controller's engine, on which the role can be applied."""

    engine: Engine
    name: str
    inventory: Path

    def apply(self, *arguments: str, connection: str = "haku.river.env", **variables: Any) -> Run:
        """Apply the role with these variables."""
        role = {"name": "Apply the role", "ansible.builtin.include_role": {"name": "haku.river.sshd"}}
        connected = {"ansible_connection": connection, "ansible_host": self.name}
        return run_play(self.inventory, "inside", [role], *arguments, vars={**connected, **variables})

    def inside(self, command: str) -> str:
        """Run a shell command in the container."""
        return self.engine.docker("exec", self.name, "sh", "-c", command)

    @property
    def settings(self) -> set[str]:
        """What sshd tells that holds for root."""
        key = "/dev/shm/key"
        told = self.inside(
            f"ssh-keygen -q -t ed25519 -N '' -f {key}; sshd -T -h {key} -C user=root,host=h,addr=::1; rm {key}*"
        )
        return set(told.splitlines())


@dataclass(frozen=True)
class Prepared:
    """An environment that the role was applied to, packaged and synchronised, and how that went."""

    container: Container
    environment: Environment
    forecast: Run
    untouched: str
    first: Run
    second: Run


@dataclass(frozen=True)
class SshMachine:
    """A machine started from the image, and how to reach it."""

    engine: Engine
    name: str
    folder: Path

    @property
    def address(self) -> str:
        """Its address on the engine's bridge."""
        return self.engine.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name).strip()

    @property
    def host_key(self) -> str:
        """Its public host key, without the comment."""
        return " ".join(self.engine.docker("exec", self.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def ssh(self, host_key: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Have the client log in, which trusts this host key only, and say who it is there."""
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(f"{self.address} {host_key}\n")
        trust = ("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known_hosts}")
        own = ("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-i", str(self.folder / "key"))
        command = ["ssh", *own, *trust, *options, f"root@{self.address}", "id -un"]
        own_environment = {**os.environ, **environment}
        return subprocess.run(
            command, env=own_environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )


def start_container(engine: Engine, name: str, image: str, folder: Path) -> Container:
    """Start a container as an env container runs, with the inventory by which Ansible reaches it."""
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={name}")
    engine.docker("run", "--detach", "--init", *labels, "--name", name, image, "sleep", "infinity")
    inventory = folder / "inventory.ini"
    inventory.write_text(f"inside ansible_haku_container={name} ansible_python_interpreter=/usr/bin/python3\n")
    return Container(engine, name, inventory)


@pytest.fixture(scope="module")
def prepared(main_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Give an environment that the role was applied to, twice, after a check."""
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "shared/hakuriver-containers").mkdir(parents=True)
    environment = Environment(main_engine, NAME, folder / "shared")
    environment.leave()  # what a killed run has left
    try:
        container = start_container(main_engine, NAME, images.provide(images.PYTHON, main_engine), folder)
        forecast = container.apply("--check", "--diff").succeeded()
        untouched = main_engine.docker("diff", NAME)
        first = container.apply().succeeded()
        succeed("haku_tar", **environment.options)
        second = container.apply().succeeded()
        succeed("haku_sync", **environment.options)
        yield Prepared(container, environment, forecast, untouched, first, second)
    finally:
        environment.leave()


@pytest.fixture
def machine(prepared: Prepared, tmp_path: Path) -> Iterator[SshMachine]:
    """Give a machine started from the image, with our key."""
    yield from start_machine(prepared, f"{NAME}-1", tmp_path)


@pytest.fixture
def other_machine(prepared: Prepared, tmp_path: Path) -> Iterator[SshMachine]:
    """Give another one."""
    yield from start_machine(prepared, f"{NAME}-2", tmp_path)


def start_machine(prepared: Prepared, name: str, folder: Path) -> Iterator[SshMachine]:
    """Start a machine while the block lasts."""
    engine = prepared.environment.engine
    engine.docker("rm", "--force", name)
    try:
        engine.docker("run", "--detach", "--tmpfs=/run", "--name", name, prepared.environment.image, "sh", "-c", START)
        machine = SshMachine(engine, name, folder)
        key = folder / "key"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        install = ("install", "--mode=600", "/dev/stdin", "/root/.ssh/authorized_keys")
        engine.docker("exec", "--interactive", name, *install, stdin=key.with_suffix(".pub"))
        wait_until(lambda: succeeds("ssh-keyscan", "-t", "ed25519", machine.address), f"sshd in {name}")
        yield machine
    finally:
        engine.docker("rm", "--force", "--volumes", name)


@pytest.fixture
def changeable(prepared: Prepared, tmp_path: Path) -> Iterator[Container]:
    """Give a container of the prepared image, to be spoilt."""
    engine = prepared.environment.engine
    name = f"{NAME}-3"
    engine.docker("rm", "--force", name)
    yield start_container(engine, name, prepared.environment.image, tmp_path)
    engine.docker("rm", "--force", "--volumes", name)


def private_keys(tarball: Path) -> list[str]:
    """Return the path of each file with a private key, in any layer of an image's tarball."""
    found = []
    with tarfile.open(tarball) as archive:
        for blob in archive:
            # Manifests and configurations are no tar files.
            with suppress(tarfile.ReadError), tarfile.open(fileobj=archive.extractfile(blob)) as layer:
                for member in layer:
                    file = layer.extractfile(member) if member.isreg() else None
                    if file and PRIVATE_KEY.search(file.read()):
                        found.append(member.name)
    return found


def test_a_check_forecasts_the_run_and_the_second_run_changes_nothing(prepared: Prepared) -> None:
    assert prepared.first.changed
    assert prepared.forecast.changed == prepared.first.changed
    assert "sshd" not in prepared.untouched
    assert prepared.second.changed == []


def test_a_run_that_changes_nothing_makes_no_new_version(prepared: Prepared) -> None:
    assert not succeed("haku_tar", **prepared.environment.options)["changed"]
    assert len(prepared.environment.versions) == 1


def test_the_image_holds_no_private_key(prepared: Prepared, tmp_path: Path) -> None:
    (version,) = prepared.environment.versions
    # The libraries of the base image have keys to test themselves with.
    assert private_keys(prepared.environment.tarball(version)) == private_keys(images.PYTHON.tarball)

    # Had there been one, this would have found it.
    run("ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", tmp_path / "key")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(tmp_path / "key", "etc/ssh/ssh_host_rsa_key")
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        blob = tarfile.TarInfo("blobs/sha256/0")
        blob.size = len(layer.getvalue())
        archive.addfile(blob, io.BytesIO(layer.getvalue()))
    assert private_keys(tmp_path / "image.tar") == ["etc/ssh/ssh_host_rsa_key"]


def test_the_image_keeps_no_packages_and_no_index(prepared: Prepared) -> None:
    left = prepared.container.inside("find /var/lib/apt/lists /var/cache/apt -type f ! -name lock")
    assert left == ""


def test_machines_have_host_keys_of_their_own_and_let_root_in_by_key(
    machine: SshMachine, other_machine: SshMachine
) -> None:
    assert machine.host_key != other_machine.host_key
    for each in (machine, other_machine):
        login = each.ssh(each.host_key, "-o", "BatchMode=yes")
        assert (login.returncode, login.stdout) == (0, "root\n"), login.stderr
    impostor = machine.ssh(other_machine.host_key, "-o", "BatchMode=yes")
    assert impostor.returncode == 255
    assert "Host key verification failed" in impostor.stderr


def test_a_machine_keeps_its_host_key_when_restarted(machine: SshMachine) -> None:
    before = machine.host_key
    machine.engine.docker("restart", machine.name)
    wait_until(lambda: succeeds("ssh-keyscan", "-t", "ed25519", machine.address), "sshd after the restart")
    login = machine.ssh(before, "-o", "BatchMode=yes")
    assert login.stdout == "root\n", login.stderr


def test_not_even_the_right_password_is_taken(machine: SshMachine, tmp_path: Path) -> None:
    machine.engine.docker("exec", "--interactive", machine.name, "chpasswd", stdin=f"root:{PASSWORD}\n".encode())
    answer = tmp_path / "answer"
    answer.write_text(f"#!/bin/sh\necho {PASSWORD}\n")
    answer.chmod(0o755)
    by_password = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=keyboard-interactive,password")
    login = machine.ssh(machine.host_key, *by_password, SSH_ASKPASS=str(answer), SSH_ASKPASS_REQUIRE="force")
    assert login.returncode == 255
    assert "Permission denied (publickey)." in login.stderr


def test_the_settings_hold_over_any_connection(prepared: Prepared) -> None:
    assert prepared.container.settings >= PROMISED
    assert prepared.container.apply(connection="community.docker.docker").succeeded().changed == []


def test_a_careless_image_is_put_right(changeable: Container) -> None:
    changeable.inside(
        "rm /etc/ssh/sshd_config.d/*; "
        "printf 'PasswordAuthentication yes\\nPermitRootLogin yes\\n' >/etc/ssh/sshd_config; "
        f"echo root:{PASSWORD} | chpasswd; usermod --lock root; ssh-keygen -A"
    )
    forecast = changeable.apply("--check").succeeded()
    first = changeable.apply().succeeded()
    assert forecast.changed == first.changed
    assert {task for task, _machine in first.changed} == {
        "Remove the host keys",
        "Take root's password away",
        "Write the configuration at the head of the main file, which takes no drop-in files",
    }
    assert changeable.settings >= PROMISED
    assert changeable.inside("getent shadow root").startswith("root:*:")
    assert changeable.inside("find /etc/ssh -name 'ssh_host_*'") == ""
    assert changeable.apply().succeeded().changed == []


@pytest.fixture(params=MANAGERS, ids=lambda manager: manager.name)
def manager(request: pytest.FixtureRequest) -> Manager:
    """Give a package manager that is not Debian's; the test runs once for each."""
    found: Manager = request.param
    return found


@pytest.fixture
def foreign(manager: Manager, main_engine: Engine, tmp_path: Path) -> Iterator[Container]:
    """Give a container of the distribution that has this package manager, as far as the role can tell."""
    name = f"{NAME}-{manager.name}"
    main_engine.docker("rm", "--force", name)
    container = start_container(main_engine, name, images.provide(images.MANAGERS, main_engine), tmp_path)
    main_engine.docker("cp", ssh_packages.published(), f"{name}:/packages")
    manager.set_up(container)
    yield container
    main_engine.docker("rm", "--force", "--volumes", name)


def test_the_server_is_installed_by_the_package_manager_of_the_image(manager: Manager, foreign: Container) -> None:
    run = foreign.apply().succeeded()
    assert run.changed[0] == ("Install the SSH server", "inside")
    assert "openssh" in foreign.inside(manager.query)
    assert foreign.settings >= PROMISED
    assert foreign.inside("find / -xdev -name 'ssh_host_*'") == ""


def test_settings_of_the_users_hold(changeable: Container) -> None:
    settings = {"ClientAliveInterval": 60, "AllowTcpForwarding": False, "AcceptEnv": ["HAKU_*", "MORE"]}
    assert changeable.apply(sshd_settings=settings).succeeded().changed
    assert changeable.settings >= {*PROMISED, "clientaliveinterval 60", "allowtcpforwarding no", "acceptenv HAKU_*"}


def test_settings_that_would_break_a_promise_are_refused(changeable: Container) -> None:
    complaint = changeable.apply(sshd_settings={"passwordAuthentication": True}).failed()
    assert "passwordauthentication" in complaint
    assert changeable.settings >= PROMISED


def test_a_wrong_setting_is_not_put_in_place(changeable: Container) -> None:
    run = changeable.apply(sshd_settings={"NoSuchSetting": "1"})
    assert run.failed() == "failed to validate"
    assert "Bad configuration option: NoSuchSetting" in run.printed
    assert changeable.settings >= PROMISED


@pytest.mark.parametrize(
    "spoil",
    [
        "echo PasswordAuthentication yes >/etc/ssh/sshd_config.d/00-a.conf",
        "printf 'Match User root\\nPasswordAuthentication yes\\n' >>/etc/ssh/sshd_config",
    ],
    ids=["a drop-in file before ours", "a Match block"],
)
def test_what_holds_instead_is_an_error_that_names_it(changeable: Container, spoil: str) -> None:
    changeable.inside(spoil)
    complaint = changeable.apply().failed()
    assert "PasswordAuthentication is yes, and has to be no" in complaint
    assert changeable.inside("ls /dev/shm") == ""
