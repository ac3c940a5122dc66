# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""More engines on one machine, so that it is several Runners to Ansible, some of them with a disk that is soon full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .host import wait_until
from .machines import Machine


@contextmanager
def small_engine(machine: Machine, name: str, megabytes: int) -> Iterator[Path]:
    """Start an engine whose disk is so small, for the length of the block.

    Gives a Python interpreter on the machine from which modules find that engine (`ansible_python_interpreter`). Its
    containers have the network `none` and no other.
    """
    disk, interpreter = Path(f"/srv/{name}"), Path(f"/usr/local/bin/python3-{name}")
    url = f"unix:///run/{name}.sock"
    machine.run("mkdir", "-p", disk)
    machine.run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", disk)
    places = ("--data-root", disk, "--exec-root", f"/run/{name}", "--pidfile", f"/run/{name}.pid")
    spaces = ("--containerd-namespace", name, "--containerd-plugins-namespace", f"{name}-plugins")
    options = (*places, *spaces, "--bridge=none", "--iptables=false")
    # In a network of its own: `--bridge=none` would delete the docker0 of the machine's first engine.
    service = ("systemd-run", "--quiet", f"--unit={name}", "--collect", "--property=PrivateNetwork=yes")
    machine.run(*service, "dockerd", "--host", url, *options)
    script = f'#!/bin/sh\nexec env DOCKER_HOST={url} /usr/bin/python3 "$@"\n'
    machine.run("install", "-m", "755", "/dev/stdin", interpreter, stdin=script.encode())
    try:
        wait_until(lambda: machine.succeeds("docker", "--host", url, "version"), f"the engine {name} on {machine.name}")
        yield interpreter
    finally:
        machine.run("systemctl", "stop", name)
        machine.run("umount", disk)
        machine.run("rm", "-r", disk, interpreter)
