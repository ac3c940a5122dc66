# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of tasks have in common: how one is run, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.environment import Environment
from tests.integration.modules import (
    Result,
    run_module,
    succeed,
)
from tests.lab.host import wait_until

# Words that a shell, YAML, a template or a log would take for something else.
HOSTILE = [
    "it's",
    'a "quote"',
    "$(touch /tmp/pwned)",
    "`id`",
    "a\nb",
    "*",
    "~",
    "; exit 3",
    "\\",
    "",
    " ",
    "-n",
    "{{ 7*7 }}",
    "ä€😀",
    "%s",
    "!!",
]


def options(environment: Environment, command: Any, **more: Any) -> dict[str, Any]:
    return {**environment.options, "command": command, "network": "none", **more}


def run(environment: Environment, command: Any, **more: Any) -> Result:
    return run_module("haku_task", **options(environment, command, **more))


def absence(environment: Environment, task_id: str) -> dict[str, Any]:
    own = {"task_id": task_id, "state": "absent"}
    return {"shared_dir": str(environment.shared), "docker_host": environment.engine.url, **own}


def containers(environment: Environment) -> list[str]:
    """The containers of this test's tasks; each has its shared directory in a label."""
    listed = environment.engine.docker(
        "ps", "--all", "--filter", "label=haku.river.task", "--format", '{{.Names}} {{.Label "haku.river.output"}}'
    )
    return [line.split()[0] for line in listed.splitlines() if f" {environment.shared}/" in line]


def wait_for_none(environment: Environment) -> None:
    wait_until(lambda: not containers(environment), "the task's container to be removed")


def tasks(environment: Environment, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = succeed("haku_task_info", shared_dir=str(environment.shared), **more)["tasks"]
    return found


def holders(path: Path) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found
