# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program haku-shell: a shell in an environment on the Host, or in a task or a VPS on a Runner."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from typing import NoReturn

from ansible import constants
from ansible.cli import CLI
from ansible.cli.arguments.option_helpers import add_vault_options
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.plugin_utils.shell_inventory import Inventory
from ansible_collections.haku.river.plugins.plugin_utils.shell_machine import Machine
from ansible_collections.haku.river.plugins.plugin_utils.shell_session import (
    ENVIRONMENTS,
    WORK,
    Kind,
    environment,
    listing,
    opening,
    work,
)

_COMPLETION_SECONDS = 10


def main() -> None:
    """Do what the command line asks, and end as the shell ended."""
    parser = _parser()
    options = parser.parse_args()
    place, colon, name = (options.place or "").rpartition(":")
    if colon and options.start:
        parser.error("--start is for environments")
    try:
        inventory = Inventory(_loader(options), options.inventory)
        if options.complete:
            print("".join(f"{name}\n" for name in candidates(inventory, options.place or "")), end="")
            return
        machine = inventory.machine(place) if colon else inventory.host()
        if not name:
            _list(machine, WORK if colon else ENVIRONMENTS)
        again = shlex.join(["haku-shell", "--start", *sys.argv[1:]])
        wanted = work(name) if colon else environment(name, options.start, again)
        term = os.environ.get("TERM") or "xterm" if sys.stdin.isatty() else None
        _hand_over(machine, opening(machine, wanted, term), terminal=bool(term))
    except (HakuError, AnsibleError) as error:
        sys.exit(f"haku-shell: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def candidates(inventory: Inventory, word: str) -> list[str]:
    """What the beginning of a word may become: environments, Runners, and what is on a Runner."""
    runner, colon, _name = word.rpartition(":")
    if colon:
        containers = _names(inventory.machine(runner), WORK)
        found = [f"{runner}:{name.removeprefix('haku-task-').removeprefix('haku-vps-')}" for name in containers]
    else:
        found = [*_names(inventory.host(), ENVIRONMENTS), *(f"{name}:" for name in inventory.runners)]
    return [name for name in found if name.startswith(word)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="haku-shell",
        description="Open a shell in an environment on the Host, or in a task or a VPS on a Runner. "
        "Without a name, list what there is.",
    )
    parser.add_argument("place", nargs="?", metavar="ENV | RUNNER:NAME", help="the environment, or the task or VPS")
    parser.add_argument("-i", "--inventory", action="append", help="the inventory, as for ansible-playbook")
    parser.add_argument("--start", action="store_true", help="start the environment's container if it is stopped")
    parser.add_argument("--complete", action="store_true", help="print what the name may become, for completion")
    add_vault_options(parser)
    return parser


def _loader(options: argparse.Namespace) -> DataLoader:
    """What reads files as Ansible's own programs do, with the secrets of the vault."""
    loader = DataLoader()
    secrets = CLI.setup_vault_secrets(
        loader,
        vault_ids=[*constants.DEFAULT_VAULT_IDENTITY_LIST, *options.vault_ids],
        vault_password_files=options.vault_password_files,
        ask_vault_pass=options.ask_vault_pass,
        auto_prompt=False,
    )
    loader.set_vault_secrets(secrets)
    return loader


def _list(machine: Machine, kind: Kind) -> NoReturn:
    print(f"{kind.title} on {machine.name}:", flush=True)
    # It needs no terminal, unless sudo asks for a password there.
    terminal = sys.stdin.isatty() and bool(machine.become)
    _hand_over(machine, listing(machine, kind, r"table {{.Names}}\t{{.Status}}"), terminal=terminal)


def _names(machine: Machine, kind: Kind) -> list[str]:
    """The names of containers, where nobody has to be asked for a password; none where that fails."""
    command = machine.command(listing(machine, kind, "{{.Names}}"), "-oBatchMode=yes")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMPLETION_SECONDS,
            start_new_session=True,  # away from the terminal, on which sudo would ask
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split()


def _hand_over(machine: Machine, script: str, *, terminal: bool) -> NoReturn:
    """Go on as the program that runs the script: terminal, signals, window size and exit code are its own."""
    command = machine.command(script, *(["-t"] if terminal else []))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise HakuError(
            f"{command[0]} cannot be started", cause=str(error), remedy="Install OpenSSH's client"
        ) from error
