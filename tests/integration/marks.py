# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On which engines a test does not run: without a mark, one that asks for an engine runs on all of them."""

from __future__ import annotations

import pytest


def not_on(*engines: str, reason: str) -> pytest.MarkDecorator:
    """Leave these engines out, for a reason that lies in them, or because others show the same."""
    return pytest.mark.not_on(*engines, reason=reason)


NEEDS_LIMITS = not_on("podman-rootless", reason="Podman without root has no limits here, where it has no systemd")
NEEDS_PAUSE = not_on(
    "podman-rootless", reason="Podman without root cannot pause where control groups are of version 1, as they are here"
)
ONE_PODMAN_SHOWS_IT = not_on("podman-rootless", reason="root has no part in it, and root's Podman shows it")
ITS_NEIGHBOURS_SHOW_IT = not_on("d26", reason="in what containers can do, it is like d20 before it or d28 after it")
