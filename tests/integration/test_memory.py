# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory does not grow with the tarball."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import peak_memory, without

LIMIT_BYTES = 100_000_000
SIZE_BYTES = 400_000_000


@pytest.mark.parametrize("engine", ["d28", "d28c"], indirect=True)
def test_memory_stays_under_100_megabytes_whatever_the_size(environment: Environment) -> None:
    environment.execute(f"dd if=/dev/zero of=/large bs=1000000 count={SIZE_BYTES // 1_000_000} 2>/dev/null")
    root = environment.engine.docker("info", "--format", "{{.DockerRootDir}}").strip()
    results = {
        "docker save": peak_memory("haku_tar", **environment.options, rebase=False, within=without(root)),
        "storage": peak_memory("haku_tar", **{**environment.options, "shared_dir": str(another(environment))}),
        "sync": peak_memory("haku_sync", **environment.options, delta="never"),
    }
    assert results["docker save"][0]["layers_from"] == "docker save"
    assert results["storage"][0]["layers_from"] in ("overlay2", "containerd content store")
    assert min(results[way][0]["bytes_written"] for way in ("docker save", "storage")) > SIZE_BYTES
    assert results["sync"][0]["bytes_read"] > SIZE_BYTES
    peaks = {way: peak_bytes for way, (_result, peak_bytes) in results.items()}
    assert max(peaks.values()) < LIMIT_BYTES, peaks


def another(environment: Environment) -> Path:
    """Another shared directory, so that nothing can be cloned."""
    shared = environment.shared.with_name("another")
    (shared / "hakuriver-containers").mkdir(parents=True)
    return shared
