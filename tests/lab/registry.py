# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry to pull from, on the loopback address, where engines need no TLS."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from .engines import start_main
from .host import HOME, Daemon, exclusive, wait_until
from .images import Image, provide

_DIRECTORY = HOME / "registry"
_DAEMON = Daemon("docker-registry", _DIRECTORY)
_CONFIGURATION = _DIRECTORY / "config.json"


@dataclass(frozen=True)
class Registry:
    """A running registry. Only the host's own engine reaches it: the others have no network."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """What an image's name begins with to be pulled from here."""
        return f"{self.host}:{self.port}"

    def push(self, image: Image, reference: str) -> str:
        """Put a base image into the registry and return the full name to pull it by.

        The host's engine keeps no trace of that name, so that the next pull is a real one.
        """
        engine = start_main()
        full_name = f"{self.address}/{reference}"
        engine.docker("tag", provide(image, engine), full_name)
        engine.docker("push", full_name)
        engine.docker("image", "rm", full_name)
        return full_name


@exclusive("registry")
def start() -> Registry:
    """Start the registry, if it does not run already."""
    if _DAEMON.pid is None:
        registry = Registry("127.0.0.1", _free_port())
        _configure(registry)
        _DAEMON.start("serve", _CONFIGURATION)
        wait_until(lambda: _accepts(registry), f"the registry, see {_DAEMON.log}")
    return _configured()


def running() -> Registry | None:
    """Return the registry if it runs."""
    return _configured() if _DAEMON.pid else None


def stop() -> None:
    """Stop the registry; what was pushed stays on disk."""
    _DAEMON.stop()


def _configure(registry: Registry) -> None:
    storage = {"filesystem": {"rootdirectory": str(_DIRECTORY / "data")}, "delete": {"enabled": True}}
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, which is what the registry reads.
    _CONFIGURATION.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": registry.address}}))


def _configured() -> Registry:
    host, port = json.loads(_CONFIGURATION.read_text())["http"]["addr"].split(":")
    return Registry(host, int(port))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _accepts(registry: Registry) -> bool:
    with socket.socket() as client:
        return client.connect_ex((registry.host, registry.port)) == 0
