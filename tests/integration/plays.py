# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run plays and playbooks as users do, on any inventory, and tell what each task did on each machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished `ansible-playbook`.

    `told` is what its JSON callback told in the end, `printed` all output, `memory_bytes` the peak of its processes.
    """

    code: int
    told: dict[str, Any]
    printed: str
    memory_bytes: int

    def results(self) -> Iterator[tuple[str, str, Result]]:
        """Yield task, without the role that it is of, machine and result, in the order of the run.

        The machines of a task end in any order; they come by name.
        """
        for play in self.told["plays"]:
            for task in play["tasks"]:
                name = task["task"]["name"].rpartition(" : ")[2]
                for machine, result in sorted(task["hosts"].items()):
                    yield name, machine, result

    @property
    def changed(self) -> list[tuple[str, str]]:
        """The tasks that reported a change, with their machines."""
        return [(task, machine) for task, machine, result in self.results() if result.get("changed")]

    @property
    def complaints(self) -> list[str]:
        """What failed or unreachable tasks said, of a loop each failed item."""
        ends = [
            result for _task, _machine, result in self.results() if result.get("failed") or result.get("unreachable")
        ]
        # Newer versions of ansible-core tell a failed item by its exception alone.
        failed = [
            item for end in ends for item in end.get("results", [end]) if item.get("failed") or "exception" in item
        ]
        return [str(result.get("msg")) for result in failed or ends]

    def result(self, task: str, machine: str | None = None) -> Result:
        """Return the result of the only task of that name (on that machine)."""
        (found,) = [result for name, there, result in self.results() if name == task and machine in (None, there)]
        return found

    def succeeded(self) -> Run:
        """Return the run itself, which must have ended well."""
        assert self.code == 0, f"{self.complaints}\n{self.printed}"
        return self

    def failed(self) -> str:
        """Return what the only failure of the run said."""
        assert self.code != 0, "This should have failed"
        (complaint,) = set(self.complaints) or {self.printed}
        assert "Traceback" not in complaint, complaint
        return complaint


def run_playbook(
    playbook: str | Path, inventory: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Run:
    """Run a playbook, by path or by its full name, in the checkout.

    Pipelining halves the time. Without it, as by default, modules come to machines as files: so it is in Molecule's
    scenarios and in the tests in which it matters (`as_files`).
    """
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, f"--inventory={inventory}", *arguments, str(playbook)]
    variables = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_NOCOLOR": "1", **(environment or {})}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={"ANSIBLE_PIPELINING": "1", **os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # Not Popen.wait: wait4 alone tells the memory of this process and its children.
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read()
    # Ansible's own messages may stand before and after. An error in the playbook itself leaves nothing to tell.
    start = re.search(r"^\{$", printed, re.MULTILINE)
    told = json.JSONDecoder().raw_decode(printed, start.start())[0] if start else {"plays": []}
    return Run(process.returncode, told, printed, usage.ru_maxrss * 1024)


def run_play(inventory: Path, hosts: str, tasks: Sequence[Mapping[str, Any]], *arguments: str, **keywords: Any) -> Run:
    """Run tasks, as they would stand in YAML, in a play with these keywords."""
    play = {"hosts": hosts, "gather_facts": False, "tasks": list(tasks), **keywords}
    with tempfile.NamedTemporaryFile("w", prefix="haku-play-", suffix=".json") as playbook:
        json.dump([play], playbook)
        playbook.flush()
        return run_playbook(playbook.name, inventory, *arguments)
