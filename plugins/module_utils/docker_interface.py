# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances that are Docker's containers; usable from plain Python, without Ansible.

with DockerInterface() as docker:
    print(docker.execute_command("resonite", "status"))
"""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, candidates, first_answering
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface


class DockerInterface(EngineInterface):
    """Instances on the Docker engine that the settings name, or on the first one that answers at a usual place.

    Without settings those of the environment hold (`DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH` …). Raises
    `EngineError` with every attempt if none answers.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings.from_environment(os.environ)
        super().__init__(*first_answering(candidates(settings, os.environ, Path.home()), settings))
