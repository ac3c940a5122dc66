# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine as a terminal reaches it: by OpenSSH's own client, or the controller itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Machine:
    """A machine of the inventory.

    `ssh` is the client's command line up to the destination; the controller itself has none. `engine` is the engine's
    command there, None for whichever there is. `become` comes before it.
    """

    name: str
    ssh: tuple[str, ...] = ()
    become: tuple[str, ...] = ()
    engine: tuple[str, ...] | None = None

    def command(self, script: str, *ssh_options: str) -> list[str]:
        """The command that runs a script for the POSIX shell there."""
        there = ["sh", "-c", script]
        if not self.ssh:
            return there
        client, *words = self.ssh
        # What follows the destination is one line for the shell that the user has there.
        return [client, *ssh_options, *words, shlex.join(there)]


def ssh_command(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The client's command line up to the destination, from the options of Ansible's connection plugin.

    Of an option that is given twice, ssh takes the first, so they stand in the plugin's order. Passwords are no part of
    it: ssh asks for them.
    """
    words = [options["ssh_executable"], *shlex.split(options["ssh_args"] or "")]
    if not options["host_key_checking"]:
        words.append("-oStrictHostKeyChecking=no")
    if options["port"]:
        words += ["-p", str(options["port"])]
    if options["private_key_file"]:
        words += ["-i", str(Path(options["private_key_file"]).expanduser())]
    if options["remote_user"]:
        words += ["-l", options["remote_user"]]
    words.append(f"-oConnectTimeout={options['timeout']}")
    for more in ("ssh_common_args", "ssh_extra_args"):
        words += shlex.split(options[more] or "")
    return (*words, options["host"])


def sudo_command(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What comes before a command, from the options of Ansible's become plugin; sudo asks for a password by itself."""
    return (*shlex.split(options["become_exe"] or "sudo"), "-H", "-u", options["become_user"] or "root")
