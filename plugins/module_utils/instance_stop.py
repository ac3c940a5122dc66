# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stopping a server the way it wants to be stopped, and otherwise the way it has to be."""

from __future__ import annotations

import signal as signals
import time
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.console_commands import check_line
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.ranges import check_from_zero
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE, keeps_running

_POLL_SECONDS = 0.1
_KILL_SECONDS = 30


@dataclass(frozen=True)
class Stopping:
    """How to stop: by this console command (none if empty) and so much time, then by the stop signal and so much."""

    shutdown_command: str = "shutdown"
    grace_seconds: int = 60
    signal_seconds: int = 10

    def __post_init__(self) -> None:
        """Raise `HakuError` for what cannot be typed or waited for; else a server might be stopped unsaved."""
        check_from_zero(grace_period=self.grace_seconds, stop_timeout=self.signal_seconds)
        if self.shutdown_command:
            check_line(self.shutdown_command)


@dataclass(frozen=True)
class Step:
    """What was tried: `console`, `signal` or `kill`, with the command or signal; whether the server ended by it.

    `problem` says why the console did not take the command.
    """

    step: str
    what: str
    ended: bool
    seconds: float
    problem: HakuError | None = None

    def as_result(self) -> dict[str, Any]:
        """As the module reports it."""
        return {**asdict(self), "problem": str(self.problem) if self.problem else None}


def stop_gracefully(interface: EngineInterface, found: dict[str, Any], how: Stopping) -> list[Step]:
    """Stop a container, which `found` inspected, and return the steps that were needed; the last one ended it.

    Raises `HakuError` if it still runs after SIGKILL.
    """
    container_id, started = found["Id"], found["State"]["StartedAt"]
    if found["State"]["Status"] == "paused":
        interface.engine.unpause(container_id)
    # One that ends again and again is not there for long enough to be spoken to.
    speaks = not found.get("RestartCount") or keeps_running(interface.engine, container_id)
    # Else the engine would start it again: to the engine, a server that ends by itself has failed.
    interface.engine.end_restarts(container_id)
    steps = []
    if how.shutdown_command and speaks and found["Config"].get("OpenStdin"):
        steps.append(_by_console(interface, found, how, started))
    signal = found["Config"].get("StopSignal") or "SIGTERM"
    for name, what, seconds in (("signal", _named(signal), how.signal_seconds), ("kill", "SIGKILL", _KILL_SECONDS)):
        if steps and steps[-1].ended:
            return steps
        began = time.monotonic()
        interface.engine.kill(container_id, what)
        ended = _has_ended(interface, container_id, None, began + seconds)
        steps.append(Step(name, what, ended, _since(began)))
    if not steps[-1].ended:
        raise HakuError(f"{found['Name'].lstrip('/')} still runs after SIGKILL", where=interface.engine.url)
    return steps


def _by_console(interface: EngineInterface, found: dict[str, Any], how: Stopping, started: str) -> Step:
    began = time.monotonic()
    deadline = began + how.grace_seconds
    problem: HakuError | None = None
    try:
        interface.shut_down(found["Id"], how.shutdown_command, how.grace_seconds)
    except HakuError as error:
        problem = error
        # Of a console that does not answer, or is not there, nothing is to be expected any more.
        deadline = time.monotonic()
    ended = _has_ended(interface, found["Id"], started, deadline)
    return Step("console", how.shutdown_command, ended, _since(began), None if ended else problem)


def _has_ended(interface: EngineInterface, container_id: str, started: str | None, deadline: float) -> bool:
    """Whether a container ends until the deadline; one that the engine has started again since has not."""
    while True:
        found = interface.engine.find_container(container_id)
        if found is None or found["State"]["Status"] not in ALIVE:
            return True
        if time.monotonic() >= deadline or started not in (None, found["State"]["StartedAt"]):
            return False
        time.sleep(_POLL_SECONDS)


def _named(signal: str) -> str:
    """Podman tells signals by their numbers."""
    return next((it.name for it in signals.Signals if str(it.value) == signal), signal)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)
