# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of Ansible costs on Runners that have nothing to do, beside the least that Ansible does on them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.lab import machines as lab
from tests.lab.machines import MACHINES
from tests.versions import publish

from . import results
from .contenders import HAKU_RIVER
from .measure import Run, run_command
from .results import Case, Sample
from .steps import PING, turns

_ENVIRONMENT = "bench-nothing"
_VERSION = 1767225600


def nothing_to_do(rounds: int) -> Iterator[Sample]:
    """Synchronise the lab's Runners by SSH, with Ansible as it is without settings, and ping them, in turns."""
    machines = lab.start(MACHINES)
    directory = MACHINES.shared / _ENVIRONMENT
    options = {"name": _ENVIRONMENT, "shared_dir": str(lab.SHARED), "container_dir": _ENVIRONMENT}
    synchronise = partial(_ansible, "haku.river.haku_sync", options)
    where = f"{len(machines) - 1} Runners"
    try:
        publish(directory, _ENVIRONMENT, _VERSION, {"content": b"it does not matter how much"})
        # The first run of either opens the connections, which later ones share.
        synchronise()
        for contender, act in turns([(HAKU_RIVER, synchronise), (PING, partial(_ansible, PING, {}))], rounds):
            done = act()
            case = Case(results.NOTHING_BY_SSH, where, results.NOTHING_SHARED, contender)
            yield Sample(case, done.seconds, done.process_seconds)
    finally:
        _ansible("haku.river.haku_sync", {**options, "state": "absent"})
        shutil.rmtree(directory)


def _ansible(module: str, options: dict[str, str]) -> Run:
    program = Path(sys.executable).with_name("ansible")
    arguments = ("--args", json.dumps(options)) if options else ()
    return run_command(program, f"--inventory={MACHINES.inventory}", "haku_runners", "-m", module, *arguments)
