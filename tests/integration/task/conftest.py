# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Environments in which tasks can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import succeed
from tests.integration.task.tasks import containers
from tests.lab.host import remove


@pytest.fixture
def packaged(environment: Environment) -> Iterator[Environment]:
    """Give an environment with one version; the engine sees the shared directory, and has the image."""
    yield from _packaged(environment)


@pytest.fixture
def one_packaged(one_environment: Environment) -> Iterator[Environment]:
    """Give the same on one engine, for promises that no engine has a part in."""
    yield from _packaged(one_environment)


def _packaged(environment: Environment) -> Iterator[Environment]:
    shared = environment.engine.socket.parent / "shared" / environment.name
    (shared / "hakuriver-containers").mkdir(parents=True)
    packaged = replace(environment, shared=shared)
    packaged.execute("echo 1 > /version")
    succeed("haku_tar", **packaged.options)
    yield packaged
    for container in containers(packaged):
        packaged.engine.docker("rm", "--force", container)
    remove(shared)
