# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Typing lines into a console and reading until all that they bring has come."""

from __future__ import annotations

import time
from contextlib import suppress

from ansible_collections.haku.river.plugins.module_utils.attach import Stream, StreamEnded
from ansible_collections.haku.river.plugins.module_utils.console_text import RUN, Transcript

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
# A stream that takes nothing more has its end behind what it still brings.
_LAST_WORDS_SECONDS = 1.0
_TICK_SECONDS = 0.05


class Visit:
    """Typing something and reading what comes, until the deadline; `done` says whether the answer is whole."""

    def __init__(self, stream: Stream, prompt: str, deadline: float) -> None:
        self.transcript = Transcript(prompt)
        self.typed_lines = 0
        self.done = False
        # Whether something was taken for the end that was not.
        self._doubts = False
        self._stream = stream
        self._deadline = deadline
        self._typed_at = self._prompted_at = time.monotonic()
        # The server's pace: the longest time between two pieces of what it wrote.
        self._gap = 0.0
        self._heard_at: float | None = None
        stream.listen()

    def type(self, data: bytes, lines: int) -> None:
        """Write these lines to the console; raises `StreamEnded` when all that it wrote before is heard."""
        self.typed_lines += lines
        try:
            self._stream.send(data, self._left)
        except StreamEnded:
            self._hear_last_words()
            raise
        self._typed_at = time.monotonic()

    def await_end(self) -> None:
        """Read until the server ends, which is a `StreamEnded`, or the time is up."""
        while self._left > 0:
            self._read(_TICK_SECONDS)

    def await_prompts(self) -> None:
        """Read until as many prompts have come as lines were typed, the last of them in a row, and nothing behind."""
        slowness = 1
        while self._left > 0:
            self._read(_TICK_SECONDS)
            if self._is_whole():
                if self._is_confirmed():
                    self._stream.listen(False)
                    self.done = True
                    return
                continue
            other = self.transcript.other_prompt()
            if other is not None:
                self.transcript.expect(other)
                self._probe()
            elif self._since_prompt > self._patience(slowness):
                slowness *= 2
                # It may have its mark less or more often than before.
                self.transcript.expect_mark()
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
                self.done = True
                return
            if not self.transcript.prompt and time.monotonic() - self._typed_at > patience:
                patience *= 2
                self._probe()

    def _is_confirmed(self) -> bool:
        """Whether one more empty line gets one more prompt and nothing else; if not, look for the end again.

        What looks like a row of prompts may stand in the middle of an answer, as people choose their names.
        """
        exact = self.transcript.prompts == self.typed_lines and not self._doubts
        place, prompts = self.transcript.length, self.transcript.prompts
        self._type_anew(b"\n", 1)
        while self._left > 0:
            self._read(_TICK_SECONDS)
            reply = self.transcript.since(place)
            if self.transcript.prompts == prompts + 1 and self.transcript.is_prompt(reply):
                # Unless there were as many prompts as lines, some may still be on their way.
                if exact or self._is_quiet(_SCATTERED_SECONDS):
                    return True
            elif not self.transcript.may_become_prompt(reply) or (reply and self._is_quiet(_SETTLE_SECONDS)):
                break
        self._doubts = True
        if self.transcript.is_marks(self.transcript.since(place)):
            self._count_marks()
        else:
            self._probe()
        return False

    def _count_marks(self) -> None:
        """Find out how often the prompt has its mark, of which one is learnt; worlds may be called `>` or `x>x`."""
        self.transcript.expect_mark()
        mark = self.transcript.prompt
        while self._left > 0:
            self._await_quiet(self.transcript.prompts)
            before = self.transcript.prompts
            self._type_anew(_EMPTY_LINES, RUN)
            self._await_quiet(before + 1)
            marks, more = divmod(self.transcript.prompts - before, RUN)
            if marks and not more:
                self.transcript.expect(mark * marks)
                return

    def _await_quiet(self, prompts: int) -> None:
        """Read until there are so many prompts, and no more come."""
        while self._left > 0 and (self.transcript.prompts < prompts or not self._is_quiet(_SETTLE_SECONDS)):
            self._read(_TICK_SECONDS)

    def _hear_last_words(self) -> None:
        enough = time.monotonic() + min(self._left, _LAST_WORDS_SECONDS)
        with suppress(StreamEnded):
            while time.monotonic() < enough:
                self._read(_TICK_SECONDS)

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

    def _type_anew(self, data: bytes, lines: int) -> None:
        """Type when the server has done all that it was told, so that its silence until now is not its pace."""
        self._heard_at = None
        self.type(data, lines)

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
