# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Typing commands into a server's own console, and telling which part of what it writes is the answer."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.attach import Stream, StreamEnded, attach
from ansible_collections.haku.river.plugins.module_utils.console_commands import check_line
from ansible_collections.haku.river.plugins.module_utils.console_lock import ConsoleLock, Note
from ansible_collections.haku.river.plugins.module_utils.console_text import PROMPT_ENDS, PROMPT_MAX, RUN
from ansible_collections.haku.river.plugins.module_utils.console_visit import Visit
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError, NoConsole, NoInstance
from ansible_collections.haku.river.plugins.module_utils.lock import local_path

# A server that is told to end need not show a prompt, and at least half of the time is for its end.
_PROMPT_BEFORE_END_SECONDS = 5.0


class Console:
    """The console of one container.

    One stream stays attached, and is made anew when the container was restarted, when somebody else has typed since,
    and after every failure, as late answers would come through the old one.
    """

    def __init__(self, engine: Engine, name: str, container_id: str) -> None:
        self._engine = engine
        self._name = name
        self.container_id = container_id
        self._user = f"{os.getpid()} {uuid.uuid4()}"
        self._lock = ConsoleLock(local_path("console", container_id), name)
        self._stream: Stream | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a stream to the container is there, and with it the container."""
        stream = self._stream
        return stream is not None and not stream.ended

    def ask(self, command: str, timeout_seconds: float, may_end: bool = False, deadline: float | None = None) -> str:
        """Type a command and return its answer; all of it has to happen in that time.

        `deadline` (`time.monotonic`) is when it is over, if a part of it has passed already. Raises `HakuError` if the
        command is not one line, if there is no console, if it does not answer in time, or if the container ends before
        it has answered, unless that is what the command is for (`may_end`). Such a command is typed even if the server
        shows no prompt; then its end is waited for.
        """
        check_line(command)
        deadline = time.monotonic() + timeout_seconds if deadline is None else deadline
        with self._lock.held(deadline):
            try:
                answer = self._ask(command, deadline, timeout_seconds, may_end)
                self._lock.check_open()
            except BaseException:
                self._leave()
                # To the one who waited, a stream that is closed looks like a server that ended.
                self._lock.check_open()
                raise
            return answer

    def close(self) -> None:
        """Leave the console; a thread that uses it is told so."""
        self._lock.close()
        self._leave()

    def _ask(self, command: str, deadline: float, timeout_seconds: float, may_end: bool) -> str:
        note = self._lock.note
        stream = self._stream
        if stream is None or stream.ended or note.user != self._user or not note.prompt:
            self._leave()
            stream, note = self._enter(note, deadline, timeout_seconds, may_end)
        # Until there is an answer, nobody may trust the prompt: this may be killed any moment.
        self._lock.write(Note(self._user, note.started))
        visit = Visit(stream, note.prompt, deadline)
        try:
            if note.prompt:
                visit.type(command.encode() + b"\n" * RUN, RUN)
                visit.await_prompts()
            else:
                visit.type(command.encode() + b"\n", 1)
                visit.await_end()
        except StreamEnded as error:
            self._leave()
            if not may_end:
                raise self._ended(visit, command, note) from error
            return visit.transcript.answer(command, visit.typed_lines, note.shows_typing)
        if not visit.done:
            raise self._silent(command, timeout_seconds, bool(note.prompt))
        self._lock.write(Note(self._user, note.started, visit.transcript.prompt, note.shows_typing))
        return visit.transcript.answer(command, visit.typed_lines, note.shows_typing)

    def _enter(self, note: Note, deadline: float, timeout_seconds: float, may_end: bool) -> tuple[Stream, Note]:
        """Attach, and learn the prompt unless somebody who knew it left the console in order.

        The prompt is empty if there is none, and a command that `may_end` the server needs none.
        """
        found = self._engine.find_container(self.container_id, deadline - time.monotonic())
        found = check_console(self._engine, self._name, found, may_end)
        started, has_terminal = found["State"]["StartedAt"], bool(found["Config"].get("Tty"))
        stream = self._stream = attach(self._engine, self.container_id, has_terminal, deadline - time.monotonic())
        if note.started == started and note.prompt:
            return stream, note
        self._lock.write(Note(self._user, started))
        now = time.monotonic()
        enough = now + min(_PROMPT_BEFORE_END_SECONDS, (deadline - now) / 2) if may_end else deadline
        visit = Visit(stream, "", enough)
        try:
            visit.learn()
        except StreamEnded as error:
            raise self._ended(visit, "", note) from error
        if visit.done:
            shows_typing = has_terminal and visit.transcript.shows_typing()
            return stream, Note(self._user, started, visit.transcript.prompt, shows_typing)
        if may_end:
            return stream, Note(self._user, started, shows_typing=has_terminal)
        raise HakuError(
            f"The console of {self._name} shows no prompt",
            where=self._engine.url,
            cause=f"it was given {timeout_seconds:g} s and an empty line"
            + (f", and wrote: {visit.transcript.text[-200:]!r}" if visit.transcript.text else ", and wrote nothing"),
            remedy="Wait until the server has started, or until it has done what it was last told, and try again. "
            f"A prompt ends with one of {' '.join(PROMPT_ENDS)} and has at most {PROMPT_MAX} characters",
        )

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            stream.close()

    def _silent(self, command: str, timeout_seconds: float, has_prompt: bool) -> HakuError:
        if not has_prompt:
            return HakuError(
                f"{self._name} has not ended in {timeout_seconds:g} s, though {command.split()[0]!r} was typed",
                where=self._engine.url,
                cause="its console shows no prompt, so that nothing tells whether it has read the command",
                remedy="Give it more time, or check that this is the command that ends the server",
            )
        return HakuError(
            f"The console of {self._name} has not answered {command.split()[0]!r} in {timeout_seconds:g} s",
            where=self._engine.url,
            remedy="Give it more time; what it still answers is not taken for the answer to another command",
        )

    def _ended(self, visit: Visit, command: str, note: Note) -> HakuError:
        said = visit.transcript.answer(command, visit.typed_lines, note.shows_typing)
        return HakuError(
            f"{self._name} ended before it {f'answered {command.split()[0]!r}' if command else 'showed a prompt'}",
            where=self._engine.url,
            cause=f"the last it wrote is: {said[-500:]}" if said else "it wrote nothing",
            remedy=f"See its log: docker logs {self._name}",
        )


def check_console(engine: Engine, name: str, found: dict[str, Any] | None, may_end: bool) -> dict[str, Any]:
    """Return what is known of a container if something can be typed into it, now and later; else raise `HakuError`.

    Later does not matter for what `may_end` the server.
    """
    if found is None:
        raise NoInstance(f"There is no instance {name}", where=engine.url)
    state, configuration = found["State"]["Status"], found["Config"]
    if not configuration.get("OpenStdin"):
        raise NoConsole(
            f"{name} has no console: its standard input is closed",
            remedy="Create it with stdin_open (docker run --interactive), and tty if the server wants a terminal",
        )
    # Docker's word for it, and what Podman's conmon does with every pipe.
    once = configuration.get("StdinOnce") or (engine.is_podman and not configuration.get("Tty"))
    if once and not may_end:
        raise NoConsole(
            f"The engine closes the console of {name} when the first one who used it leaves, which may end the server",
            where=engine.url,
            remedy="Create the container detached (docker run --detach --interactive), and for Podman with tty",
        )
    if state != "running":
        raise HakuError(f"{name} is {state}, and only a running server has a console", remedy="Start it first")
    return found
