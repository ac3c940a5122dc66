# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection's modules as Ansible does on a managed machine: a process each, options in, one JSON result out.

That a module is found, sent and started by Ansible is shown once for all, ad hoc and by the playbooks. Here it would
only cost time: `run_module("haku_container", name="my-env", docker_host=url)` is the module and nothing else. For the
same reason most of these processes are forks of one that has imported the libraries before; `start_module` starts an
interpreter of its own.

The modules run on the interpreter that `HAKU_TEST_PYTHON` names, or on the one that runs the tests.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
_RUN_SECONDS = 600
_PROGRAM = """
import shutil
from ansible_collections.haku.river.plugins.modules.{module} import main
try:
    main()
finally:
    shutil.copyfile("/proc/self/status", {status_file!r})
"""

# What every module imports, which takes nine tenths of its time.
_LIBRARIES = ["ansible.module_utils.basic", "docker", "requests", "tarfile", "zstandard"]

Result = dict[str, Any]


@dataclass(frozen=True)
class Converged:
    """What `converge` saw: the forecast, the run, and the second run that changed nothing."""

    check: Result
    first: Result
    second: Result


def start_module(
    module: str,
    /,
    *,
    check: bool = False,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    status_file: str = os.devnull,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a module, in diff mode; its result comes on standard output.

    `environment` is added to its own, `within` is a command that starts another, and what the kernel says of the
    process in the end goes into `status_file`.
    """
    arguments = _arguments(options, check)
    program = _PROGRAM.format(module=module, status_file=status_file)
    return subprocess.Popen(
        [
            *within,
            os.environ.get("HAKU_TEST_PYTHON", sys.executable),
            "-c",
            program,
            arguments,
        ],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".checkout"), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def result_of(process: subprocess.Popen[bytes]) -> Result:
    """Wait for a module and read its result, `failed` or not."""
    told, complaints = process.communicate(timeout=_RUN_SECONDS)
    return _parsed(told, complaints)


def _arguments(options: Mapping[str, Any], check: bool) -> str:
    return json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check, "_ansible_diff": True}})


@functools.cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    return context


def _run_forked(module: str, arguments: str) -> tuple[bytes, bytes]:
    """Run a module in a fork; returns what it wrote to standard output and standard error."""
    with tempfile.NamedTemporaryFile() as told, tempfile.NamedTemporaryFile() as complaints:
        files = {0: os.devnull, 1: told.name, 2: complaints.name}
        process = _forks().Process(target=_be_module, args=(module, arguments, dict(os.environ), files))
        process.start()
        process.join(_RUN_SECONDS)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(module, _RUN_SECONDS, told.read(), complaints.read())
        return told.read(), complaints.read()


def _be_module(module: str, arguments: str, environment: Mapping[str, str], files: Mapping[int, str]) -> None:
    """Be the module, in a process that is a fork: with this environment, and with these as its standard files."""
    for number, name in files.items():
        os.dup2(os.open(name, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, arguments]
    try:
        importlib.import_module(f"ansible_collections.haku.river.plugins.modules.{module}").main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _parsed(told: bytes, complaints: bytes = b"") -> Result:
    try:
        result: Result = json.loads(told)
    except ValueError as error:
        raise AssertionError(f"The module ended without a result:\n{told!r}\n{complaints.decode()}") from error
    # Up to 2.20, Ansible returns what was asked beside what was found.
    result.pop("invocation", None)
    return result


def run_module(
    module: str,
    /,
    *,
    check: bool = False,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Run one module and return its result, `failed` or not."""
    if not (environment or within or "HAKU_TEST_PYTHON" in os.environ):
        return _parsed(*_run_forked(module, _arguments(options, check)))
    with start_module(module, check=check, environment=environment, within=within, **options) as process:
        return result_of(process)


def succeed(module: str, /, *, check: bool = False, **options: Any) -> Result:
    """Run one module that must not fail."""
    result = run_module(module, check=check, **options)
    assert not result.get("failed"), f"{result.get('msg')}\n{result}"
    return result


def fail(module: str, /, *, check: bool = False, **options: Any) -> str:
    """Run one module that must fail with a sentence of its own, not with a traceback; return the sentence."""
    result = run_module(module, check=check, **options)
    assert result.get("failed"), f"This should have failed: {result}"
    assert "Traceback" not in json.dumps(result), result
    sentence: str = result["msg"]
    return sentence


def converge(module: str, /, **options: Any) -> Converged:
    """Forecast, run and run again; the forecast must be what the run reports, and the second run changes nothing.

    A forecast says null where something cannot be known beforehand (the ID of a container yet to be created).
    """
    seen = Converged(succeed(module, check=True, **options), succeed(module, **options), succeed(module, **options))
    check, first = returned(seen.check), returned(seen.first)
    assert forecasts(check, first), f"forecast: {check}\nrun:      {first}"
    assert seen.second["changed"] is False, f"The second run changed something: {seen.second}"
    return seen


def peak_memory(module: str, /, **options: Any) -> tuple[Result, int]:
    """Run a module; returns its result and its peak resident memory in bytes.

    The module's process tells it itself in the end: what `wait4` tells begins at the memory of the tests' process.
    """
    with (
        tempfile.NamedTemporaryFile("r") as status,
        start_module(module, status_file=status.name, **options) as process,
    ):
        result = result_of(process)
        (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    return result, int(peak) * 1024


def without(directory: str) -> tuple[str, ...]:
    """A command that starts another one for which this directory is empty."""
    return ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', directory)


def returned(result: Result) -> Result:
    """The part of a result that the module itself returned."""
    return {key: value for key, value in result.items() if key not in ("warnings", "deprecations")}


def forecasts(forecast: Any, fact: Any) -> bool:
    """Whether `fact` is as forecast; null in a forecast leaves the value open, never the key."""
    if forecast is None:
        return True
    if isinstance(forecast, dict) and isinstance(fact, dict):
        return forecast.keys() == fact.keys() and all(forecasts(forecast[key], fact[key]) for key in forecast)
    if isinstance(forecast, list) and isinstance(fact, list):
        return len(forecast) == len(fact) and all(map(forecasts, forecast, fact))
    return bool(forecast == fact)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that a process is about to do, without missing its moment."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
