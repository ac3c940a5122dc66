# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances that are containers of an engine: what Docker and Podman have in common."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.connect import Attempt
from ansible_collections.haku.river.plugins.module_utils.console import Console, check_console
from ansible_collections.haku.river.plugins.module_utils.console_commands import (
    SUPPORTED_COMMANDS,
    check_command,
    ends_server,
)
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError, NoInstance
from ansible_collections.haku.river.plugins.module_utils.interface import ExternalSystemInterface
from ansible_collections.haku.river.plugins.module_utils.program import Ended, run_program
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE, keeps_running

STOP_TIMEOUT_SECONDS = 10
# The rule of the engines for names of containers; IDs keep it as well.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class EngineInterface(ExternalSystemInterface):
    """Instances on one engine. `attempts` tells where an engine was looked for; the last one is where it was found.

    All methods may be called by several threads at once. An instance is named by its container's name or ID.
    """

    def __init__(self, engine: Engine, attempts: Sequence[Attempt]) -> None:
        self.attempts = tuple(attempts)
        self.engine = engine
        # By the containers' IDs: a name may be another container's the next time.
        self._consoles: dict[str, Console] = {}
        self._users: Counter[str] = Counter()
        self._turn = threading.Lock()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know about the connection, for example that it is not encrypted."""
        return self.engine.warnings

    def validate_instance_name(self, instance_name: str) -> bool:
        return _NAME.fullmatch(instance_name) is not None

    def get_supported_commands(self) -> list[str]:
        return list(SUPPORTED_COMMANDS)

    # Seeing

    def instance_exists(self, instance_name: str) -> bool:
        return self.find(instance_name) is not None

    def is_instance_running(self, instance_name: str) -> bool:
        found = self.find(instance_name)
        return found is not None and found["State"]["Status"] == "running"

    def get_instance_status(self, instance_name: str) -> dict[str, Any]:
        try:
            found = self.existing(instance_name)
        except HakuError as error:
            return {"error": str(error), "status": "unknown"}
        return {
            "status": found["State"]["Status"],
            "name": found["Name"].lstrip("/"),
            "id": found["Id"],
            "image": found["Config"]["Image"],
        }

    def list_instances(self) -> list[dict[str, Any]]:
        listed = [
            {"name": _own_name(entry), "id": entry["Id"], "status": entry["State"], "image": entry["Image"]}
            for entry in self.engine.containers()
        ]
        return sorted(listed, key=lambda instance: str(instance["name"]))

    def get_instance_logs(self, instance_name: str, tail: int = 100) -> str:
        found = self.existing(instance_name)
        # Terminals write \r\n, of which Podman's log may lose the second half.
        return self.engine.last_words(found["Id"], tail).replace("\r\n", "\n").replace("\r", "\n")

    def check_console(self, instance_name: str, may_end: bool = False) -> None:
        """Raise `HakuError` unless a command can be typed into its console, or one that `may_end` the server."""
        check_console(self.engine, instance_name, self.existing(instance_name), may_end)

    def find(self, instance_name: str, timeout: float | None = None) -> dict[str, Any] | None:
        """What `docker inspect` says of the instance, or None; the engine may be silent for `timeout` seconds."""
        if not self.validate_instance_name(instance_name):
            return None
        return self.engine.find_container(instance_name, timeout)

    def existing(self, instance_name: str, timeout: float | None = None) -> dict[str, Any]:
        """What `docker inspect` says of the instance, as `find`; raises `NoInstance` if there is none."""
        found = self.find(instance_name, timeout)
        if found is None:
            raise NoInstance(
                f"There is no instance {instance_name!r}",
                where=self.engine.url,
                remedy="Look at the list of instances, also for one on another engine or of another user",
            )
        return found

    # Acting

    def start_instance(self, instance_name: str) -> bool:
        found = self.find(instance_name)
        if found is None:
            return False
        if found["State"]["Status"] == "paused":
            self.engine.unpause(found["Id"])
        self.engine.start(found["Id"])
        return keeps_running(self.engine, found["Id"])

    def stop_instance(self, instance_name: str, timeout: int = STOP_TIMEOUT_SECONDS) -> bool:
        """Stop it by its stop signal, and by SIGKILL after `timeout` seconds; True when it does not run any more."""
        found = self.find(instance_name)
        if found is None:
            return False
        self._thaw(found)
        self.engine.stop(found["Id"], timeout)
        return not self.is_instance_running(found["Id"])

    def restart_instance(self, instance_name: str, timeout: int = STOP_TIMEOUT_SECONDS) -> bool:
        """Stop it as `stop_instance` does if it runs, and start it; True when it runs and keeps running."""
        found = self.find(instance_name)
        if found is None:
            return False
        self._thaw(found)
        self.engine.restart(found["Id"], timeout)
        return keeps_running(self.engine, found["Id"])

    def execute_command(self, instance_name: str, command: str, timeout: float = 10, raw: bool = False) -> str:
        """Type a command into the server's own console and return its answer; `timeout` in seconds is for all of it.

        Commands that are not in `get_supported_commands` are refused, unless they are `raw`.
        """
        check_command(command, raw)
        return self._type(instance_name, command, timeout, ends_server(command))

    def shut_down(self, instance_name: str, command: str, timeout: float) -> str:
        """Type the command that ends the server, whatever it is called, and return what the server still says.

        The server need not have a prompt.
        """
        return self._type(instance_name, command, timeout, may_end=True)

    def run_program(self, instance_name: str, argv: Sequence[str], timeout: float = 60) -> Ended:
        """Run a program inside the container, beside the server, and wait for it: another thing than a command."""
        return run_program(self.engine, self.existing(instance_name)["Id"], argv, timeout)

    def cleanup(self) -> None:
        with self._turn:
            while self._consoles:
                self._consoles.popitem()[1].close()
            self._users.clear()
        self.engine.client.close()

    def _thaw(self, found: dict[str, Any]) -> None:
        """A frozen process cannot heed the signal to stop."""
        if found["State"]["Status"] == "paused":
            self.engine.unpause(found["Id"])

    def _type(self, instance_name: str, command: str, timeout: float, may_end: bool) -> str:
        deadline = time.monotonic() + timeout
        with self._console(instance_name, timeout) as console:
            return console.ask(command, timeout, may_end, deadline)

    @contextmanager
    def _console(self, instance_name: str, timeout: float) -> Iterator[Console]:
        """Give the console of an instance, which stays connected for the next command if it can."""
        console = self._connected(instance_name) or self._found(instance_name, timeout)
        try:
            yield console
        finally:
            with self._turn:
                self._users[console.container_id] -= 1
                self._close_ended()

    def _connected(self, container_id: str) -> Console | None:
        """The console of a container by its ID if it is there, and with it the container: no look is needed."""
        with self._turn:
            console = self._consoles.get(container_id)
            if console is None or not console.is_connected:
                return None
            self._users[container_id] += 1
            return console

    def _found(self, instance_name: str, timeout: float) -> Console:
        found = self.existing(instance_name, timeout)
        container_id = found["Id"]
        with self._turn:
            if container_id not in self._consoles:
                self._consoles[container_id] = Console(self.engine, found["Name"].lstrip("/"), container_id)
            self._users[container_id] += 1
            return self._consoles[container_id]

    def _close_ended(self) -> None:
        """Let go of the consoles whose servers have ended, or that did not work, unless somebody waits for one."""
        for container_id, console in list(self._consoles.items()):
            if self._users[container_id] <= 0 and not console.is_connected:
                self._consoles.pop(container_id).close()
                del self._users[container_id]


def is_alive(found: dict[str, Any]) -> bool:
    """Whether a container has processes, or will in a moment; `found` is what `docker inspect` says."""
    return found["State"]["Status"] in ALIVE


def _own_name(entry: dict[str, Any]) -> str:
    """A container's name; with old links it has others as well, below those of other containers."""
    names = [name.lstrip("/") for name in entry["Names"]]
    return min(names, key=lambda name: name.count("/"), default="")
