# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection's modules as users do, through Ansible, and hand back what they report.

`run_module("haku_container", name="my-env", docker_host=url)` is one task on localhost. `converge` is the
question that every case answers: does check mode forecast the run, and does a second run change nothing?

The modules run on the interpreter that `HAKU_TEST_PYTHON` names, or on the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
_RUN_SECONDS = 600
# What Ansible adds to a result, or moves to the terminal, beside what the module returns.
_NOT_RETURNED = ("action", "invocation", "warnings", "deprecations", "exception")

Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One task of a play: a module's short name in the collection, or the full name of any module."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False

    def as_data(self) -> dict[str, Any]:
        """Return the task as a playbook has it."""
        name = self.module if "." in self.module else f"haku.river.{self.module}"
        # A failed task is a result like any other; the test says what it expects.
        return {
            "name": name,
            name: dict(self.options),
            "check_mode": self.check,
            "diff": True,
            "ignore_errors": True,
        }


@dataclass(frozen=True)
class Converged:
    """What `converge` saw: the forecast, the run, and the second run that changed nothing."""

    check: Result
    first: Result
    second: Result


def run_tasks(tasks: Sequence[Task], environment: Mapping[str, str] | None = None) -> list[Result]:
    """Run the tasks in one play and return their results in order. `environment` is added to that of the modules."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": os.environ.get("HAKU_TEST_PYTHON", sys.executable)},
        "environment": dict(environment or {}),
        "tasks": [task.as_data() for task in tasks],
    }
    with tempfile.NamedTemporaryFile("w", prefix="haku-play-", suffix=".json") as playbook:
        json.dump([play], playbook)
        playbook.flush()
        finished = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "--inventory", "localhost,", playbook.name],
            cwd=CHECKOUT,
            env=dict(os.environ, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_NOCOLOR="1"),
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
    try:
        told = json.loads(finished.stdout[finished.stdout.index("{") :])
    except ValueError as error:
        raise AssertionError(f"Ansible did not run the play:\n{finished.stdout}\n{finished.stderr}") from error
    results = [task["hosts"]["localhost"] for task in told["plays"][0]["tasks"]]
    assert len(results) == len(tasks), f"{len(results)} of {len(tasks)} tasks ran:\n{finished.stderr}"
    return results


def run_module(module: str, /, *, check: bool = False, **options: Any) -> Result:
    """Run one module, in diff mode, and return its result, `failed` or not."""
    return run_tasks([Task(module, options, check)])[0]


def succeed(module: str, /, *, check: bool = False, **options: Any) -> Result:
    """Run one module that must not fail."""
    return _not_failed(run_module(module, check=check, **options))


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
    tasks = [Task(module, options, check=True), Task(module, options), Task(module, options)]
    check, first, second = (_not_failed(result) for result in run_tasks(tasks))
    assert forecasts(returned(check), returned(first)), f"forecast: {returned(check)}\nrun:      {returned(first)}"
    assert second["changed"] is False, f"The second run changed something: {second}"
    return Converged(check, first, second)


def returned(result: Result) -> Result:
    """Leave out of a result what the module itself did not return."""
    return {key: value for key, value in result.items() if key not in _NOT_RETURNED and not key.startswith("_ansible")}


def forecasts(forecast: Any, fact: Any) -> bool:
    """Whether `fact` is as forecast; null in a forecast leaves the value open, never the key."""
    if forecast is None:
        return True
    if isinstance(forecast, dict) and isinstance(fact, dict):
        return forecast.keys() == fact.keys() and all(forecasts(forecast[key], fact[key]) for key in forecast)
    if isinstance(forecast, list) and isinstance(fact, list):
        return len(forecast) == len(fact) and all(map(forecasts, forecast, fact))
    return bool(forecast == fact)


def _not_failed(result: Result) -> Result:
    assert not result.get("failed"), f"{result.get('msg')}\n{result}"
    return result
