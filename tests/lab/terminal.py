# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real terminal that somebody sits at: a window of tmux, typed into and looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .host import LabError, require, run, wait_until


@dataclass(frozen=True)
class Terminal:
    """A terminal with one window, in which a shell runs."""

    socket: Path

    def enter(self, line: str) -> None:
        """Type a line, and press Enter."""
        self.type(line)
        self.press("Enter")

    def type(self, text: str) -> None:
        """Type some text."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them, such as `C-c`."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def lines(self) -> list[str]:
        """What the window shows, a line each from top to bottom."""
        return self._tmux("capture-pane", "-p").removesuffix("\n").split("\n")

    def waits_for(self, text: str) -> None:
        """Return as soon as the window shows this text, which may go over the end of its lines.

        :raises LabError: it did not; the message has what it showed.
        """
        try:
            wait_until(lambda: text in self._tmux("capture-pane", "-p", "-J"), f"{text!r} in the terminal", 60)
        except LabError as error:
            raise LabError("\n".join([str(error), *self.lines])) from error

    def _tmux(self, *arguments: str) -> str:
        return run("tmux", "-S", self.socket, *arguments)


@contextmanager
def terminal(shell: str, environment: Mapping[str, str], columns: int = 120, rows: int = 30) -> Iterator[Terminal]:
    """Run a shell in a terminal of this size for the length of the block."""
    require("tmux")
    with TemporaryDirectory(prefix="haku-terminal-") as folder:
        window = Terminal(Path(folder, "tmux"))
        settings = [f"{name}={value}" for name, value in environment.items()]
        size = ("-x", str(columns), "-y", str(rows))
        # tmux has a server, which begins with its only window.
        tmux = ("env", "-u", "TMUX", *settings, "tmux", "-f", "/dev/null")
        run(*tmux, "-S", window.socket, "new-session", "-d", *size, shell)
        try:
            yield window
        finally:
            run("tmux", "-S", window.socket, "kill-server")
