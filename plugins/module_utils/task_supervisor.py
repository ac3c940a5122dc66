# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The supervisor: a process of its own that creates a task's container, follows it, and removes it whatever happens.

It outlives the module, so that a container never outlives both. The two are connected by a socket. At its end, the
supervisor sees that the module is gone; through it, the module is told, in lines of JSON, that the task has
`started`, how it `ended`, or the `error` for which it did not start.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.following import STDERR, ContainerExit, ContainerOutput
from ansible_collections.haku.river.plugins.module_utils.kernel_log import was_killed_for_memory
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_TASK
from ansible_collections.haku.river.plugins.module_utils.task import Ending, Task, judge
from ansible_collections.haku.river.plugins.module_utils.task_record import Output, Record, TaskFiles

LET_GO = b"."
"""What the module writes when the task is to go on without it."""

# A machine that starts a hundred containers at once takes its time for each.
_BUSY_ENGINE_SECONDS = 600
# What a container has written has all come a moment after its end, even on a machine that is overloaded.
_LAST_OUTPUT_SECONDS = 30
_OOM_SECONDS = 0.5
# 128 and the number of SIGKILL: how a process that the kernel takes the memory of ends, seen from outside.
_KILLED = 137
_REMOVAL_SECONDS = 30
# An engine that is away for longer will find the next task's run to clean up.
_ENGINE_AWAY_SECONDS = 3600
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """What a supervisor has to do. `record` is what is written down again when the task has started."""

    task: Task
    image_id: str
    files: TaskFiles
    output: Output
    record: Record
    time_limit_seconds: int | None
    stop_timeout_seconds: int


def start_supervisor(engine: Engine, job: Job) -> socket.socket:
    """Start the process; returns the module's end of the socket, or raises `HakuError`."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            child = os.fork()
        except OSError as error:
            ours.close()
            raise HakuError(
                f"The supervisor of task {job.task.id} cannot be started",
                cause=error.strerror,
                remedy="Check the machine's free memory, and how many processes the module's user may have",
            ) from error
        if child == 0:
            ours.close()
            _live(engine, job, theirs)
    return ours


def remove_task_container(engine: Engine, task_id: str, name: str) -> bool:
    """Remove the container of that name if it is this task's; whether there was one, as it may be gone already."""
    answer = engine.find_container(name)
    if answer is None or (answer["Config"].get("Labels") or {}).get(LABEL_TASK) != task_id:
        return False
    engine.remove_container(answer["Id"], force=True)
    return True


def _live(engine: Engine, job: Job, module: socket.socket) -> NoReturn:
    """The process's whole life."""
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        # Who waits for the end of the module's output must not wait for this process.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        with engine.saying("The engine does not answer any more"):
            own_engine = engine.reopen()
        try:
            _Supervision(own_engine, job, module).run()
        except EngineError as error:
            _tell(module, error=error.as_result()["error"], image_gone=_is_gone(own_engine, job.image_id))
        status = 0
    except HakuError as error:
        _tell(module, error=error.as_result()["error"])
    except BaseException:
        failure = HakuError("The task's supervisor failed", cause=traceback.format_exc())
        _tell(module, error=failure.as_result()["error"])
    finally:
        os._exit(status)


class _Supervision:
    """One task from its container's creation to its removal."""

    def __init__(self, engine: Engine, job: Job, module: socket.socket) -> None:
        self._engine = engine
        self._job = job
        self._module = module
        self._name = job.task.container
        self._ended = False
        self._interruption: str | None = None
        self._cause = ""
        self._stop_signal = "SIGTERM"
        self._deadline: float | None = None
        self._kill_at: float | None = None
        self._wakeup = _wakeup_by_signals()
        engine.client.timeout = max(engine.client.timeout, _BUSY_ENGINE_SECONDS)

    def run(self) -> None:
        """Run the task to its end; raises `HakuError` if it cannot be started, and then leaves nothing behind."""
        try:
            ending = self._run()
        except BaseException:
            self._remove(_REMOVAL_SECONDS)
            raise
        removed = ending.outcome != "engine_lost" and self._remove(_REMOVAL_SECONDS)
        if not removed:
            warning = f"Container {self._name} is still there, and will be removed as soon as the engine lets it be"
            ending = replace(ending, warnings=(*ending.warnings, warning))
        self._report(ending)
        if not removed:
            self._remove(_ENGINE_AWAY_SECONDS)

    def _run(self) -> Ending:
        body = self._job.task.as_creation(self._job.image_id, self._job.files.stdout)
        container = self._engine.create_container(self._name, body)
        config = (self._engine.find_container(container) or {}).get("Config") or {}
        self._stop_signal = config.get("StopSignal") or self._stop_signal
        output, end = self._engine.follow(container)
        try:
            self._engine.start(container)
            self._started()
            followed = self._follow(output, end)
        finally:
            output.close()
            end.close()
        return self._judge(container) if followed else self._engine_lost()

    def _started(self) -> None:
        if self._job.time_limit_seconds is not None:
            self._deadline = time.monotonic() + self._job.time_limit_seconds
        self._job.files.write(replace(self._job.record, started=int(time.time())))
        _tell(self._module, started=True)

    # Following

    def _follow(self, output: ContainerOutput, end: ContainerExit) -> bool:
        """Write down the output until the container has ended; False if the engine has."""
        poll = select.poll()
        for source in (output.descriptor, end.descriptor, self._module, self._wakeup):
            poll.register(source, select.POLLIN)
        waiting = {output.descriptor, end.descriptor}
        while waiting:
            ready = {descriptor for descriptor, _events in poll.poll(self._patience_ms())}
            if self._ended and not ready:
                break
            if output.descriptor in ready and not self._take(output):
                poll.unregister(output.descriptor)
                waiting.discard(output.descriptor)
            if end.descriptor in ready:
                poll.unregister(end.descriptor)
                waiting.discard(end.descriptor)
                if not end.read():
                    return False
                self._ended, self._deadline, self._kill_at = True, None, None
            if self._module.fileno() in ready:
                poll.unregister(self._module)
                if not _is_let_go(self._module):
                    self._interrupt("abandoned")
            if self._wakeup in ready:
                os.read(self._wakeup, 1)
                self._interrupt("killed")
            self._keep_time()
        return True

    def _take(self, output: ContainerOutput) -> bool:
        """Write down what has come; whether there may be more."""
        pieces = output.read()
        for stream, piece in (pieces or {}).items():
            if self._interruption == "output_lost":
                continue
            try:
                _write_all(self._job.output.stderr if stream == STDERR else self._job.output.stdout, piece)
            except OSError as error:
                self._cause = str(error.strerror)
                self._interrupt("output_lost")
        return pieces is not None

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self._interrupt("timed_out")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._signal("SIGKILL")

    def _interrupt(self, reason: str) -> None:
        """Ask the task to end, and kill it when it has not after a while. The first reason is the one that counts."""
        if self._interruption is None and not self._ended:
            self._interruption = reason
            self._deadline = None
            self._kill_at = time.monotonic() + self._job.stop_timeout_seconds
            self._signal(self._stop_signal)

    def _signal(self, name: str) -> None:
        # An engine that is gone is noticed anyway.
        with suppress(EngineError):
            self._engine.kill(self._name, name)

    def _patience_ms(self) -> float | None:
        """How long to wait for news, in milliseconds; None for as long as it takes."""
        if self._ended:
            return _LAST_OUTPUT_SECONDS * 1000
        times = [moment for moment in (self._deadline, self._kill_at) if moment is not None]
        # One more, since the kernel cuts a fraction off.
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1 if times else None

    # The end

    def _judge(self, container: str) -> Ending:
        try:
            state = self._state(container)
            out_of_memory = self._is_out_of_memory(container)
        except EngineError:
            return self._engine_lost()
        self._sync_output()
        reason = self._interruption or ("killed" if self._job.files.kill_mark.exists() else None)
        ending = judge(state, out_of_memory, reason, self._job.time_limit_seconds)
        return replace(ending, problem=f"{ending.problem}: {self._cause}") if self._cause else ending

    def _is_out_of_memory(self, container: str) -> bool:
        """Whether the engine or the kernel says so."""
        until = time.monotonic() + _OOM_SECONDS
        while True:
            state = self._state(container) or {"ExitCode": 0}
            if state["ExitCode"] == 0 or state.get("OOMKilled"):
                return bool(state.get("OOMKilled"))
            if was_killed_for_memory(container):
                return True
            # The engine hears of the end and of its cause separately.
            if state["ExitCode"] != _KILLED or time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)

    def _engine_lost(self) -> Ending:
        return Ending("engine_lost", problem="The engine went away while the task ran, and the task with it")

    def _state(self, container: str) -> Mapping[str, Any] | None:
        answer = self._engine.find_container(container)
        # Whoever removes it has killed it first.
        return answer["State"] if answer and answer["State"]["Status"] != "removing" else None

    def _sync_output(self) -> None:
        try:
            for descriptor in (self._job.output.stdout, self._job.output.stderr):
                os.fsync(descriptor)
        except OSError as error:
            # A file server may refuse what it has taken before.
            self._interruption = self._interruption or "output_lost"
            self._cause = self._cause or str(error.strerror)

    def _remove(self, patience_seconds: float) -> bool:
        """Remove the container, and go on trying; whether that was done in time."""
        until = time.monotonic() + patience_seconds
        while True:
            try:
                remove_task_container(self._engine, self._job.task.id, self._name)
            except EngineError:
                if time.monotonic() > until:
                    return False
                time.sleep(10 * _POLL_SECONDS)
            else:
                return True

    def _report(self, ending: Ending) -> None:
        """Write down how the task ended, and tell the module, in case that it is there."""
        files = self._job.files
        try:
            record = files.read() or self._job.record
            files.write(
                replace(record, ended=int(time.time()), outcome=ending.outcome, rc=ending.rc, problem=ending.problem)
            )
            files.kill_mark.unlink(missing_ok=True)
        except (HakuError, OSError) as error:
            ending = replace(ending, warnings=(*ending.warnings, f"The task's record is out of date: {error}"))
        _tell(self._module, ended=asdict(ending))


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _wakeup_by_signals() -> int:
    """A descriptor that can be read once somebody asks this process to end, as a machine does that shuts down."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_arguments: None)
    return reading


def _is_gone(engine: Engine, image_id: str) -> bool:
    with suppress(EngineError):
        return engine.find_image(image_id) is None
    return False


def _is_let_go(module: socket.socket) -> bool:
    """Whether the module wants the task to go on without it, and is not gone for another reason."""
    with suppress(OSError):
        return module.recv(1) == LET_GO
    return False


def _tell(module: socket.socket, **message: Any) -> None:
    with suppress(OSError):
        module.sendall(json.dumps(message).encode() + b"\n")
