# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is offered to Python programs works on machines that have no Ansible."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.modules import CHECKOUT

PROGRAM = """
import sys
sys.modules["ansible"] = None
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings
from ansible_collections.haku.river.plugins.module_utils.{module} import {name} as Interface
try:
    Interface(EngineSettings(docker_host="unix:///nonexistent.sock"))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("module", "name"), [("docker_interface", "DockerInterface"), ("podman_interface", "PodmanInterface")]
)
def test_the_interfaces_need_no_ansible(module: str, name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".checkout")}
    program = PROGRAM.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("EngineError\n", "")
