# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory does not grow with the tarball."""

from __future__ import annotations

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import peak_memory

LIMIT_BYTES = 100_000_000


@pytest.mark.parametrize("engine", ["d28", "d28c"], indirect=True)
def test_a_gigabyte_is_packaged_and_synchronised_within_100_megabytes(environment: Environment) -> None:
    environment.execute("dd if=/dev/zero of=/large bs=1M count=1000 2>/dev/null")
    packaged, packaging_bytes = peak_memory("haku_tar", **environment.options)
    assert packaged["size_bytes"] > 1_000_000_000
    environment.leave()
    synchronised, synchronising_bytes = peak_memory("haku_sync", **environment.options)
    assert synchronised["bytes_read"] > 1_000_000_000
    assert packaging_bytes < LIMIT_BYTES
    assert synchronising_bytes < LIMIT_BYTES
