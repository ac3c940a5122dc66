# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a roll-out to many Runners takes: `python -m benchmarks.fleet`, which prints a table.

A Runner is an entry of the inventory, reached by SSH, with an engine of its own. Several of them are on one machine of
the lab, and all share the processors of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import machines as lab
from tests.lab.host import LabError, exclusive
from tests.lab.machines import MACHINES, Machine
from tests.lab.session import session
from tests.lab.small_engine import small_engine
from tests.versions import publish

from .measure import CHECKOUT, BenchmarkError, run_command

_ENVIRONMENT = "bench-fleet"
_CONTAINER_DIR = "bench-fleet"
_FIRST_VERSION = 1767225600
_CHANGE_BYTES = 3_000_000
_DISK_MEGABYTES = 64


@dataclass(frozen=True)
class Fleet:
    """An inventory of Runners, and the environment that they have."""

    inventory: Path

    def distribute(self, forks: int, **variables: object) -> float:
        """Run the playbook as its users do; returns the seconds that it took."""
        variables = {"haku_environments": [_environment(variables.pop("smoke_test", None))], **variables}
        playbook = CHECKOUT / "playbooks/distribute.yml"
        return self._run("ansible-playbook", forks, playbook, f"--extra-vars={json.dumps(variables)}")

    def ask(self, forks: int, module: str, **options: object) -> float:
        """Run one module on all Runners; returns the seconds that it took."""
        arguments = ("--args", json.dumps(options)) if options else ()
        return self._run("ansible", forks, "haku_runners", "--module-name", module, *arguments)

    def _run(self, program: str, forks: int, *arguments: str | Path) -> float:
        command = (Path(sys.executable).with_name(program), f"--inventory={self.inventory}", f"--forks={forks}")
        environment = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"}
        return run_command(*command, *arguments, environment=environment).seconds


def main() -> int:
    """Do what the command line asks and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description="Measure roll-outs to many Runners."
    )
    parser.add_argument("--runners", type=int, default=20, help="how many Runners; default: 20")
    parser.add_argument("--forks", type=int, nargs="+", default=[5, 20], help="Ansible's forks; default: 5 20")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; default: 3")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("error: the benchmark starts machines, which only root can", file=sys.stderr)
        return 1
    try:
        with session(sweeping=False), exclusive("benchmarks"), _fleet(asked.runners) as fleet:
            print(_table(asked.runners, measure(fleet, asked.forks, asked.rounds)))
    except (LabError, BenchmarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(fleet: Fleet, forks: Sequence[int], rounds: int) -> dict[str, dict[int, list[float]]]:
    """The seconds of each kind of run, by forks. The kinds take turns, so that what else the machine does hits all."""
    versions = iter(range(_FIRST_VERSION, _FIRST_VERSION + 86400))
    change(next(versions))
    fleet.distribute(max(forks))
    there = {"name": _ENVIRONMENT, "shared_dir": str(lab.SHARED), "container_dir": _CONTAINER_DIR}
    kinds: dict[str, Callable[[int], float]] = {
        "`ansible.builtin.ping`": lambda forks: fleet.ask(forks, "ansible.builtin.ping"),
        "`haku_sync` with nothing to do": lambda forks: fleet.ask(forks, "haku.river.haku_sync", **there),
        "roll-out with nothing to do": fleet.distribute,
        "roll-out of a change of 3 MB": fleet.distribute,
        "the same, batches and smoke test": lambda forks: fleet.distribute(forks, smoke_test="true"),
    }
    changes = list(kinds)[-2:]
    seconds: dict[str, dict[int, list[float]]] = {kind: {number: [] for number in forks} for kind in kinds}
    for _round in range(rounds):
        for number in forks:
            for kind, act in kinds.items():
                if kind in changes:
                    change(next(versions))
                seconds[kind][number].append(act(number))
    return seconds


def change(version: int) -> None:
    """Publish a version that differs from the others by one layer."""
    publish(MACHINES.shared / _CONTAINER_DIR, _ENVIRONMENT, version, {"change": os.urandom(_CHANGE_BYTES)})


@contextmanager
def _fleet(count: int) -> Iterator[Fleet]:
    """Start the engines of as many Runners, spread over the machines."""
    machines = list(lab.start(MACHINES).values())
    placed = [(f"bench-r{number:02}", machines[number % len(machines)]) for number in range(1, count + 1)]
    directory = MACHINES.shared / _CONTAINER_DIR
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        engines = [small_engine(machine, name, _DISK_MEGABYTES) for name, machine in placed]
        interpreters = pool.map(stack.enter_context, engines)
        lines = [_line(*place, interpreter) for place, interpreter in zip(placed, interpreters, strict=True)]
        inventory = folder / "inventory.ini"
        general = MACHINES.inventory.read_text().partition("[all:vars]")[2]
        inventory.write_text("\n".join(["[haku_runners]", *lines, "[all:vars]", general.strip()]) + "\n")
        yield Fleet(inventory)


def _line(name: str, machine: Machine, interpreter: Path) -> str:
    where = f"ansible_host={machine.address} ansible_python_interpreter={interpreter}"
    return f"{name} {where} haku_container_dir={_CONTAINER_DIR}"


def _environment(smoke_test: object) -> dict[str, object]:
    tested = {"smoke_test": smoke_test, "smoke_test_options": {"network": "none"}} if smoke_test else {}
    return {"name": _ENVIRONMENT, "image": "unused", **tested}


def _table(runners: int, seconds: dict[str, dict[int, list[float]]]) -> str:
    """Medians, with the range."""
    forks = next(iter(seconds.values()))
    lines = [
        f"| {runners} Runners | " + " | ".join(f"forks {number}" for number in forks) + " |",
        "|---" * (len(forks) + 1) + "|",
    ]
    for kind, by_forks in seconds.items():
        cells = [f"{statistics.median(it):.1f} s ({min(it):.1f} to {max(it):.1f})" for it in by_forks.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
