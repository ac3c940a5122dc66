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
from ansible_collections.haku.river.plugins.module_utils.console_text import PROMPT_ENDS, PROMPT_MAX, RUN, Transcript
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import local_path

_EMPTY_LINES = b"\n" * RUN
# How long a console that nobody knows yet must have shown no further prompt: those of an earlier visitor come first.
_SETTLE_SECONDS = 0.3
# All prompts are there, but not in a row: a log line came between, unless the rest is still on its way.
_SCATTERED_SECONDS = 0.05
# Fewer prompts than lines were typed: the command read a line itself, or its answer did not end with a newline.
_FEWER_SECONDS = 0.5
# A server that is silent this long may have a prompt that nobody saw, behind a log line; the next time takes longer.
_SILENCE_SECONDS = 2.0
# Log lines that seldom come look like a server that is slow; nothing is waited for twice as long as this for them.
_GAP_MAX_SECONDS = 1.5
_TICK_SECONDS = 0.05


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

    def ask(self, command: str, timeout_seconds: float, may_end: bool = False) -> str:
        """Type a command and return its answer; all of it has to happen in that time.

        Raises `HakuError` if the command is not one line, if there is no console, if it does not answer in time, or if
        the container ends before it has answered, unless that is what the command is for (`may_end`).
        """
        check_line(command)
        deadline = time.monotonic() + timeout_seconds
        with self._lock.held(deadline):
            try:
                return self._ask(command, deadline, timeout_seconds, may_end)
            except BaseException:
                self._leave()
                raise

    def close(self) -> None:
        """Leave the console."""
        self._leave()
        self._lock.close()

    def _ask(self, command: str, deadline: float, timeout_seconds: float, may_end: bool) -> str:
        note = self._lock.note
        stream = self._stream
        if stream is None or stream.ended or note.user != self._user or not note.prompt:
            self._leave()
            stream, note = self._enter(note, deadline, timeout_seconds)
        # Until there is an answer, nobody may trust the prompt: this may be killed any moment.
        self._lock.write(Note(self._user, note.started))
        visit = _Visit(stream, note.prompt, deadline)
        try:
            visit.type(command.encode() + b"\n" * RUN, RUN)
            visit.await_prompts()
        except StreamEnded as error:
            self._leave()
            if not may_end:
                raise self._ended(visit, command, note) from error
            return visit.transcript.answer(command, RUN, note.shows_typing)
        if not visit.done:
            raise self._silent(command, timeout_seconds)
        self._lock.write(Note(self._user, note.started, visit.transcript.prompt, note.shows_typing))
        return visit.transcript.answer(command, visit.typed_lines, note.shows_typing)

    def _enter(self, note: Note, deadline: float, timeout_seconds: float) -> tuple[Stream, Note]:
        """Attach, and learn the prompt unless somebody who knew it left the console in order."""
        found = self._engine.find_container(self.container_id)
        found = _with_console(found, self._name, self._engine)
        started, has_terminal = found["State"]["StartedAt"], bool(found["Config"].get("Tty"))
        stream = self._stream = attach(self._engine, self.container_id, has_terminal, deadline - time.monotonic())
        if note.started == started and note.prompt:
            return stream, note
        self._lock.write(Note(self._user, started))
        visit = _Visit(stream, "", deadline)
        try:
            visit.learn()
        except StreamEnded as error:
            raise self._ended(visit, "", note) from error
        if not visit.done:
            raise HakuError(
                f"The console of {self._name} shows no prompt",
                where=self._engine.url,
                cause=f"it was given {timeout_seconds:g} s and an empty line"
                + (
                    f", and wrote: {visit.transcript.text[-200:]!r}" if visit.transcript.text else ", and wrote nothing"
                ),
                remedy="Wait until the server has started, or until it has done what it was last told, and try again. "
                f"A prompt ends with one of {' '.join(PROMPT_ENDS)} and has at most {PROMPT_MAX} characters",
            )
        shows_typing = has_terminal and visit.transcript.shows_typing()
        return stream, Note(self._user, started, visit.transcript.prompt, shows_typing)

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            stream.close()

    def _silent(self, command: str, timeout_seconds: float) -> HakuError:
        return HakuError(
            f"The console of {self._name} has not answered {command.split()[0]!r} in {timeout_seconds:g} s",
            where=self._engine.url,
            remedy="Give it more time; what it still answers is not taken for the answer to another command",
        )

    def _ended(self, visit: _Visit, command: str, note: Note) -> HakuError:
        said = visit.transcript.answer(command, RUN, note.shows_typing)
        return HakuError(
            f"{self._name} ended before it {f'answered {command.split()[0]!r}' if command else 'showed a prompt'}",
            where=self._engine.url,
            cause=f"the last it wrote is: {said[-500:]}" if said else "it wrote nothing",
            remedy=f"See its log: docker logs {self._name}",
        )


class _Visit:
    """Typing something and reading what comes, until the deadline; `done` says whether the answer is whole."""

    def __init__(self, stream: Stream, prompt: str, deadline: float) -> None:
        self.transcript = Transcript(prompt)
        self.typed_lines = 0
        self.done = False
        self._stream = stream
        self._deadline = deadline
        self._typed_at = self._prompted_at = time.monotonic()
        # The server's pace: the longest time between two pieces of what it wrote.
        self._gap = 0.0
        self._heard_at: float | None = None
        stream.listen()

    def type(self, data: bytes, lines: int) -> None:
        """Write these lines to the console."""
        self._stream.send(data, self._left)
        self.typed_lines += lines
        self._typed_at = time.monotonic()

    def await_prompts(self) -> None:
        """Read until as many prompts have come as lines were typed, the last of them in a row."""
        slowness = 1
        while self._left > 0:
            self._read(_TICK_SECONDS)
            if self._is_whole():
                self._stream.listen(False)
                self.done = True
                return
            other = self.transcript.other_prompt()
            if other is not None:
                self.transcript.expect(other)
                self._probe()
            elif self._since_prompt > self._patience(slowness):
                slowness *= 2
                self._probe()

    def learn(self) -> None:
        """Find out what the prompt is: what keeps coming when empty lines are typed."""
        self._probe()
        patience = _SILENCE_SECONDS / 2
        while self._left > 0:
            self._read(_TICK_SECONDS)
            other = self.transcript.other_prompt()
            if other is not None:
                self.transcript.expect(other)
                self._prompted_at = time.monotonic()
            # Where there are fewer prompts than lines, the rest may be on its way.
            if self.transcript.prompt and self._is_quiet(_SETTLE_SECONDS if self._all_there else _SILENCE_SECONDS):
                self.done = len(self.transcript.prompt) > 1 or self._count_marks()
                return
            if not self.transcript.prompt and time.monotonic() - self._typed_at > patience:
                patience *= 2
                self._probe()

    def _count_marks(self) -> bool:
        """Find out how often the prompt has the one mark that was learnt, as in `>>`; False if the time is up."""
        mark, before = self.transcript.prompt, self.transcript.prompts
        self._probe()
        while self._left > 0 and not self._is_quiet(_SETTLE_SECONDS):
            self._read(_TICK_SECONDS)
        marks = (self.transcript.prompts - before) // RUN
        self.transcript.expect(mark * max(marks, 1))
        return self._left > 0

    @property
    def _left(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def _since_prompt(self) -> float:
        return time.monotonic() - max(self._typed_at, self._prompted_at)

    @property
    def _all_there(self) -> bool:
        return self.transcript.prompts >= self.typed_lines

    def _is_whole(self) -> bool:
        return self.transcript.at_rest and (self._all_there or self._is_quiet(_FEWER_SECONDS))

    def _is_quiet(self, usual_seconds: float) -> bool:
        """Whether no prompt has come for that long, and for longer than this server needs for two."""
        return self._since_prompt > self._at_its_pace(usual_seconds)

    def _at_its_pace(self, usual_seconds: float) -> float:
        return max(usual_seconds, 2 * self._gap)

    def _patience(self, slowness: int) -> float:
        """How long to wait for a prompt before more empty lines are typed, as the prompts may be behind log lines."""
        if self._all_there:
            return _SCATTERED_SECONDS
        return slowness * self._at_its_pace(_FEWER_SECONDS if self.transcript.prompts else _SILENCE_SECONDS)

    def _probe(self) -> None:
        self.type(_EMPTY_LINES, RUN)

    def _read(self, seconds: float) -> None:
        before = self.transcript.prompts
        pieces = self._stream.receive(min(seconds, self._left))
        for stream, data in pieces:
            self.transcript.add(stream, data)
        if pieces:
            now = time.monotonic()
            if self._heard_at is not None:
                self._gap = max(self._gap, min(now - self._heard_at, _GAP_MAX_SECONDS))
            self._heard_at = now
        if self.transcript.prompts != before:
            self._prompted_at = time.monotonic()


def _with_console(found: dict[str, Any] | None, name: str, engine: Engine) -> dict[str, Any]:
    """Return what is known of a container if something can be typed into it, now and later; else raise `HakuError`."""
    if found is None:
        raise HakuError(f"There is no instance {name}", where=engine.url)
    state, configuration = found["State"]["Status"], found["Config"]
    if state != "running":
        raise HakuError(f"{name} is {state}, and only a running server has a console", remedy="Start it first")
    if not configuration.get("OpenStdin"):
        raise HakuError(
            f"{name} has no console: its standard input is closed",
            remedy="Create it with stdin_open (docker run --interactive), and tty if the server wants a terminal",
        )
    # Docker's word for it, and what Podman's conmon does with every pipe.
    if configuration.get("StdinOnce") or (engine.is_podman and not configuration.get("Tty")):
        raise HakuError(
            f"The engine closes the console of {name} when the first one who used it leaves, which may end the server",
            where=engine.url,
            remedy="Create the container detached (docker run --detach --interactive), and for Podman with tty",
        )
    return found
