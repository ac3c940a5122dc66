# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances that are Podman's containers, over its Docker-compatible service (`systemctl start podman.socket`)."""

from __future__ import annotations

import os

from ansible_collections.haku.river.plugins.module_utils.connect import (
    EngineSettings,
    first_answering,
    podman_candidates,
)
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface


class PodmanInterface(EngineInterface):
    """Instances of the Podman service that the settings name, or `CONTAINER_HOST`, or else `DOCKER_HOST`.

    Where none does, that of root or of the user. Without settings those of the environment hold, as for Docker. Raises
    `EngineError` with every attempt if none answers; Docker in Podman's place does not count.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings.from_environment(os.environ)
        super().__init__(*first_answering(podman_candidates(settings, os.environ), settings))
