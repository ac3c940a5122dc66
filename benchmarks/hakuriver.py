# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HakuRiver's own procedure, step by step as its server does it with the Docker SDK.

Written anew from what its server was seen to do. Each call is a process of its own, as the measured modules are:
`package URL CONTAINER DIRECTORY`, `load URL TARBALL`, `check URL NAME DIRECTORY`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import docker

_STOP_SECONDS = 10
_SDK_TIMEOUT_SECONDS = 1800


def main() -> None:
    """Do what the command line says and print the result as JSON."""
    action, url, *arguments = sys.argv[1:]
    client = docker.DockerClient(base_url=url, timeout=_SDK_TIMEOUT_SECONDS)
    print(json.dumps(_ACTIONS[action](client, *arguments)))


def _package(client: docker.DockerClient, name: str, directory: str) -> dict[str, Any]:
    """Stop, commit, save, remove the image, start: the environment is away all the time."""
    tarball = Path(directory, f"{name}-{int(time.time())}.tar")
    container = client.containers.get(name)
    gone_at = time.monotonic()
    container.stop(timeout=_STOP_SECONDS)
    image = container.commit(repository=f"hakuriver/{name}", tag="base")
    with tarball.open("wb") as file:
        for chunk in client.images.get(f"hakuriver/{name}:base").save(named=True):
            file.write(chunk)
    client.images.remove(str(image.id), force=True)
    container.start()
    return {"tarball": str(tarball), "away_seconds": time.monotonic() - gone_at}


def _load(client: docker.DockerClient, tarball: str) -> dict[str, Any]:
    with Path(tarball).open("rb") as file:
        return {"images": [image.id for image in client.images.load(file)]}


def _check(client: docker.DockerClient, name: str, directory: str) -> dict[str, Any]:
    """Compare the image's time of creation with the names of the tarballs, as a Runner does before a task."""
    created = client.images.get(f"hakuriver/{name}:base").attrs["Created"]
    local = int(datetime.fromisoformat(created).timestamp())
    pattern = re.compile(rf"{re.escape(name)}-(\d+)\.tar")
    there = [int(match[1]) for path in Path(directory).iterdir() if (match := pattern.fullmatch(path.name))]
    return {"needs_sync": max(there, default=0) > local}


_ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"package": _package, "load": _load, "check": _check}
