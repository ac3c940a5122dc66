# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One command, measured: its time, its memory, and what it read and wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.host import HOME

CHECKOUT = Path(__file__).resolve().parents[1]
_COMPILED = HOME / "bench-compiled"
_LOOK_EVERY_SECONDS = 0.05

# Runs in the measured process. Python's start and the imports are outside `seconds`: they are the same for every
# module, and they are in `process_seconds`. For those that come later, compiled code is kept. What `wait4` tells of
# memory would begin at that of the benchmark itself.
_PROGRAM = """
import json, sys, time
from {package} import main
began = time.monotonic()
try:
    main()
finally:
    seconds = time.monotonic() - began
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    with open({report!r}, "w") as report:
        json.dump({{"seconds": seconds, "peak_memory_bytes": int(status["VmHWM"].split()[0]) * 1024}}, report)
"""


class BenchmarkError(Exception):
    """A contender did not do what is measured; the message says what it said."""


@dataclass(frozen=True)
class Run:
    """One measured run. `seconds` is the work alone, `process_seconds` the command as a whole.

    `read_bytes` and `written_bytes` are what the process asked the kernel for, files, pipes and sockets together;
    `result` is what it returned.
    """

    seconds: float
    process_seconds: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    result: Mapping[str, Any] = field(default_factory=dict)


def run_module(module: str, /, within: Sequence[str] = (), **options: Any) -> Run:
    """Run an Ansible module by its full name, as Ansible does on a managed machine.

    `within` is a command that starts another one somewhere else.
    """
    collection, _dot, name = module.rpartition(".")
    package = f"ansible_collections.{collection}.plugins.modules.{name}"
    run = run_python(package, json.dumps({"ANSIBLE_MODULE_ARGS": options}), within=within)
    if run.result.get("failed"):
        raise BenchmarkError(f"{module} failed: {run.result.get('msg')}")
    return run


def run_python(package: str, *arguments: str, within: Sequence[str] = ()) -> Run:
    """Run `main()` of a Python module in a process of its own; it prints its result as JSON, or nothing."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        program = _PROGRAM.format(package=package, report=report.name)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{CHECKOUT / '.checkout'}:{CHECKOUT}",
            "PYTHONPYCACHEPREFIX": str(_COMPILED),
            "PYTHONDONTWRITEBYTECODE": "",  # whatever it is for the user of the benchmark
        }
        run, output = _measured([*within, sys.executable, "-c", program, *arguments], environment)
        own = json.load(report)
    result = json.loads(output) if output.strip() else {}
    return Run(own["seconds"], run.process_seconds, own["peak_memory_bytes"], run.read_bytes, run.written_bytes, result)


def run_command(*command: str | Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run a command line."""
    return _measured([str(word) for word in command], {**os.environ, **(environment or {})})[0]


def _measured(command: list[str], environment: Mapping[str, str]) -> tuple[Run, bytes]:
    """Run a command in the checkout; returns what it cost and what it printed."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=complaints
        )
        with _Watcher(process.pid) as watcher:
            # Looked at before it is reaped, while the kernel still knows what it did.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - began
        transferred = _read_fields(Path(f"/proc/{process.pid}/io"))
        status = process.wait()
        output.seek(0)
        complaints.seek(0)
        told = output.read()
        if status and not told.lstrip().startswith(b"{"):
            said = complaints.read().decode(errors="replace") + told.decode(errors="replace")
            raise BenchmarkError(f"`{' '.join(command)[:200]}` ended with {status}: {said}")
    return Run(seconds, seconds, watcher.peak_bytes, transferred["rchar"], transferred["wchar"]), told


def together(*runs: Run, **result: Any) -> Run:
    """Commands that do one thing one after another, as one run."""
    return Run(
        sum(run.seconds for run in runs),
        sum(run.process_seconds for run in runs),
        max(run.peak_memory_bytes for run in runs),
        sum(run.read_bytes for run in runs),
        sum(run.written_bytes for run in runs),
        result,
    )


class _Watcher:
    """Looks now and then at how much memory a process has had at most; only its last moment is missed."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        ended = False
        while not ended:
            self.peak_bytes = max(self.peak_bytes, _read_fields(self._status).get("VmHWM", 0) * 1024)
            ended = self._ended.wait(_LOOK_EVERY_SECONDS)


def _read_fields(path: Path) -> dict[str, int]:
    """Read the numbers in one of /proc's lists of `name: number unit`; a process that has ended has fewer of them."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) for name, value in pairs if value.split() and value.split()[0].isdecimal()}
