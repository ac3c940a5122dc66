# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The port at which a VPS answers: given, or the first free one of a range, chosen without races."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive, local_path
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_VPS

# Below the ports that Linux takes for outgoing connections (32768 and up), so that none of those is in the way.
DEFAULT_RANGE = "22000-22999"
SSH_PORT = "22/tcp"
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_EVERYWHERE = ("", "0.0.0.0")
# Docker, of its own ports and of others; Podman, with and without root.
_IN_USE = re.compile(r"port is already allocated|address already in use|EADDRINUSE", re.IGNORECASE)


@dataclass(frozen=True)
class Ports:
    """The published ports that a VPS may have, from `first` to `last`, and the address of the machine they are on.

    `said` is whether somebody asked for that; `address` None is nothing said, and every address for a new VPS.
    """

    first: int
    last: int
    said: bool = True
    address: str | None = None

    @classmethod
    def from_options(cls, port: int | None, port_range: str | None, address: str | None) -> Ports:
        """Read the options; raises `HakuError` for what cannot be a port, a range or an address."""
        if address is not None:
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                remedy = "Give an IP address of the machine, 127.0.0.1 or 0.0.0.0"
                raise HakuError(f"address {address!r} is not an IP address", remedy=remedy) from error
        text = str(port) if port is not None else port_range or DEFAULT_RANGE
        match = _RANGE.fullmatch(text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last <= 65535:
            option = "port" if port is not None else "port_range"
            remedy = "Ports are 1 to 65535, and a range is written as FIRST-LAST"
            raise HakuError(f"{option} {text!r} means no port", remedy=remedy)
        return cls(first, last, port is not None or port_range is not None, address)

    @property
    def is_one(self) -> bool:
        """Whether there is nothing to choose."""
        return self.first == self.last

    def allows(self, port: int) -> bool:
        """Whether the port is one of these."""
        return self.first <= port <= self.last

    def only(self, port: int) -> Ports:
        """The same with that port alone."""
        return Ports(port, port, self.said, self.address)

    def __str__(self) -> str:
        return str(self.first) if self.is_one else f"{self.first}-{self.last}"


def choose(ports: Ports, taken: Mapping[int, str], refused: Mapping[int, str]) -> int:
    """The first port that is free. `taken` has the owners, `refused` the engine's words; `HakuError` if none is.

    A port that is the only one is left to the engine, as the same one may be free on another address.
    """
    for port in range(ports.first, ports.last + 1):
        if port not in refused and (ports.is_one or port not in taken):
            return port
    if ports.is_one:
        raise HakuError(f"Port {ports.first} is taken", cause=refused[ports.first], remedy="Choose another port")
    owners = ", ".join(sorted({owner for port, owner in taken.items() if ports.allows(port)}))
    others = f"{len(refused)} by other programs" if refused else ""
    raise HakuError(
        f"No port of {ports} is free",
        cause=" and ".join(filter(None, (f"they are taken by {owners}" if owners else "", others))),
        remedy="Remove a VPS that nobody needs, or choose a wider port_range",
    )


def taken_ports(engine: Engine, except_for: Iterable[str] = ()) -> dict[int, str]:
    """The ports that containers publish, with the containers' names; those of VPS also while they are stopped."""
    taken: dict[int, str] = {}
    for entry in engine.containers():
        name = entry["Names"][0].lstrip("/") if entry.get("Names") else entry["Id"][:12]
        if name in except_for:
            continue
        taken.update((port["PublicPort"], name) for port in entry.get("Ports") or () if port.get("PublicPort"))
        if (entry.get("Labels") or {}).get(LABEL_VPS):
            answer = engine.find_container(entry["Id"])
            _address, port = published(answer) if answer else ("", None)
            if port:
                taken[port] = name
    return taken


def published(answer: Mapping[str, Any]) -> tuple[str, int | None]:
    """The address and port at which a container's SSH server is to answer, as `docker inspect` says; 0.0.0.0 is all."""
    bindings = (answer["HostConfig"].get("PortBindings") or {}).get(SSH_PORT) or [{}]
    port = str(bindings[0].get("HostPort") or "")
    return normal_address(bindings[0].get("HostIp")), int(port) if port.isdigit() else None


def binding(address: str | None, port: int) -> dict[str, list[dict[str, str]]]:
    """The engine's `PortBindings`. Every address means those of IPv6 too."""
    return {SSH_PORT: [{"HostIp": "" if address in _EVERYWHERE else address or "", "HostPort": str(port)}]}


def normal_address(address: str | None) -> str:
    """The engine writes every address in two ways."""
    return "0.0.0.0" if (address or "") in _EVERYWHERE else str(address)


def is_in_use(error: EngineError) -> bool:
    """Whether the engine could not start a container because its port is not free."""
    return bool(_IN_USE.search(error.cause))


def choosing(engine: Engine, timeout_seconds: float) -> AbstractContextManager[object]:
    """Let one process of this user at a time choose a port and create the container that takes it."""
    path = local_path(engine.identity, "ports")
    return exclusive(path, timeout_seconds, "choosing a port")
