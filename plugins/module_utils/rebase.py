# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The env container, continued on top of the image that was made of it, so that the next package is small.

A container cannot change its image, so another takes its place: with its name, its settings, labels, mounts and
networks, and with nothing of its own yet. The former one stays aside, stopped, until all went well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_info import own_changes
from ansible_collections.haku.river.plugins.module_utils.container_steps import aside_name
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_CONTINUES,
    LABEL_IMAGE,
    is_env_container,
)

_SHORT_ID = 12
_NEVER = "0001-01-01"  # how the engine writes no time at all
# What a container says about its place in a network because it was asked to, and not because it runs there.
_ENDPOINT_FIELDS = ("IPAMConfig", "Links", "Aliases", "DriverOpts")
_BUILT_IN = ("bridge", "host", "none")
# What a container in the network of another one shows of that one, and may not ask for itself.
_OF_THE_NETWORK = ("Hostname", "Domainname", "ExposedPorts", "MacAddress")


@dataclass(frozen=True)
class Creation:
    """What the engine needs to make a container: the body of `POST /containers/create`, and more networks to join."""

    body: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]]


def continuation(answer: Mapping[str, Any], image: str) -> Creation:
    """The creation of a container like the one of `answer` (`GET /containers/{id}/json`), on another image.

    What the engine made up for that one is left out: its host name, its place in the networks, its short ID as an
    alias. Its anonymous volumes are named, or the new one would get empty ones.
    """
    config, host = dict(answer["Config"]), dict(answer["HostConfig"])
    mode, short_id = host.get("NetworkMode") or "default", answer["Id"][:_SHORT_ID]
    labels = config.get("Labels") or {}
    config["Labels"] = {LABEL_IMAGE: config.get("Image") or "", **labels, LABEL_CONTINUES: answer["Id"]}
    host["Binds"] = [*(host.get("Binds") or ()), *_anonymous_volumes(answer)]
    borrowed = _OF_THE_NETWORK if mode.startswith("container:") else ()
    if config.get("Hostname") == short_id:
        borrowed = (*borrowed, "Hostname")
    config = {field: value for field, value in config.items() if field not in borrowed}
    endpoints = {
        network: _endpoint(endpoint, short_id)
        for network, endpoint in (answer["NetworkSettings"].get("Networks") or {}).items()
        if network not in _BUILT_IN
    }
    # Engines up to 24 take no more than one network when they create a container.
    first = {network: endpoint for network, endpoint in endpoints.items() if network == mode}
    return Creation(
        body={**config, "Image": image, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}},
        networks={network: endpoint for network, endpoint in endpoints.items() if network not in first},
    )


class Replacement:
    """The exchange of a container for its continuation. Nothing happens before `begin`."""

    def __init__(self, engine: Engine, name: str, runs: bool) -> None:
        self._engine = engine
        self._name = name
        self._runs = runs
        self._former_id = ""

    @property
    def begun(self) -> bool:
        """Whether there is a former container, which either `undo` or `finish` has to deal with."""
        return bool(self._former_id)

    def begin(self, image: str) -> None:
        """Put a continuation on `image` into the place of the container, which must not run. It is not started."""
        answer = self._engine.find_container(self._name)
        if answer is None:
            raise HakuError(f"Container {self._name} was removed while it was packaged", where=self._engine.url)
        creation = continuation(answer, image)
        self._engine.rename_container(answer["Id"], aside_name(self._name))
        self._former_id = answer["Id"]
        self._engine.create_container(self._name, creation.body)
        for network, endpoint in creation.networks.items():
            self._engine.join_network(self._name, network, endpoint)

    def undo(self) -> None:
        """Have the former container back, and run it if it ran.

        If somebody has worked in the new one meanwhile, that stays: it has all that the former one has.
        """
        if not self.begun:
            return
        answer = self._engine.find_container(self._name)
        if answer and self._has_changes(answer):
            self.finish()
            return
        if answer:
            self._engine.remove_container(answer["Id"], force=True, volumes=False)
        self._engine.rename_container(self._former_id, self._name)
        self._former_id = ""
        if self._runs:
            self._engine.start(self._name)

    def _has_changes(self, answer: Mapping[str, Any]) -> bool:
        mount_points = [mount["Destination"] for mount in answer.get("Mounts") or ()]
        return bool(own_changes(self._engine.changed_paths(answer["Id"]), mount_points))

    def finish(self) -> None:
        """Remove the former container. Its volumes stay, as the new one has them."""
        if self.begun:
            self._engine.remove_container(self._former_id, volumes=False)
            self._former_id = ""


def recover(engine: Engine, name: str, former_id: str = "") -> None:
    """Lead a replacement that was interrupted to an end: forward if the new container was ever started, else back.

    Of a container that lies aside alone only `former_id`, or its labels, can tell that it is ours.
    """
    former, current = engine.find_container(aside_name(name)), engine.find_container(name)
    if former is None:
        return
    if current is None:
        if former["Id"] == former_id or is_env_container(name, _labels(former)):
            engine.rename_container(former["Id"], name)
    elif _labels(current).get(LABEL_CONTINUES) == former["Id"]:
        if current["State"]["StartedAt"].startswith(_NEVER):
            engine.remove_container(current["Id"], volumes=False)
            engine.rename_container(former["Id"], name)
        else:
            engine.remove_container(former["Id"], volumes=False)


def _labels(answer: Mapping[str, Any]) -> Mapping[str, str]:
    return answer["Config"].get("Labels") or {}


def _anonymous_volumes(answer: Mapping[str, Any]) -> list[str]:
    """The volumes that no setting names: those of the image, and of `--volume` with a path alone."""
    host = answer["HostConfig"]
    named = {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    named |= {mount["Target"] for mount in host.get("Mounts") or () if mount.get("Source")}
    return [
        f"{mount['Name']}:{mount['Destination']}" + ("" if mount.get("RW", True) else ":ro")
        for mount in answer.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Name") and mount["Destination"] not in named
    ]


def _endpoint(endpoint: Mapping[str, Any], short_id: str) -> dict[str, Any]:
    asked = {field: endpoint[field] for field in _ENDPOINT_FIELDS if endpoint.get(field)}
    if "Aliases" in asked:
        asked["Aliases"] = [alias for alias in asked["Aliases"] if alias != short_id]
    return asked
