# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""People on machines who are not root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.machines import Machine

PASSWORD = "correct-horse-battery"


@contextmanager
def operator(machine: Machine) -> Iterator[str]:
    """Have a user of the machine, by the lab's key, who may use its engine only by sudo, with `PASSWORD`."""
    user = "haku-operator"
    remove = ("userdel", "--force", "--remove", user)  # forced, as SSH keeps its session for a while
    machine.succeeds(*remove)  # what a killed run has left
    machine.run("useradd", "--create-home", "--shell", "/bin/bash", user)
    machine.run("chpasswd", stdin=f"{user}:{PASSWORD}\n".encode())
    keys = f"/home/{user}/.ssh"
    machine.run("install", "-D", "-o", user, "-m", "600", "/root/.ssh/authorized_keys", f"{keys}/authorized_keys")
    machine.run("chown", user, keys)
    rule = f"{user} ALL=(ALL) ALL\n".encode()
    machine.run("install", "-m", "440", "/dev/stdin", f"/etc/sudoers.d/{user}", stdin=rule)
    try:
        yield user
    finally:
        machine.run("rm", f"/etc/sudoers.d/{user}")
        machine.run(*remove)
