# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server's console writes, as text: without colours, and parted into answers by its prompts.

A prompt is an unfinished line that is written anew whenever a line was read, also an empty one. So after a command and
two empty lines the answer ends where the same prompt stands three times in a row. This holds whatever the prompt is,
whether or not the terminal shows what is typed, and for answers that have lines like a prompt. Log lines may come
between two prompts; then more empty lines are sent. An answer may have such a row as well, as people give names to
worlds and to themselves; so one more empty line has to bring one more prompt and nothing else.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import NamedTuple

RUN = 3
"""How often a prompt has to stand in a row."""

PROMPT_ENDS = tuple(">:#$%»]")
"""What prompts end with; it keeps `...` and `===` of a slow answer from being taken for three of them."""

PROMPT_MAX = 200
"""How many characters a prompt may have."""

_TAIL = 8192
# A prompt may have a space behind, and the terminal's newline.
_ROW_MAX = RUN * (PROMPT_MAX + 2)
# The same prompt in a row, with a log line behind. It has a letter or digit, or `### ` would be three of them.
_ROW = re.compile(
    rf"^(?P<prompt>(?=\W*\w)[^\n]{{1,{PROMPT_MAX}}}?[>:#$%»\]] ?)" + r"\n*(?P=prompt)" * (RUN - 1) + r"(?!\n)",
    re.MULTILINE,
)

# ECMA-48, as terminals read it: control sequences, strings (with xterm's BEL as their end), other escapes. Names may
# have the beginning of a string, which must not hide the lines behind it, or an ESC that begins nothing.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\n]*\x1b\\|[ -/]*[0-~]|)"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]"
)
_EMPTY_LINE = re.compile(r"(?<=\n)\n")
_UNFINISHED_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]*\x1b?|[PX^_][^\x1b\n]*\x1b?|[ -/]*)\Z")
_ESCAPE_MAX = 4096


class Cleaner:
    """Turns what arrives, however it is cut, into text without escape sequences and control characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def clean(self, data: bytes) -> str:
        """The text that is certain by now; the beginning of an escape sequence is held back."""
        text = self._held + self._decoder.decode(data)
        unfinished = _UNFINISHED_ESCAPE.search(text, max(0, len(text) - _ESCAPE_MAX))
        end = unfinished.start() if unfinished else len(text)
        self._held = text[end:]
        return _ESCAPE.sub("", text[:end])


class Transcript:
    """What a console has written since something was typed; `prompt` is the one it is expected to have.

    `prompts` is how often it stands where the server itself writes one: at the beginning of a line or right behind
    another. Log lines and answers may have it anywhere else.
    """

    def __init__(self, prompt: str = "") -> None:
        self._cleaners: dict[int, Cleaner] = {}
        self._parts: list[str] = []
        self._tail = ""
        self._length = 0
        self._other: str | None = None
        self.expect(prompt)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    @property
    def length(self) -> int:
        """How many characters that is."""
        return self._length

    def since(self, place: int) -> str:
        """What came behind that many characters, without the empty lines that it begins with."""
        return self.text[place:].lstrip("\n")

    def expect(self, prompt: str) -> None:
        """Count this prompt, also in what has come already."""
        self.prompt = prompt
        self.prompts = 0
        self._prompt = re.compile(re.escape(prompt))
        # Where the last one ends that stands anywhere, how many in a row those are, and the same of the server's own.
        self._last_end = self._own_end = self._last_row = self._own_row = 0
        self._count(self.text, 0)

    def expect_mark(self) -> None:
        """Expect no more of the prompt than what it repeats, as `x>` in `x>x>`."""
        mark = _repeated(self.prompt)
        if mark != self.prompt:
            self.expect(mark)

    def add(self, stream: int, data: bytes) -> None:
        """Take what came next on one of the streams."""
        text = self._cleaners.setdefault(stream, Cleaner()).clean(data)
        overlap = self._tail[-_ROW_MAX:]
        self._count(overlap + text, self._length - len(overlap))
        self._parts.append(text)
        self._length += len(text)
        self._tail = (self._tail + text)[-_TAIL:]
        self._other = self._find_prompt(overlap + text) or self._other

    @property
    def at_rest(self) -> bool:
        """Whether the expected prompt stood there as often in a row as it takes, and not again since."""
        behind = self._own_end - self._length + len(self._tail)
        return self._own_row >= RUN and not (behind >= 0 and self._tail.startswith("\n", behind))

    def other_prompt(self) -> str | None:
        """What else stood there like a prompt, that often in a row; worlds are renamed, and others focused.

        Of a prompt such as `>>` this sees one mark only, which is not another.
        """
        return None if self._other and self._other == _repeated(self.prompt) else self._other

    def is_prompt(self, reply: str) -> bool:
        """Whether that is the expected prompt, maybe with a log line behind."""
        behind = ("\n", _repeated(self.prompt))
        return reply.startswith(self.prompt) and not reply.startswith(behind, len(self.prompt))

    def may_become_prompt(self, reply: str) -> bool:
        """Whether that is the beginning of the expected prompt, or nothing yet."""
        return self.prompt.startswith(reply)

    def is_marks(self, reply: str) -> bool:
        """Whether that is what the prompt repeats, however often, and nothing else."""
        marks, mark = reply.replace("\n", ""), _repeated(self.prompt)
        return bool(marks) and marks == mark * (len(marks) // len(mark))

    def shows_typing(self) -> bool:
        """Whether empty lines that were typed are to be seen, so that a command is seen as well."""
        return re.search(rf"(?:^|\n|{re.escape(self.prompt)})\n", self.text) is not None

    def answer(self, command: str, typed_lines: int, shows_typing: bool) -> str:
        """What stands before the prompt that followed the answer.

        There was one prompt for each of the `typed_lines`, so it is the one that many from the end: what looks like a
        prompt before that is a line of the answer.
        """
        text = self.text
        places = [it.start() for it in self._prompt.finditer(text)] if self.prompt else []
        own = [place for place in places if self._is_own(text, place)][-typed_lines:]
        end = own[0] if own else len(text)
        # An answer may end without a newline, and then the prompt does not begin a line.
        before = max((place for place in places if place < end), default=-1) if len(own) < typed_lines else -1
        if before >= 0 and not text[before + len(self.prompt) : end].strip("\n"):
            end = before
        if not shows_typing:
            return text[:end].strip("\n")
        body = _without_echo(text[:end], command)
        inner = body.strip("\n")
        # Where the empty lines that were typed are shown: around the answer, between the prompts, and else inside it.
        around = len(body) - len(inner) - bool(inner and body.endswith("\n"))
        between = len(_EMPTY_LINE.findall("\n" + text[end:].replace(self.prompt, "")))
        inside = typed_lines - 1 - around - between
        return _EMPTY_LINE.sub("", inner, count=inside) if inside > 0 else inner

    def _count(self, text: str, offset: int) -> None:
        """Count the prompts in `text`, which begins at `offset` of all, that were not counted before."""
        for place in self._prompt.finditer(text, max(self._last_end - offset, 0)) if self.prompt else ():
            between = text[max(self._last_end - offset, 0) : place.start()]
            self._last_row = 1 if between.strip("\n") else self._last_row + 1
            self._last_end = offset + place.end()
            if self._is_own(text, place.start()):
                self.prompts += 1
                self._own_row, self._own_end = self._last_row, self._last_end

    def _is_own(self, text: str, place: int) -> bool:
        return place == 0 or text[place - 1] == "\n" or text.endswith(self.prompt, 0, place)

    def _find_prompt(self, text: str) -> str | None:
        """What stands there as often in a row as a prompt has to: at the end, or before a log line."""
        flat = text[-_TAIL:].replace("\n", "") if text.rstrip(" ").endswith(PROMPT_ENDS) else ""
        for length in range(1, min(PROMPT_MAX, len(flat) // RUN) + 1):
            prompt = flat[-length:]
            if prompt.rstrip(" ").endswith(PROMPT_ENDS) and flat.endswith(prompt * RUN):
                return prompt
        found = _ROW.search(text)
        return found["prompt"] if found else None


def _repeated(prompt: str) -> str:
    """The shortest text that makes up a prompt when it is repeated: where the prompt fits into two of itself."""
    return prompt[: (prompt + prompt).find(prompt, 1)] if prompt else ""


class _Line(NamedTuple):
    start: int
    end: int
    text: str


def _without_echo(body: str, command: str) -> str:
    """Leave out the command as the terminal shows it, and log lines that came before that."""
    lines = [_Line(line.start(), line.end(), line[1]) for line in re.finditer(r"([^\n]*)(?:\n|\Z)", body)]
    # It stands alone on its line, or behind a prompt or what a log had begun.
    for is_echo in (command.__eq__, lambda text: text.endswith(command)):
        echo = next((line for line in lines if is_echo(line.text)), None)
        if echo:
            return body[echo.end :]
    last_part = _end_of_parted_echo(body, lines, command)
    return body[last_part.end :] if last_part else body


def _end_of_parted_echo(body: str, lines: Sequence[_Line], command: str) -> _Line | None:
    """The line that ends a command which log lines part: a terminal shows others' output at any moment."""
    begins: dict[str, int] = {}
    for line in lines:
        if line.text and command.endswith(line.text):
            begin = command[: -len(line.text)]
            if begin not in begins:
                begins[begin] = body.find(begin)
            if 0 <= begins[begin] < line.start:
                return line
    return None
