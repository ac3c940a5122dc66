# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running a program inside a container, beside its main process, as `docker exec` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.attach import STDERR, StreamEnded, start_exec
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError


@dataclass(frozen=True)
class Ended:
    """The exit code of a program, and what it wrote."""

    rc: int
    stdout: str
    stderr: str


def run_program(engine: Engine, container_id: str, argv: Sequence[str], timeout_seconds: float) -> Ended:
    """Run `argv` without a shell and wait for it; raises `HakuError` if it has not ended in time. It then goes on."""
    name = argv[0] if argv else ""
    with engine.saying(f"Cannot run {name!r} in container {container_id[:12]}", remedy="Start the container first"):
        exec_id = engine.client.exec_create(container_id, list(argv))["Id"]
    deadline = time.monotonic() + timeout_seconds
    written: dict[int, bytearray] = {}
    stream = start_exec(engine, exec_id, timeout_seconds)
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise HakuError(
                    f"{name!r} has not ended in {timeout_seconds:g} s",
                    where=engine.url,
                    remedy="It goes on; give it more time, or end it inside the container",
                )
            for kind, data in stream.receive(left):
                written.setdefault(min(kind, STDERR), bytearray()).extend(data)
    except StreamEnded:
        pass
    finally:
        stream.close()
    return Ended(_exit_code(engine, exec_id, deadline), *_texts(written))


def _exit_code(engine: Engine, exec_id: str, deadline: float) -> int:
    """The engine may close the streams a moment before it knows the exit code."""
    while True:
        with engine.saying("Cannot ask for the exit code of the program"):
            found = engine.client.exec_inspect(exec_id)
        if not found["Running"] and found["ExitCode"] is not None:
            return int(found["ExitCode"])
        if time.monotonic() > deadline:
            raise HakuError("The program closed its output, and has not ended in time", where=engine.url)
        time.sleep(0.02)


def _texts(written: dict[int, bytearray]) -> tuple[str, str]:
    errors = written.pop(STDERR, bytearray())
    return b"".join(written.values()).decode(errors="replace"), errors.decode(errors="replace")
