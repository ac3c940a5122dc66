# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry on an engine's own loopback address, which is all the network that the lab's engines have."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.engines import RELEASES, Engine
from tests.lab.host import HOME, remove, require, wait_until

_PORT = 5055
ADDRESS = f"127.0.0.1:{_PORT}"
_LISTENS = f"0100007F:{_PORT:04X} 00000000:0000 0A"  # as /proc/net/tcp has it


@contextmanager
def registry(engine: Engine) -> Iterator[Path]:
    """Run an empty registry at `ADDRESS` in the engine's network namespace; gives the directory of its storage."""
    require("docker-registry")
    home = HOME / "bench" / f"registry-{engine.name}"
    remove(home)
    home.mkdir(parents=True)
    configuration = home / "config.json"
    storage = {"filesystem": {"rootdirectory": str(home / "data")}, "delete": {"enabled": True}}
    # JSON is YAML, which is what the registry reads.
    configuration.write_text(
        json.dumps({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": ADDRESS}})
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_within(engine), "docker-registry", "serve", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        sockets = Path(f"/proc/{process.pid}/net/tcp")
        wait_until(lambda: _LISTENS in sockets.read_text(), f"the registry of {engine.name}, see {home / 'log'}", 30)
        yield home / "data"
    finally:
        process.terminate()
        process.wait()
        remove(home)


def _within(engine: Engine) -> tuple[str, ...]:
    """The command that enters the engine's network; the host's own engine has the host's."""
    if engine.name not in RELEASES:
        return ()
    return ("nsenter", f"--net=/proc/{RELEASES[engine.name].daemon.pid}/ns/net")
