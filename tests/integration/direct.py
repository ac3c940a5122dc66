# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules as processes of their own, to be killed, raced against each other, and weighed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.integration.ansible_run import CHECKOUT
from tests.integration.environment import Environment


def start_directly(module: str, environment: Environment, **options: Any) -> subprocess.Popen[bytes]:
    """Start a module as Ansible's wrapper does; its result comes on standard output."""
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**environment.options, **options}})
    program = f"from ansible_collections.haku.river.plugins.modules.{module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".checkout")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def peak_memory(module: str, environment: Environment, **options: Any) -> tuple[dict[str, Any], int]:
    """Run a module; returns its result and its peak resident memory in bytes."""
    process = start_directly(module, environment, **options)
    assert process.stdout
    told = process.stdout.read()
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    process.stdout.close()
    assert process.stderr
    process.stderr.close()
    result: dict[str, Any] = json.loads(told)
    return result, usage.ru_maxrss * 1024
