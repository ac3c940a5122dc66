# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers with a console, each in a container of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import console_double, images
from tests.lab.engines import Engine

_PROGRAM = Path(console_double.__file__).read_text()


@dataclass(frozen=True)
class Server:
    """A container on an engine."""

    engine: Engine
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What every module takes."""
        return {"name": self.name, "docker_host": self.engine.url}

    @property
    def status(self) -> str:
        """The engine's word for its state."""
        return self.inspect("State.Status")

    @property
    def heeds_sigterm(self) -> bool:
        """Whether it has said what SIGTERM does. Until then, the kernel keeps that from the first process."""
        status = self.engine.docker("exec", self.name, "cat", "/proc/1/status")
        masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigCgt:", "SigIgn:"))]
        return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)

    def inspect(self, field: str) -> str:
        """A field of what the engine says of it."""
        return self.engine.docker("inspect", "--format", f"{{{{.{field}}}}}", self.name).strip()


@contextmanager
def server(
    engine: Engine,
    name: str,
    *,
    terminal: bool = True,
    options: Sequence[str] = ("--interactive",),
    **settings: str,
) -> Iterator[Server]:
    """Run the console double for the length of the block; `settings` are its environment."""
    image = images.provide(images.PYTHON, engine)
    environment = [f"--env={key}={value}" for key, value in settings.items()]
    terminal_option = ["--tty"] if terminal else []
    arguments = ["--detach", "--network", "none", "--name", name, *terminal_option, *options, *environment]
    engine.docker("run", *arguments, image, "python3", "-c", _PROGRAM)
    try:
        yield Server(engine, name)
    finally:
        engine.docker("rm", "--force", name)


def without_logs(answer: str) -> str:
    """An answer without log lines, and without empty ones, which are typed to find prompts that log lines hide.

    What a terminal shows of the typing may part a log line at its tab.
    """
    logs = ("( 60 FPS)", "\tUpdated: ")
    return "\n".join(line for line in answer.split("\n") if line and not any(log in line for log in logs))
