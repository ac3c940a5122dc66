# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an env container begins whose continuation is looked at."""

from __future__ import annotations

from pathlib import Path

from tests.integration.environment import Environment
from tests.lab import images


def begin(environment: Environment, *options: str | Path, command: tuple[str, ...] = ("sleep", "infinity")) -> None:
    """Start the env container anew, with these options of `docker run`."""
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={environment.name}")
    environment.engine.docker(
        "run", "--detach", "--name", environment.name, *labels, *options, images.BUSYBOX.name, *command
    )
