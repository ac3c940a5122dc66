# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a manager of servers asks of whatever runs them. The names are those of the Resonite headless manager."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TypeVar

_Self = TypeVar("_Self", bound="ExternalSystemInterface")


class ExternalSystemInterface(ABC):
    """A system that runs instances: containers of an engine here. Also a context manager, which cleans up.

    What cannot be done because of the system itself raises `HakuError`, a sentence with its cause and what to do.
    """

    @abstractmethod
    def is_instance_running(self, instance_name: str) -> bool:
        """Whether the instance runs; False if there is none."""

    @abstractmethod
    def get_instance_status(self, instance_name: str) -> dict[str, Any]:
        """`status` (such as `running` or `exited`), `name`, `id`, `image`; or `error`, and `unknown` as `status`."""

    @abstractmethod
    def start_instance(self, instance_name: str) -> bool:
        """Start it; True when it runs and keeps running, False if it does not, or if there is none."""

    @abstractmethod
    def stop_instance(self, instance_name: str) -> bool:
        """Stop it; True when it does not run any more, False if there is none."""

    @abstractmethod
    def restart_instance(self, instance_name: str) -> bool:
        """Restart it, or start it; True when it runs and keeps running, False if it does not, or if there is none."""

    @abstractmethod
    def execute_command(self, instance_name: str, command: str, timeout: float = 10) -> str:
        """Type a command into the server's own console and return its answer; `timeout` in seconds is for all of it."""

    @abstractmethod
    def get_instance_logs(self, instance_name: str, tail: int = 100) -> str:
        """The last lines of what the server wrote."""

    @abstractmethod
    def list_instances(self) -> list[dict[str, Any]]:
        """All instances, running or not, by name: `name`, `id`, `status`, `image`."""

    @abstractmethod
    def instance_exists(self, instance_name: str) -> bool:
        """Whether there is such an instance, running or not."""

    @abstractmethod
    def cleanup(self) -> None:
        """Close all connections. The interface cannot be used after that."""

    def get_interface_type(self) -> str:
        """What kind of system this is, for example `docker`."""
        return type(self).__name__.removesuffix("Interface").lower()

    def validate_instance_name(self, instance_name: str) -> bool:
        """Whether an instance can have this name."""
        return bool(instance_name.strip())

    def get_supported_commands(self) -> list[str]:
        """The commands that `execute_command` takes."""
        return []

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()
