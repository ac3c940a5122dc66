# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry to pull from, on the loopback address, where engines need no TLS; machines look in by a window."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from .engines import start_main
from .host import HOME, Daemon, exclusive, wait_until
from .images import Image, provide

_DIRECTORY = HOME / "registry"
_DATA = _DIRECTORY / "data"
_DAEMON = Daemon("docker-registry", _DIRECTORY)
_WINDOW = Daemon("docker-registry", _DIRECTORY / "window")


@dataclass(frozen=True)
class Registry:
    """A running registry. Only the host's own engine reaches it: the lab's others have no network."""

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
    return _start(_DAEMON, "127.0.0.1", read_only=False)


@exclusive("registry")
def open_window() -> Registry:
    """Serve what was pushed, read-only, at the host's end of the bridge, where the machines reach it."""
    bridge = start_main().docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    return _start(_WINDOW, bridge.strip(), read_only=True)


def running() -> Registry | None:
    """Return the registry if it runs."""
    return _configured(_DAEMON) if _DAEMON.pid else None


def stop() -> None:
    """Stop the registry; what was pushed stays on disk."""
    _WINDOW.stop()
    _DAEMON.stop()


def _start(daemon: Daemon, host: str, read_only: bool) -> Registry:
    if daemon.pid is None:
        registry = Registry(host, _free_port(host))
        _configure(daemon, registry, read_only)
        daemon.start("serve", _configuration(daemon))
        wait_until(lambda: _accepts(registry), f"the registry, see {daemon.log}")
    return _configured(daemon)


def _configuration(daemon: Daemon) -> Path:
    return daemon.directory / "config.json"


def _configure(daemon: Daemon, registry: Registry, read_only: bool) -> None:
    storage = {
        "filesystem": {"rootdirectory": str(_DATA)},
        "delete": {"enabled": not read_only},
        "maintenance": {"readonly": {"enabled": read_only}},
    }
    daemon.directory.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, which is what the registry reads.
    text = json.dumps({"version": 0.1, "storage": storage, "http": {"addr": registry.address}})
    _configuration(daemon).write_text(text)


def _configured(daemon: Daemon) -> Registry:
    host, port = json.loads(_configuration(daemon).read_text())["http"]["addr"].split(":")
    return Registry(host, int(port))


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _accepts(registry: Registry) -> bool:
    with socket.socket() as client:
        return client.connect_ex((registry.host, registry.port)) == 0
