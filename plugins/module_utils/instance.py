# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting and stopping a server, and running programs beside it: what there is, what is to be done, and doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings
from ansible_collections.haku.river.plugins.module_utils.docker_interface import DockerInterface
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.instance_stop import Step, Stopping, stop_gracefully
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.podman_interface import PodmanInterface
from ansible_collections.haku.river.plugins.module_utils.program import Ended
from ansible_collections.haku.river.plugins.module_utils.ranges import check_from_zero
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE, keeps_running

INTERFACE_OPTIONS: dict[str, dict[str, Any]] = {
    "engine": {"type": "str", "choices": ["docker", "podman"], "default": "docker"},
}
"""The argument specification of the doc fragment `haku.river.engine.kind`."""

_LAST_LINES = 10


@dataclass(frozen=True)
class Wish:
    """What the user wants; `state` is the module's choice or None, `program` is run once that state is reached."""

    name: str
    state: str | None = None
    stopping: Stopping = field(default_factory=Stopping)
    program: tuple[str, ...] = ()
    program_seconds: int = 60

    def __post_init__(self) -> None:
        """Raise `HakuError` for a time that cannot be."""
        check_from_zero(exec_timeout=self.program_seconds)


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order, and the state that the instance then has."""

    stops: bool
    starts: bool
    runs: bool
    state: str


@dataclass(frozen=True)
class Done:
    """What was done."""

    stopped_by: tuple[Step, ...] = ()
    ended: Ended | None = None


def open_interface(kind: str, options: Mapping[str, Any]) -> EngineInterface:
    """Connect to the engine of that kind; `options` are those of the engine."""
    return {"docker": DockerInterface, "podman": PodmanInterface}[kind](EngineSettings(**options))


def manage_instance(interface: EngineInterface, wish: Wish, check_mode: bool) -> Outcome:
    """Bring the instance into the wanted state."""
    found = interface.existing(wish.name)
    there = interface.get_instance_status(found["Id"])
    decided = plan(there["status"], wish)
    if wish.state == "started" and not decided.starts and not _keeps_running(interface, found):
        raise _not_running(interface, found, wish.name)
    done = None if check_mode else apply(interface, found, decided, wish)
    stopped_by = None if done is None and decided.stops else [it.as_result() for it in done.stopped_by] if done else []
    ended = asdict(done.ended) if done and done.ended else {"rc": None, "stdout": None, "stderr": None}
    failure = _failure(interface, wish, done.ended) if done and done.ended and done.ended.rc else ""
    return Outcome(
        changed=decided.stops or decided.starts or decided.runs,
        facts={
            "instance": {**there, "status": decided.state},
            "actions": _actions(decided, wish),
            "stopped_by": stopped_by,
            **(ended if decided.runs else {}),
        },
        before={"status": there["status"]},
        after={"status": decided.state},
        warnings=(*interface.warnings, *_complaints(done)),
        failure=failure,
    )


def plan(status: str, wish: Wish) -> Plan:
    """Decide what to do with an instance in that state."""
    alive = status in ALIVE
    stops = alive and wish.state in ("stopped", "restarted")
    starts = wish.state == "restarted" or (wish.state == "started" and status != "running")
    state = "running" if starts else "exited" if stops else status
    if wish.program and state != "running":
        raise HakuError(
            f"{wish.name} is {state}, and programs can only run in a running container",
            remedy="Set state: started, or leave exec out",
        )
    return Plan(stops, starts, bool(wish.program), state)


def apply(interface: EngineInterface, found: dict[str, Any], decided: Plan, wish: Wish) -> Done:
    """Do what was decided."""
    stopped_by = stop_gracefully(interface, found, wish.stopping) if decided.stops else []
    if decided.starts and not interface.start_instance(found["Id"]):
        raise _not_running(interface, found, wish.name)
    if not decided.runs:
        return Done(tuple(stopped_by))
    return Done(tuple(stopped_by), interface.run_program(found["Id"], wish.program, wish.program_seconds))


def _keeps_running(interface: EngineInterface, found: dict[str, Any]) -> bool:
    """Whether a running instance will still run: one that ends again and again runs in between."""
    return not found.get("RestartCount") or keeps_running(interface.engine, found["Id"])


def _actions(decided: Plan, wish: Wish) -> list[str]:
    return [
        *([f"stop instance {wish.name}"] if decided.stops else []),
        *([f"start instance {wish.name}"] if decided.starts else []),
        *([f"run {wish.program[0]} in instance {wish.name}"] if decided.runs else []),
    ]


def _failure(interface: EngineInterface, wish: Wish, ended: Ended) -> str:
    error = HakuError(
        f"{wish.program[0]!r} in {wish.name} ended with exit code {ended.rc}",
        where=interface.engine.url,
        cause=(ended.stderr or ended.stdout).strip()[-500:],
    )
    return str(error)


def _complaints(done: Done | None) -> list[str]:
    """What people should hear about a stop that did not go as they wished."""
    steps = done.stopped_by if done else ()
    # Without the console's own words: Ansible shows warnings of hidden tasks too, and a server may write anything.
    problems = [step.problem.what for step in steps if step.problem]
    complaints = [f"The console did not stop the server: {what}. stopped_by has more" for what in problems]
    if steps and steps[-1].step == "kill":
        complaints.append("The server had to be killed; what it had not saved is lost")
    return complaints


def _not_running(interface: EngineInterface, found: dict[str, Any], name: str) -> HakuError:
    try:
        cause = f"it last wrote: {interface.get_instance_logs(found['Id'], _LAST_LINES)}"
    except HakuError:
        # A log that cannot be read must not hide what went wrong.
        cause = ""
    return HakuError(
        f"{name} does not keep running",
        where=interface.engine.url,
        cause=cause,
        remedy="Look at its configuration, mounts and network",
    )
