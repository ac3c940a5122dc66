# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The env container, continued on top of the image that was made of it, so that the next package is small.

A container cannot change its image, so another takes its place: with its name, its settings, labels, mounts and
networks, and with nothing of its own yet. The former one stays aside, stopped, until all went well.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_info import own_changes
from ansible_collections.haku.river.plugins.module_utils.container_steps import aside_name, insist
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_CONTINUES,
    LABEL_IMAGE,
    is_env_container,
)
from ansible_collections.haku.river.plugins.module_utils.running import is_steady

_SHORT_ID = 12
_NEVER = "0001-01-01"  # how the engine writes no time at all
# What a container says about its place in a network because it was asked to, and not because it runs there.
_ENDPOINT_FIELDS = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")
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
    # What has no entry point of its own would get the image's.
    config["Entrypoint"] = config.get("Entrypoint") or [""]
    host["Mounts"] = _mounts(answer)
    host["Binds"] = [*(host.get("Binds") or ()), *_anonymous_volumes(answer)]
    borrowed = _OF_THE_NETWORK if mode.startswith("container:") else ()
    if host.get("UTSMode") == "host":
        borrowed = (*borrowed, "Hostname", "Domainname")
    elif config.get("Hostname") == short_id:
        borrowed = (*borrowed, "Hostname")
    config = {field: value for field, value in config.items() if field not in borrowed}
    # Engines up to 24 take no more than one network when they create a container.
    first, more = {}, {}
    for network, endpoint in (answer["NetworkSettings"].get("Networks") or {}).items():
        if network in _BUILT_IN:
            continue
        if network == mode or (endpoint.get("NetworkID") or "").startswith(mode):
            first[mode] = _endpoint(endpoint, short_id)
        else:
            more[network] = _endpoint(endpoint, short_id)
    return Creation(
        body={**config, "Image": image, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}},
        networks=more,
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
        aside = aside_name(self._name)
        if self._engine.find_container(aside):
            raise HakuError(
                f"Container {self._name} cannot continue on its package: there is a container {aside} already",
                where=self._engine.url,
                remedy="An interrupted re-creation has left it. When nothing in it is missed, remove it: "
                f"docker rm --force {aside}",
            )
        # Before it is done: an engine may do it, and only its answer get lost.
        self._former_id = answer["Id"]
        self._engine.rename_container(answer["Id"], aside)
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
        if answer is None or answer["Id"] != self._former_id:
            # What one that does not keep running has left behind is not somebody's work.
            stays = answer and _was_started(answer) and (is_steady(answer) or not self._runs)
            if answer and stays and self._has_changes(answer):
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
            # By force: after a restart of the engine it may run, if its restart policy is `always`.
            self._engine.remove_container(self._former_id, force=True, volumes=False)
            self._former_id = ""


def recover(engine: Engine, name: str, former_id: str = "") -> None:
    """Lead a replacement that was interrupted to an end: forward if the new container was ever started, else back.

    Of a container that lies aside alone only `former_id`, or its labels, can tell that it is ours.
    """
    # The engine may still be creating the container that a killed process asked for, which takes the name.
    insist(lambda: _recover(engine, name, former_id))


def _recover(engine: Engine, name: str, former_id: str) -> None:
    former, current = engine.find_container(aside_name(name)), engine.find_container(name)
    if former is None:
        return
    if current is None:
        if former["Id"] == former_id or is_env_container(name, _labels(former)):
            engine.rename_container(former["Id"], name)
    elif _labels(current).get(LABEL_CONTINUES) == former["Id"]:
        if _was_started(current):
            engine.remove_container(former["Id"], force=True, volumes=False)
        else:
            engine.remove_container(current["Id"], volumes=False)
            engine.rename_container(former["Id"], name)


def _was_started(answer: Mapping[str, Any]) -> bool:
    return not answer["State"]["StartedAt"].startswith(_NEVER)


def _labels(answer: Mapping[str, Any]) -> Mapping[str, str]:
    return answer["Config"].get("Labels") or {}


def _mounts(answer: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What `--mount` asked for, with the names of the volumes for which it gave none."""
    names = {mount["Destination"]: mount.get("Name") for mount in answer.get("Mounts") or ()}
    mounts = []
    for mount in answer["HostConfig"].get("Mounts") or ():
        name = names.get(posixpath.normpath(mount["Target"]))
        if mount.get("Type") == "volume" and not mount.get("Source") and name:
            # An empty volume is meant to be: without this it would be filled from the image once more.
            options = {**(mount.get("VolumeOptions") or {}), "NoCopy": True}
            mounts.append({**mount, "Source": name, "VolumeOptions": options})
        else:
            mounts.append(dict(mount))
    return mounts or None


def _anonymous_volumes(answer: Mapping[str, Any]) -> list[str]:
    """The volumes that no setting names: those of the image, and of `--volume` with a path alone."""
    host = answer["HostConfig"]
    places = [bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind]
    places += [mount["Target"] for mount in host.get("Mounts") or ()]
    asked = set(map(posixpath.normpath, places))
    return [
        f"{mount['Name']}:{mount['Destination']}:nocopy" + ("" if mount.get("RW", True) else ",ro")
        for mount in answer.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Name") and mount["Destination"] not in asked
    ]


def _endpoint(endpoint: Mapping[str, Any], short_id: str) -> dict[str, Any]:
    asked = {field: endpoint[field] for field in _ENDPOINT_FIELDS if endpoint.get(field)}
    if "Aliases" in asked:
        asked["Aliases"] = [alias for alias in asked["Aliases"] if alias != short_id]
    return asked
