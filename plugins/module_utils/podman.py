# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Podman's dialect of Docker's API: its answers in Docker's words, and requests as it takes them.

Its compatible service says some things otherwise, and leaves some out. All that is dealt with here and in `Engine`, so
that nothing above knows which engine it speaks to. Seen with Podman 5.4:
https://github.com/containers/podman/tree/v5.4/pkg/api/handlers/compat
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.image import run_configuration
from ansible_collections.haku.river.plugins.module_utils.names import familiar_reference

UNTOLD = ("Healthcheck", "OnBuild", "Shell")
"""What an image's configuration may have, and Podman does not tell."""

MADE_IN_CONTAINERS = (
    *("/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"),
    *("/run/.containerenv", "/run/podman-init", "/run/secrets", "/dev/init"),
)
"""Files that every container of Podman gets, as places for mounts or otherwise."""

_DIGEST = "sha256:"
_NETWORK = "podman"  # what Docker calls `bridge`
_STATES = {
    "configured": "created",
    "initialized": "created",
    "stopped": "exited",
    "stopping": "running",
    "unknown": "dead",
}
_CPU_PERIOD = 100_000
_NANO = 1_000_000_000
# What every container of Podman has in its environment without anybody asking for it.
_MARKS = ("container=podman", "container=oci")
# What Podman sets for the process as it starts, unless the image or the user has.
_OF_THE_PROCESS = ("HOME", "TERM")


# Answers


def image_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of an image, in a list or by itself: names as people write them, without the registry docker.io."""
    tags = [familiar_reference(tag) for tag in answer.get("RepoTags") or () if not tag.startswith("<none>")]
    return {**answer, "Id": digest(answer["Id"]), "RepoTags": tags}


def listed_container(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A container in a list. Which network it is in is not told there."""
    state = _STATES.get(entry["State"], entry["State"])
    return {**entry, "ImageID": digest(entry["ImageID"]), "Labels": entry.get("Labels") or {}, "State": state}


def container_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a container, so that a new one could be made of it."""
    state, config, networks = answer["State"], answer["Config"], answer["NetworkSettings"].get("Networks") or {}
    marks = (*_MARKS, f"HOSTNAME={config.get('Hostname')}")
    status = _STATES.get(state["Status"], state["Status"])
    if state["Status"] == "stopped" and has_restart_policy(answer):
        # It is "exited" only when it has been decided that it is not started again.
        status = "restarting"
    return {
        **answer,
        "Image": digest(answer["Image"]),
        "State": {**state, "Status": status},
        "Config": {
            **config,
            # In any order, another one for each container.
            "Env": sorted(entry for entry in config.get("Env") or () if entry not in marks),
            "StopSignal": _signal_name(config.get("StopSignal")),
            # No working directory is the root directory.
            "WorkingDir": "" if config.get("WorkingDir") == "/" else config.get("WorkingDir"),
        },
        "HostConfig": _host_configuration(answer["HostConfig"], networks),
        "NetworkSettings": {
            **answer["NetworkSettings"],
            "Networks": {"bridge" if name == _NETWORK else name: place for name, place in networks.items()},
        },
    }


def has_restart_policy(answer: Mapping[str, Any]) -> bool:
    """Whether a container may be started again by the engine when it ends; `answer` inspects it, in any dialect."""
    return (answer["HostConfig"].get("RestartPolicy") or {}).get("Name") not in (None, "", "no")


def _host_configuration(host: Mapping[str, Any], networks: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(host)
    if told.get("NanoCpus"):
        # It tells this limit in both ways, and takes it only in one.
        told.update(CpuPeriod=0, CpuQuota=0)
    told["Ulimits"] = [
        {**limit, "Name": limit["Name"].removeprefix("RLIMIT_").lower()} for limit in told.get("Ulimits") or ()
    ]
    # What they may be used for it does not tell, and takes no answer without it.
    told["Devices"] = [
        {**device, "CgroupPermissions": device.get("CgroupPermissions") or "rwm"}
        for device in told.get("Devices") or ()
    ]
    own = [name for name in networks if name != _NETWORK]
    if told.get("NetworkMode") in ("bridge", "default") and own and _NETWORK not in networks:
        told["NetworkMode"] = own[0]
    return told


def _signal_name(number: Any) -> str:
    """It tells signals by their numbers, and the usual one where none was asked for."""
    name = next((it.name for it in signal.Signals if str(it.value) == str(number)), str(number or ""))
    return "" if name == "SIGTERM" else name


def digest(image_id: str) -> str:
    """An image's ID; older ones leave out the algorithm in some answers."""
    return image_id if not image_id or image_id.startswith(_DIGEST) else _DIGEST + image_id


def image_configuration(config: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an image that is made of a container has to say, by the container's `Config` and that of its image.

    Podman's own commit would also say what only the process meant.
    """
    base = base or {}
    names = [entry.partition("=")[0] for entry in base.get("Env") or ()]
    unasked = tuple(f"{name}=" for name in _OF_THE_PROCESS if name not in names)
    env = [entry for entry in config.get("Env") or () if not entry.startswith(unasked)]
    untold = {field: base[field] for field in ("Volumes", "OnBuild", "Shell") if base.get(field)}
    return run_configuration({**config, **untold, "Env": env})


def load_refusal(words: str) -> str:
    """Why an image could not be loaded: it tries all formats, and gives a reason for each."""
    found = re.search(r"^\s*\* oci-archive: (.*)$", words, re.MULTILINE)
    return found[1] if found else words


# Requests


def update(changes: Mapping[str, Any], policy: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body of `POST /containers/{id}/update`; `policy` is the restart policy that the container has.

    It knows no `NanoCpus`, and takes a policy that is left out for none.
    """
    asked = {field: value for field, value in changes.items() if field != "NanoCpus"}
    if changes.get("NanoCpus"):
        asked.update(CpuPeriod=_CPU_PERIOD, CpuQuota=changes["NanoCpus"] * _CPU_PERIOD // _NANO)
    asked.setdefault("RestartPolicy", dict(policy or {}))
    return asked


def limits_ignored(info: Mapping[str, Any]) -> bool:
    """Whether this service silently ignores limits: without root, it has them of systemd and nobody else.

    https://github.com/containers/podman/issues/21575
    """
    by_systemd = str(info.get("CgroupVersion")) != "1" and info.get("CgroupDriver") != "cgroupfs"
    return is_rootless(info) and not by_systemd


def is_rootless(info: Mapping[str, Any]) -> bool:
    """Whether the service is that of a user who is not root; `info` is what it says of itself."""
    options: Sequence[str] = info.get("SecurityOptions") or ()
    return bool(info.get("Rootless")) or "name=rootless" in options
