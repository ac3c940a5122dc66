# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks as the module sees them: running one and waiting for it, killing one, cleaning up what nobody looks after."""

from __future__ import annotations

import json
import os
import platform
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_steps import insist
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, LABEL_OUTPUT, LABEL_TASK
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.task import Ending, Task, container_name
from ansible_collections.haku.river.plugins.module_utils.task_image import Provided
from ansible_collections.haku.river.plugins.module_utils.task_record import (
    LOST,
    Output,
    Record,
    TaskFiles,
    describe,
    end_of,
)
from ansible_collections.haku.river.plugins.module_utils.task_supervisor import (
    LET_GO,
    Job,
    remove_task_container,
    start_supervisor,
)

RUNNING_OPTIONS: dict[str, dict[str, Any]] = {
    "time_limit": {"type": "int"},
    "stop_timeout": {"type": "int", "default": 10},
    "detach": {"type": "bool", "default": False},
    "output": {"type": "str", "choices": ["tail", "full", "none"], "default": "tail"},
    "output_bytes": {"type": "int", "default": 65536},
}
"""The argument specification of the fields of `Running` of these names."""

# Unless told so, Ansible takes an exit code that is not known yet for a failure. Where there is one, it is overridden.
_NO_FAILURE = {"failed": False}
_STDOUT = 1
# What Ansible ignores before a module's result, and what a dead connection does not take.
_HEARTBEAT = b"\n"
_HEARTBEAT_SECONDS = 5
# Another synchronisation may remove the image between ours and the container's creation; hardly so twice.
_TRIES = 3
_CLEAN_UP_SECONDS = 60
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Running:
    """What the user wants: a task in the image that `reference` names. Other fields are the options of the same names.

    With `secret`, the command is not written down. `is_named` says that the user has chosen the task's ID.
    """

    task: Task
    files: TaskFiles
    reference: str
    time_limit: int | None = None
    stop_timeout: int = 10
    detach: bool = False
    output: str = "tail"
    output_bytes: int = 65536
    secret: bool = False
    is_named: bool = True

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that has no meaning."""
        if self.time_limit is not None and self.time_limit <= 0:
            raise HakuError(f"time_limit: {self.time_limit} s leave no time", remedy="Leave it out for no limit")
        if self.output_bytes < 0:
            raise HakuError(f"output_bytes: {self.output_bytes} is not a number of bytes", remedy="Take 0 or more")

    def returned(self, path: Path) -> str:
        """As much of a file of output as is to be returned."""
        return end_of(path, {"full": None, "none": 0, "tail": self.output_bytes}[self.output])


class _ImageGone(HakuError):
    """The image was removed before the container was created."""


def run_task(engine: Engine, provide: Callable[[], Provided], wish: Running, check_mode: bool) -> Outcome:
    """Run a task in the image that `provide` brings, and wait for its end, unless it is to go on by itself."""
    wish.files.check_free()
    engine.check_offers(f"Task {wish.task.id} cannot be run as asked", *wish.task.special_needs)
    if check_mode:
        return _forecast(wish, provide())
    swept = clean_up(engine)
    for _try in range(_TRIES - 1):
        with suppress(_ImageGone):
            return _run(engine, provide(), wish, swept)
    return _run(engine, provide(), wish, swept)


def remove_task(
    engine: Engine, files: TaskFiles, stop_timeout_seconds: int, delete_outputs: bool, check_mode: bool
) -> Outcome:
    """Kill a task if it runs, and forget it if its outputs are to be deleted."""
    record = files.read()
    elsewhere = _running_elsewhere(engine, files, record)
    warnings = (f"Task {files.task_id} runs on {elsewhere}, and not here",) if elsewhere else ()
    if elsewhere:
        before = after = "running"
    else:
        alive = _has_container(engine, files.task_id) or (record is not None and record.outcome is None)
        before = "running" if alive else "finished" if files.exist else "absent"
        after = "absent" if delete_outputs or before == "absent" else "finished"
        if not check_mode:
            if alive:
                _kill(engine, files, stop_timeout_seconds)
            if delete_outputs:
                files.remove()
    return Outcome(
        changed=before != after,
        facts={"task_id": files.task_id, "container": container_name(files.task_id), "state": after},
        before={"state": before},
        after={"state": after},
        warnings=(*engine.warnings, *warnings),
    )


def clean_up(engine: Engine) -> tuple[str, ...]:
    """Remove what is left here of tasks whose supervisors were killed; returns a warning for each."""
    warnings = []
    for container in engine.containers({LABEL_MANAGED: "true"}):
        task_id, output = (container["Labels"].get(label) for label in (LABEL_TASK, LABEL_OUTPUT))
        if not task_id or not output:
            continue
        files = TaskFiles(Path(output).parent.parent, task_id)
        if files.is_looked_after():
            continue
        try:
            removed = remove_task_container(engine, task_id, container_name(task_id))
            # Neither is so of a task that has just ended by itself: it was running when the containers were listed.
            if files.give_up(int(time.time())) or removed:
                warnings.append(
                    f"Task {task_id} was lost, as its supervisor was killed. Its container has been removed"
                )
        except HakuError as error:
            warnings.append(f"What is left of task {task_id}, whose supervisor was killed, cannot be removed. {error}")
    return tuple(warnings)


# Running


def _run(engine: Engine, provided: Provided, wish: Running, warnings: tuple[str, ...]) -> Outcome:
    if provided.image_id is None:
        raise HakuError(f"There is no image {wish.reference} after its synchronisation", where=engine.url)
    with wish.files.reserved() as output:
        job = _job(wish, provided, provided.image_id, output)
        with wish.files.given_back_on_failure():
            # Before there is a container, so that whoever wants the task killed finds it from now on.
            wish.files.write(job.record)
            module = start_supervisor(engine, job)
        with module:
            messages = _messages(module)
            _await_start(engine, messages, job)
            if wish.detach:
                with suppress(OSError):  # a task that has ended at once needs nobody to let it go
                    module.sendall(LET_GO)
                return _result(wish, provided, job.record, None, warnings)
            ending = _ending(engine, messages, job)
    return _result(wish, provided, job.record, ending, (*warnings, *ending.warnings))


def _job(wish: Running, provided: Provided, image_id: str, output: Output) -> Job:
    task = wish.task
    record = Record(
        task_id=task.id,
        environment=task.environment,
        version=provided.version,
        image_id=image_id,
        command=None if wish.secret else task.settings.command,
        runner=platform.node(),
        container=task.container,
        started=int(time.time()),
    )
    return Job(task, image_id, wish.files, output, record, wish.time_limit, wish.stop_timeout)


def _await_start(engine: Engine, messages: Iterator[Mapping[str, Any]], job: Job) -> None:
    message = next(messages, {"error": {"what": f"The supervisor of task {job.task.id} was killed"}})
    if "error" in message:
        # As if nothing had been asked for, so that the same can be tried again.
        insist(lambda: remove_task_container(engine, job.task.id, job.task.container))
        job.files.remove()
        raise (_ImageGone if message.get("image_gone") else HakuError)(**message["error"])


def _ending(engine: Engine, messages: Iterator[Mapping[str, Any]], job: Job) -> Ending:
    message = next(messages, None)
    if message and "ended" in message:
        said = message["ended"]
        return Ending(said["outcome"], said["rc"], said["problem"], tuple(said["warnings"]))
    if message:
        job.files.give_up(int(time.time()))
        raise HakuError(**message["error"])
    insist(lambda: remove_task_container(engine, job.task.id, job.task.container))
    job.files.give_up(int(time.time()))
    return Ending(LOST, problem="The task's supervisor was killed, and the task with it")


def _messages(module: socket.socket) -> Iterator[Mapping[str, Any]]:
    """What the supervisor tells, until it is gone; raises `HakuError` when nobody waits for the result any more."""
    poll = select.poll()
    poll.register(module, select.POLLIN)
    # Asked for nothing, it tells of errors and of the end of a connection.
    poll.register(_STDOUT, 0)
    buffered = b""
    beat_at = time.monotonic() + _HEARTBEAT_SECONDS
    while True:
        ready = {descriptor for descriptor, _events in poll.poll(_HEARTBEAT_SECONDS * 1000)}
        if _STDOUT in ready:
            raise _disconnected()
        if time.monotonic() >= beat_at:
            beat_at = time.monotonic() + _HEARTBEAT_SECONDS
            _beat()
        if module.fileno() in ready:
            data = module.recv(1 << 16)
            if not data:
                return
            *lines, buffered = (buffered + data).split(b"\n")
            yield from map(json.loads, lines)


def _beat() -> None:
    """Some dead connections show only to those who write, and others need that to be found dead."""
    try:
        os.write(_STDOUT, _HEARTBEAT)
    except OSError as error:
        raise _disconnected() from error


def _disconnected() -> HakuError:
    return HakuError("Nobody waits for the result any more, as the connection to the controller is gone")


# Killing


def _has_container(engine: Engine, task_id: str) -> bool:
    answer = engine.find_container(container_name(task_id))
    return bool(answer and (answer["Config"].get("Labels") or {}).get(LABEL_TASK) == task_id)


def _running_elsewhere(engine: Engine, files: TaskFiles, record: Record | None) -> str | None:
    """The other Runner that the task is on, if it has not ended; one that is lost has a container there, too."""
    if record is None or record.outcome or record.runner == platform.node() or _has_container(engine, files.task_id):
        return None
    return record.runner


def _kill(engine: Engine, files: TaskFiles, stop_timeout_seconds: int) -> None:
    """Stop the container and let the supervisor do the rest; do it ourselves if there is none."""
    name = container_name(files.task_id)
    files.mark_as_killed()
    until = time.monotonic() + stop_timeout_seconds + _CLEAN_UP_SECONDS
    while files.stdout.exists() and files.is_looked_after():
        if time.monotonic() > until:
            raise HakuError(f"Task {files.task_id} does not end", where=engine.url, remedy="Look at its container")
        with suppress(EngineError):  # the supervisor may be the one that removes it
            engine.stop(name, stop_timeout_seconds)
        time.sleep(_POLL_SECONDS)
    insist(lambda: remove_task_container(engine, files.task_id, name))
    files.give_up(int(time.time()))
    files.kill_mark.unlink(missing_ok=True)


# Telling


def _result(
    wish: Running, provided: Provided, record: Record, ending: Ending | None, warnings: tuple[str, ...]
) -> Outcome:
    outcome = provided.outcome
    text = {"stdout": "", "stderr": ""}
    if ending:
        text = {"stdout": wish.returned(wish.files.stdout), "stderr": wish.returned(wish.files.stderr)}
    return Outcome(
        changed=True,
        facts={
            **describe(wish.files, _as_ended(wish.files.read() or record, ending)),
            **text,
            **_NO_FAILURE,
            "image": wish.reference,
            "sync": provided.sync,
        },
        before={**outcome.before, "task": None},
        after={**outcome.after, "task": wish.task.id},
        warnings=(*outcome.warnings, *warnings),
        failure=ending.problem if ending else "",
    )


def _as_ended(record: Record, ending: Ending | None) -> Record:
    """The record with the end that the supervisor told of, which it cannot write into a directory that is full."""
    if ending is None or record.outcome is not None:
        return record
    return replace(record, ended=int(time.time()), outcome=ending.outcome, rc=ending.rc, problem=ending.problem)


def _forecast(wish: Running, provided: Provided) -> Outcome:
    """What a run returns, with null for all that only a run can tell."""
    files, named = wish.files, wish.is_named
    known = {
        "task_id": wish.task.id if named else None,
        "name": wish.task.environment,
        "version": provided.version,
        "image_id": provided.image_id,
        "command": None if wish.secret else list(wish.task.settings.command or ()),
        "runner": platform.node(),
        "container": wish.task.container if named else None,
        "state": "running" if wish.detach else "finished",
        "stdout_file": str(files.stdout) if named else None,
        "stderr_file": str(files.stderr) if named else None,
        "image": wish.reference,
        "sync": provided.sync,
    }
    unknown = ("outcome", "rc", "problem", "started", "ended", "stdout_bytes", "stderr_bytes", "stdout", "stderr")
    outcome = provided.outcome
    return Outcome(
        changed=True,
        facts={**dict.fromkeys(unknown), **known, **_NO_FAILURE},
        before={**outcome.before, "task": None},
        after={**outcome.after, "task": known["task_id"]},
        warnings=outcome.warnings,
    )
