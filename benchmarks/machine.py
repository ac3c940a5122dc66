# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the figures were taken on, without its names."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.lab.engines import Engine
from tests.lab.host import HOME, run

from . import workload


def describe(engines: Iterable[Engine]) -> dict[str, Any]:
    """The machine, the software and the environment that is benchmarked."""
    files_bytes, files = workload.contents()
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d"),
        "processor": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count(),
        "memory_bytes": int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) * 1024,
        "kernel": platform.release().split("-")[0],
        "system": _system(),
        "engine_storage": run("findmnt", "--noheadings", "--output", "FSTYPE", "--target", HOME).strip(),
        "shared_directory": "a loop-mounted image file (direct I/O) on the same disk, XFS with reflinks and ext4",
        "python": platform.python_version(),
        "docker_client": run("docker", "--version").split()[2].rstrip(","),
        "packages": {name: importlib.metadata.version(name) for name in ("ansible-core", "docker")},
        "engines": {
            engine.name: {"version": re.split(r"[+~]", engine.version)[0], "image_store": engine.store}
            for engine in engines
        },
        "environment": {
            "pip": workload.versions(),
            "files_bytes": files_bytes,
            "files_and_directories": files,
            "tarball_bytes": workload.tarball().stat().st_size,
            "change_bytes": workload.CHANGE_BYTES,
        },
    }


def _field(path: Path, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", path.read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
