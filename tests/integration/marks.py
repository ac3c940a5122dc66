# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On which engines a test runs, where that is not the four of Docker."""

from __future__ import annotations

import pytest

from tests.lab.engines import PODMAN, RELEASES

ON_PODMAN_TOO = pytest.mark.parametrize("engine", [*RELEASES, *PODMAN], indirect=True)
"""A promise that people need first: on Podman as well, of root and of another user."""

ON_DOCKER_AND_ROOTS_PODMAN = pytest.mark.parametrize("engine", [*RELEASES, "podman"], indirect=True)
"""A promise in which root has no part, so that one Podman is enough; or one that Podman without root cannot keep here.

Without systemd it has no limits, and where control groups are of version 1, it cannot pause.
"""
