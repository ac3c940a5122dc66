# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines for Ansible to manage: systemd, sshd, a Docker engine of their own and a directory shared between them."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .engines import Engine, main, start_main
from .host import HOME, PREFIX, LabError, exclusive, remove, require, run, wait_until
from .images import Image, debian, provide

SHARED = Path("/shared")
"""The shared directory as the machines see it."""

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "sudo", "procps", "iproute2", "iptables", "ca-certificates"),
    *("openssh-server", "python3", "python3-apt"),
)

# All capabilities but SYS_RESOURCE: where the host lacks that one, --privileged is refused ("unable to apply caps").
_CONTAINER_OPTIONS = (
    *(
        "--cap-add=ALL",
        "--cap-drop=SYS_RESOURCE",
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
    ),
    *("--security-opt=systempaths=unconfined", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs=/run", "--tmpfs=/run/lock", "--stop-signal=SIGRTMIN+3"),
    "--volume=/var/lib/docker",  # overlay2 can't lie on the container's own overlay
)


@dataclass(frozen=True)
class Machine:
    """A running machine; `name` is its host name and its name in the inventory."""

    name: str
    container: str
    address: str
    engine: Engine

    def run(self, *command: str | Path, stdin: bytes | Path | None = None) -> str:
        """Run a command on the machine as root and return what it printed."""
        return self.engine.docker("exec", "--interactive", self.container, *command, stdin=stdin)

    def docker(self, *arguments: str | Path, stdin: bytes | Path | None = None) -> str:
        """Run the Docker command line on the machine's own engine and return what it printed."""
        return self.run("docker", *arguments, stdin=stdin)

    def succeeds(self, *command: str | Path) -> bool:
        """Tell whether a command on the machine ends well."""
        try:
            self.run(*command)
        except LabError:
            return False
        return True


@dataclass(frozen=True)
class Fleet:
    """Machines of one image that share a directory. The first is the group `haku_host`, the others `haku_runners`."""

    name: str
    image: Image
    members: tuple[str, ...]
    probes: tuple[tuple[str, ...], ...]
    """Commands that succeed on a machine once it is ready."""

    @property
    def directory(self) -> Path:
        """What the host keeps of these machines."""
        return HOME / self.name

    @property
    def inventory(self) -> Path:
        """The Ansible inventory, written by `start`."""
        return self.directory / "inventory.ini"

    @property
    def shared(self) -> Path:
        """The machines' shared directory as the host sees it."""
        return self.directory / "shared"


MACHINES = Fleet(
    "machines",
    debian("haku-lab/machine:docker", (*_PACKAGES, "docker.io", "python3-docker"), "/sbin/init"),
    ("node1", "node2", "node3"),
    (("systemctl", "is-active", "ssh"), ("docker", "version")),
)

BARE = Fleet(
    "bare",
    debian("haku-lab/machine:bare", _PACKAGES, "/sbin/init"),
    ("bare1", "bare2", "bare3"),
    (("systemctl", "is-active", "ssh"),),
)
"""Machines without Docker, for the roles that install it."""

MOLECULE = Fleet("molecule", BARE.image, ("host", "runner1", "runner2"), BARE.probes)
"""The same for Molecule's scenarios."""

FLEETS = {fleet.name: fleet for fleet in (MACHINES, BARE, MOLECULE)}


@exclusive("machines")
def start(fleet: Fleet = MACHINES) -> dict[str, Machine]:
    """Start the fleet's machines, those not running already, and return when each is ready.

    Keys are the names in the inventory, `fleet.inventory`.
    """
    engine = start_main()
    provide(fleet.image, engine)
    fleet.shared.mkdir(parents=True, exist_ok=True)
    key = _private_key()
    with ThreadPoolExecutor() as pool:
        machines = list(pool.map(lambda name: _start(fleet, name, engine, key), fleet.members))
    _write_inventory(fleet, machines, key)
    return {machine.name: machine for machine in machines}


def stop(fleet: Fleet) -> None:
    """Remove the fleet's machines with all that is on them and on their shared directory."""
    engine = main()
    if engine:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: _remove(name, engine), fleet.members))
    remove(fleet.directory)


def running(fleet: Fleet = MACHINES) -> dict[str, Machine]:
    """Return the fleet's machines that run now, by name."""
    engine = main()
    if engine is None:
        return {}
    return {name: _describe(name, engine) for name in fleet.members if _exists(engine, name, "status=running")}


def discard(machine: Machine) -> None:
    """Remove one machine with all that is on it; `start` makes it anew."""
    machine.engine.docker("rm", "--force", "--volumes", machine.container)


def _start(fleet: Fleet, name: str, engine: Engine, key: Path) -> Machine:
    container = _container(name)
    if not _exists(engine, name, "status=running", f"ancestor={fleet.image.name}"):
        _remove(name, engine)
        own_options = ("--name", container, "--hostname", name, f"--volume={fleet.shared}:{SHARED}")
        engine.docker("run", "--detach", *own_options, *_CONTAINER_OPTIONS, fleet.image.name)
    machine = _describe(name, engine)
    public_key = key.with_suffix(".pub")
    machine.run("install", "-D", "--mode=600", "/dev/stdin", "/root/.ssh/authorized_keys", stdin=public_key)
    for probe in fleet.probes:
        wait_until(functools.partial(machine.succeeds, *probe), f"`{' '.join(probe)}` on {name}")
    return machine


def _remove(name: str, engine: Engine) -> None:
    if _exists(engine, name):
        engine.docker("rm", "--force", "--volumes", _container(name))


def _describe(name: str, engine: Engine) -> Machine:
    container = _container(name)
    address = engine.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).strip()
    return Machine(name, container, address, engine)


def _container(name: str) -> str:
    return f"{PREFIX}-{name}"


def _exists(engine: Engine, name: str, *conditions: str) -> bool:
    """Tell whether the engine has the machine's container, with these conditions of `docker ps --filter`."""
    filters = [f"--filter={condition}" for condition in (f"name=^{_container(name)}$", *conditions)]
    return bool(engine.docker("ps", "--all", "--quiet", *filters))


def _private_key() -> Path:
    """Return the SSH key that root on every machine accepts."""
    require("ssh-keygen")
    key = HOME / "id_ed25519"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PREFIX, "-f", key)
    return key


def _write_inventory(fleet: Fleet, machines: list[Machine], key: Path) -> None:
    known_hosts = fleet.directory / "known_hosts"
    host_keys = [f"{machine.address} {machine.run('cat', '/etc/ssh/ssh_host_ed25519_key.pub')}" for machine in machines]
    known_hosts.write_text("".join(host_keys))
    host, *runners = [f"{machine.name} ansible_host={machine.address}" for machine in machines]
    variables = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": key,
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
        "haku_shared_dir": SHARED,
    }
    lines = ["[haku_host]", host, "", "[haku_runners]", *runners, "", "[all:vars]"]
    lines += [f"{name}={value}" for name, value in variables.items()]
    fleet.inventory.write_text("\n".join(lines) + "\n")
