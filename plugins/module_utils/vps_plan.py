# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a VPS is, what there is of it, and what is to be done; nothing here touches an engine."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_steps import (
    PutBack,
    Remove,
    Step,
    Update,
    aside_name,
    steps_of_life,
)
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_IMAGE,
    LABEL_MANAGED,
    LABEL_VPS,
    LABEL_VPS_ENVIRONMENT,
    LABEL_VPS_VERSION,
)
from ansible_collections.haku.river.plugins.module_utils.settings import (
    SETTINGS_OPTIONS,
    Difference,
    Settings,
    differences,
    in_place,
)
from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp
from ansible_collections.haku.river.plugins.module_utils.vps_keys import described_key
from ansible_collections.haku.river.plugins.module_utils.vps_port import Ports, normal_address, published
from ansible_collections.haku.river.plugins.module_utils.vps_snapshots import (
    Forget,
    Take,
    VpsSnapshot,
    choose_snapshot,
    next_snapshot,
    superfluous,
)
from ansible_collections.haku.river.plugins.module_utils.vps_steps import (
    OWN_FILES,
    START,
    Answering,
    Create,
    NewMachine,
    PutKeys,
    Replace,
    container_name,
)

VPS_SETTINGS = ("env", "volumes", "network", "cpus", "memory", "shm_size", "gpus", "labels", "restart_policy")
"""The options of `Settings` that a VPS has; its image and command follow from what it is."""

SETTINGS_OF_VPS = {name: SETTINGS_OPTIONS[name] for name in VPS_SETTINGS}


@dataclass(frozen=True)
class Wish:
    """What the user wants of the VPS `vps`. None is nothing said.

    `state` is the module's choice, `reference` the environment's image on this machine, `version` the pinned one,
    `snapshot` the one to go back to, and `ports` is where the VPS may answer.
    """

    vps: str
    ports: Ports
    state: str = "present"
    environment: str | None = None
    reference: str | None = None
    version: int | None = None
    asked: Settings = field(default_factory=Settings)
    keys: tuple[str, ...] | None = None
    recreate: bool = False
    snapshot: int | None = None
    keep_snapshots: int | None = None
    stop_timeout_seconds: int = 10
    ready_timeout_seconds: int = 30
    lock_timeout_seconds: int = 3600

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that cannot be granted."""
        network = self.asked.network or "bridge"
        if network in ("host", "none") or network.startswith("container:"):
            raise HakuError(
                f"network {network!r} publishes no port, and a VPS is reached by one",
                remedy="Leave network out, or name a network that docker network create has made",
            )
        for volume in self.asked.volumes or ():
            _check_leaves_place(volume)
        if self.keep_snapshots is not None and self.keep_snapshots < 0:
            raise HakuError(
                f"keep_snapshots: {self.keep_snapshots} is not a number of snapshots", remedy="Keep 0 or more"
            )
        if self.state == "snapshot" and self.keep_snapshots == 0:
            raise HakuError("keep_snapshots: 0 would remove the snapshot that is taken", remedy="Keep 1 or more")

    @property
    def container(self) -> str:
        """What the container is called."""
        return container_name(self.vps)

    @property
    def ready(self) -> Answering:
        """When it does what it is for."""
        return Answering(self.vps, self.ready_timeout_seconds)

    @classmethod
    def settings(cls, params: Mapping[str, Any]) -> Settings:
        """Read those options of `Settings` that a VPS has."""
        return Settings.from_options({**dict.fromkeys(SETTINGS_OPTIONS), **params})


def _check_leaves_place(volume: str) -> None:
    """Raise `HakuError` for a mount into which the files of a VPS would go, and so over those of somebody's home."""
    source, target = (PurePosixPath(posixpath.normpath(path)) for path in volume.split(":")[:2])
    covered = next((path for path in OWN_FILES if target in (PurePosixPath(path), *PurePosixPath(path).parents)), None)
    if covered:
        raise HakuError(
            f"volumes mounts {source} at {target}, where a VPS has its own {covered}, which would be written into it",
            remedy="Mount it elsewhere, such as /mnt or /root/data",
        )


@dataclass(frozen=True)
class Machine:
    """A VPS that exists. `state` is the engine's word; `port` is None if it publishes none."""

    id: str
    state: str
    settings: Settings
    managed: bool
    environment: str
    version: int | None
    address: str
    port: int | None
    created: int | None
    keys: tuple[str, ...] = ()
    host_key: tuple[str, bytes] | None = None
    image_id: str | None = None

    @classmethod
    def from_inspect(cls, vps: str, answer: Mapping[str, Any]) -> Machine:
        """Read the answer of the engine's `GET /containers/{id}/json`; keys are not among it."""
        labels = answer["Config"].get("Labels") or {}
        version = labels.get(LABEL_VPS_VERSION, "")
        address, port = published(answer)
        return cls(
            id=answer["Id"],
            state=answer["State"]["Status"],
            settings=Settings.from_inspect(answer),
            managed=labels.get(LABEL_MANAGED) == "true" and labels.get(LABEL_VPS) == vps,
            environment=labels.get(LABEL_VPS_ENVIRONMENT, ""),
            version=int(version) if version.isdigit() else None,
            address=address,
            port=port,
            created=unix_timestamp(answer.get("Created")),
            image_id=answer["Image"],
        )


@dataclass(frozen=True)
class Seen:
    """What there is before anything is done.

    `image_version` is the version of the environment's image, once that is brought up to date. An interrupted run
    may leave a machine that never started (`unfinished`, and then it is not `machine`), and an interrupted re-creation
    the former one aside: alone (`aside`, and then it is `machine`), or beside the new one (`leftover`). `now` is in
    Unix seconds.
    """

    machine: Machine | None = None
    snapshots: tuple[VpsSnapshot, ...] = ()
    image_version: int | None = None
    unfinished: bool = False
    aside: bool = False
    leftover: bool = False
    now: int = 0


@dataclass(frozen=True)
class Plan:
    """The steps, what they change, and the state that the VPS then has (`absent` without one).

    `renews` is whether there will be a new machine of the environment's image, and `snapshots` those that then are.
    """

    steps: tuple[Step, ...]
    differences: tuple[Difference, ...]
    state: str
    snapshots: tuple[VpsSnapshot, ...]
    renews: bool = False
    taken: VpsSnapshot | None = None


def plan(seen: Seen, wish: Wish) -> Plan:
    """Decide what to do; raises `HakuError` when that needs a permission or an option that is not given."""
    if seen.machine is not None:
        _check_is_ours(seen.machine, wish)
    decided = _removal(seen, wish) if wish.state == "absent" else _decision(seen.machine, seen, wish)
    discard: tuple[Step, ...] = (Remove(wish.container, "created", 0),) if seen.unfinished else ()
    return replace(decided, steps=discard + decided.steps)


def _decision(there: Machine | None, seen: Seen, wish: Wish) -> Plan:
    if there is None:
        return _creation(seen, wish)
    if there.state in ("dead", "removing"):
        raise HakuError(
            f"VPS {wish.vps} is {there.state}: the engine began to remove it and did not finish",
            remedy="Remove it with state: absent, then create it again",
        )
    decided = _of_state(there, seen, wish)
    put_back: tuple[Step, ...] = (PutBack(wish.container),) if seen.aside else ()
    return replace(decided, steps=put_back + decided.steps)


def _of_state(there: Machine, seen: Seen, wish: Wish) -> Plan:
    if wish.state == "present":
        return _convergence(there, seen, wish)
    if wish.environment not in (None, there.environment):
        raise HakuError(
            f"VPS {wish.vps} is one of {there.environment}, not of {wish.environment}",
            remedy="Correct name or leave it out, or correct vps",
        )
    if wish.state == "snapshot":
        return _snapshot(there, seen, wish)
    if wish.state == "restored":
        return _restoration(there, seen, wish)
    # What takes a new machine is none of the business of one that is merely stopped or restarted.
    return _changed_in_place(there, seen, wish, tuple(each for each in _differences(there, wish) if each.in_place))


def _check_is_ours(there: Machine, wish: Wish) -> None:
    if not there.managed:
        raise HakuError(
            f"Container {wish.container} is not a VPS of haku.river "
            f"(it has no labels {LABEL_MANAGED}=true and {LABEL_VPS}={wish.vps})",
            remedy="Choose another name, or remove that container",
        )


def _removal(seen: Seen, wish: Wish) -> Plan:
    steps: list[Step] = []
    changes: list[Difference] = []
    if seen.machine:
        name = aside_name(wish.container) if seen.aside else wish.container
        steps.append(Remove(name, seen.machine.state, wish.stop_timeout_seconds))
        changes.append(Difference("state", "absent", seen.machine.state))
    if seen.leftover:
        steps.append(Remove(aside_name(wish.container), "exited", wish.stop_timeout_seconds))
    gone = superfluous(seen.snapshots, wish.keep_snapshots)
    return Plan((*steps, *map(Forget, gone)), tuple(changes), "absent", _without(seen.snapshots, gone))


def _creation(seen: Seen, wish: Wish) -> Plan:
    if wish.state != "present":
        raise HakuError(f"There is no VPS {wish.vps} on this machine", remedy="Create it with state: present")
    if wish.reference is None:
        raise HakuError(f"There is no VPS {wish.vps}, and no environment to create it from", remedy="Set name")
    if wish.keys is None:
        raise HakuError(
            f"There is no VPS {wish.vps}, and nobody could log in to a new one",
            remedy="Give public keys with authorized_keys or key_file, or have a pair made with generate_key",
        )
    settings = wish.asked.completed()
    body = _body(wish, seen.image_version, settings)
    create = Create(NewMachine(wish.vps, body, wish.ports, wish.keys, wish.ready, wish.lock_timeout_seconds))
    said = [
        *(("name", wish.environment), ("version", seen.image_version), ("port", str(wish.ports))),
        ("authorized_keys", list(map(described_key, wish.keys))),
        *((name, value) for name, value in settings.as_options().items() if name in VPS_SETTINGS and value),
    ]
    changes = (Difference("state", "running", "absent"), *(Difference(name, value, None) for name, value in said))
    return Plan((create,), changes, "running", seen.snapshots, renews=True)


def _convergence(there: Machine, seen: Seen, wish: Wish) -> Plan:
    found = _differences(there, wish)
    needs_new = tuple(each for each in found if not each.in_place)
    if needs_new and not wish.recreate:
        raise HakuError(
            f"VPS {wish.vps} is not as asked",
            cause="; ".join(map(str, needs_new)),
            remedy="Only a new one can be. Set recreate: true if the changes made inside it may be lost: its keys stay;"
            " settings that are not asked for return to their defaults. state: snapshot keeps what it is now",
        )
    if needs_new:
        return _recreation(there, seen, wish, (*found, *_keys_differ(there, wish)))
    return _changed_in_place(there, seen, wish, found)


def _changed_in_place(there: Machine, seen: Seen, wish: Wish, found: tuple[Difference, ...]) -> Plan:
    keys = _keys_differ(there, wish)
    update = (Update(wish.container, in_place(wish.asked, found)),) if found else ()
    put_keys = (PutKeys(wish.vps, wish.keys),) if keys and wish.keys else ()
    life, state = _life(there, wish)
    changes = (*found, *keys, *_state_change(there.state, state))
    return Plan((*update, *put_keys, *life), changes, state, seen.snapshots)


def _recreation(there: Machine, seen: Seen, wish: Wish, found: tuple[Difference, ...]) -> Plan:
    _check_way_is_free(seen, wish)
    if wish.reference is None:
        raise HakuError(f"VPS {wish.vps} can be re-created only of an environment", remedy="Set name")
    body = _body(wish, seen.image_version, wish.asked.completed())
    step = _replacing(there, wish, wish.reference, body)
    return Plan((step,), (*found, *_state_change(there.state, "running")), "running", seen.snapshots, renews=True)


def _restoration(there: Machine, seen: Seen, wish: Wish) -> Plan:
    _check_way_is_free(seen, wish)
    # A machine that had this name before may have been one of another environment.
    own = tuple(each for each in seen.snapshots if each.environment == there.environment)
    chosen = choose_snapshot(wish.vps, own, wish.snapshot)
    step = _replacing(there, replace(wish, ports=replace(wish.ports, said=False)), chosen.image, None)
    changes = (Difference("snapshot", chosen.timestamp, None), *_keys_differ(there, wish))
    return Plan((step,), (*changes, *_state_change(there.state, "running")), "running", seen.snapshots)


def _replacing(there: Machine, wish: Wish, image: str, body: Mapping[str, Any] | None) -> Replace:
    if wish.keys is None and not there.keys:
        raise HakuError(
            f"VPS {wish.vps} has no authorized keys that a new machine could keep, and nobody could log in to it",
            remedy="Give public keys with authorized_keys or key_file, or have a pair made with generate_key",
        )
    stays = there.port is not None and (not wish.ports.said or wish.ports.allows(there.port))
    ports = wish.ports.only(there.port) if stays and there.port else wish.ports
    return Replace(
        vps=wish.vps,
        image=image,
        body=body,
        ports=ports if ports.address else replace(ports, address=there.address),
        keys=wish.keys,
        stop_timeout_seconds=wish.stop_timeout_seconds,
        lock_timeout_seconds=wish.lock_timeout_seconds,
        ready=wish.ready,
    )


def _snapshot(there: Machine, seen: Seen, wish: Wish) -> Plan:
    repository = (there.settings.image or "").rpartition(":")[0]
    taken = next_snapshot(wish.vps, repository, seen.snapshots, seen.now)
    then = (taken, *seen.snapshots)
    # Once restored, the VPS runs on a snapshot, which the engine then does not remove.
    gone = superfluous(then, wish.keep_snapshots, there.image_id)
    steps = (Take(taken), *map(Forget, gone))
    return Plan(steps, (Difference("snapshot", "taken", None),), there.state, _without(then, gone), taken=taken)


def _check_way_is_free(seen: Seen, wish: Wish) -> None:
    if seen.leftover:
        former = aside_name(wish.container)
        raise HakuError(
            f"VPS {wish.vps} cannot be replaced: there is a container {former} already",
            remedy="An interrupted re-creation has left it. When nothing in it is missed, remove it: "
            f"docker rm --force {former}",
        )


def _body(wish: Wish, version: int | None, settings: Settings) -> dict[str, Any]:
    """The body of `POST /containers/create`, but for the port."""
    labels = {
        LABEL_MANAGED: "true",
        LABEL_VPS: wish.vps,
        LABEL_VPS_ENVIRONMENT: wish.environment or "",
        LABEL_VPS_VERSION: "" if version is None else str(version),
        LABEL_IMAGE: wish.reference or "",
    }
    body = replace(settings, image=wish.reference, command=("/bin/sh", "-c", START), init=True).as_creation(labels)
    # Whatever the image wants for its own program is not meant for an SSH server.
    own = {"User": "0", "WorkingDir": "/", "StopSignal": "SIGTERM", "Healthcheck": {"Test": ["NONE"]}}
    return {**body, **own, "Hostname": wish.vps}


def _differences(there: Machine, wish: Wish) -> tuple[Difference, ...]:
    found = []
    if wish.environment not in (None, there.environment):
        found.append(Difference("name", wish.environment, there.environment))
    if wish.version not in (None, there.version):
        found.append(Difference("version", wish.version, there.version))
    if wish.ports.said and not (there.port and wish.ports.allows(there.port)):
        found.append(Difference("port", str(wish.ports), there.port))
    if wish.ports.address is not None and normal_address(wish.ports.address) != there.address:
        found.append(Difference("address", wish.ports.address, there.address))
    return (*found, *differences(wish.asked, there.settings))


def _keys_differ(there: Machine, wish: Wish) -> tuple[Difference, ...]:
    if wish.keys is None or wish.keys == there.keys:
        return ()
    return (Difference("authorized_keys", list(map(described_key, wish.keys)), list(map(described_key, there.keys))),)


def _life(there: Machine, wish: Wish) -> tuple[tuple[Step, ...], str]:
    wanted = "started" if wish.state == "present" else wish.state
    return steps_of_life(wish.container, there.state, wanted, wish.stop_timeout_seconds, wish.ready)


def _state_change(there: str, asked: str) -> tuple[Difference, ...]:
    return (Difference("state", asked, there),) if asked != there else ()


def _without(there: tuple[VpsSnapshot, ...], gone: tuple[VpsSnapshot, ...]) -> tuple[VpsSnapshot, ...]:
    return tuple(each for each in there if each not in gone)
