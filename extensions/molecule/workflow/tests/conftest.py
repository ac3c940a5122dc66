# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Runner has of the environment, and the shared directory."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from testinfra.host import Host

IMAGE = "hakuriver/molecule-workflow:base"
TARBALLS = "/shared/hakuriver-containers"


@pytest.fixture
def image(host: Host) -> dict[str, Any]:
    """Give what the Runner's engine tells of its image."""
    (told,) = json.loads(host.check_output("docker image inspect %s", IMAGE))
    found: dict[str, Any] = told
    return found


@pytest.fixture
def version(image: dict[str, Any]) -> int:
    """Give the image's version: the second in which it was made."""
    return int(datetime.fromisoformat(image["Created"]).timestamp())


@pytest.fixture
def content(host: Host) -> str:
    """Give what a container of the image finds in the file that the tasks have written."""
    output: str = host.check_output("docker run --rm --network none %s cat /etc/molecule-workflow", IMAGE)
    return output


@pytest.fixture
def tarballs(host: Host) -> list[str]:
    """Give the names of the environment's tarballs, oldest first, as the Runner sees them."""
    names: list[str] = host.file(TARBALLS).listdir()
    return sorted(name for name in names if name.startswith("molecule-workflow-"))
