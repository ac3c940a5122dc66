# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a container runs: as the user asks for it, as the engine says it, as the engine wants it said, and compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Union

from ansible.module_utils.common.text.formatters import bytes_to_human, human_to_bytes
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_CONTINUES,
    LABEL_IMAGE,
    LABEL_PREFIX,
    canonical_reference,
    familiar_reference,
)

Gpus = Union[str, int, tuple[str, ...]]
"""`all`, a number of GPUs, or the IDs of certain ones. 0 is none."""

_ALL_GPUS = -1
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
# What the engine itself calls a volume that nobody has named.
_ANONYMOUS_VOLUME = re.compile(r"[0-9a-f]{64}:.*")
_INHERITED_VOLUME = re.compile(r"(?P<name>[0-9a-f]{64}):[^:]+:nocopy(,ro)?")
SETTINGS_OPTIONS: dict[str, dict[str, Any]] = {
    "image": {"type": "str"},
    "command": {"type": "raw"},
    "init": {"type": "bool"},
    "env": {"type": "dict"},
    "volumes": {"type": "list", "elements": "str"},
    "network": {"type": "str"},
    "cpus": {"type": "float"},
    "memory": {"type": "str"},
    "shm_size": {"type": "str"},
    "gpus": {"type": "raw"},
    "labels": {"type": "dict"},
    "restart_policy": {"type": "str", "choices": ["no", "on-failure", "always", "unless-stopped"]},
}
"""The argument specification of what `Settings.from_options` reads."""

# What a mount is unless asked otherwise; Podman reports it with every mount.
_DEFAULT_MODES = {"", "nodev", "nosuid", "rbind", "rprivate"}
# The engine's update API takes 0 as "as it was", so a limit can be moved in place but not lifted.
_IN_PLACE = {"restart_policy", "cpus", "memory"}


@dataclass(frozen=True)
class Settings:
    """How a container runs. None is nothing said: not compared, and the default for a new container.

    `cpus` and `memory_bytes` are limits, 0 is none. `shm_size_bytes` is the size of `/dev/shm`; the engine's own is the
    default, and its own affair. `volumes` are normalised by `parse_volumes`. `env` and `labels` are
    those asked for; a container has more, from its image.
    """

    image: str | None = None
    command: tuple[str, ...] | None = None
    init: bool | None = None
    env: Mapping[str, str] | None = None
    volumes: tuple[str, ...] | None = None
    network: str | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    shm_size_bytes: int | None = None
    gpus: Gpus | None = None
    labels: Mapping[str, str] | None = None
    restart_policy: str | None = None

    @classmethod
    def from_options(cls, params: Mapping[str, Any]) -> Settings:
        """Read the options of those names, `memory` for the bytes; raises `HakuError` for one that means nothing."""
        return cls(
            image=params["image"],
            command=_given(parse_command, params["command"]),
            init=params["init"],
            env=_given(parse_env, params["env"]),
            volumes=_given(parse_volumes, params["volumes"]),
            network=_given(_plain_network, params["network"]),
            cpus=params["cpus"],
            memory_bytes=_given(parse_memory, params["memory"]),
            shm_size_bytes=_given(parse_shm_size, params["shm_size"]),
            gpus=_given(parse_gpus, params["gpus"]),
            labels=_given(parse_labels, params["labels"]),
            restart_policy=params["restart_policy"],
        )

    @classmethod
    def from_inspect(cls, answer: Mapping[str, Any]) -> Settings:
        """Read the answer of the engine's `GET /containers/{id}/json`; every field is said."""
        config, host = answer["Config"], answer["HostConfig"]
        labels = config.get("Labels") or {}
        return cls(
            image=labels.get(LABEL_IMAGE) or config.get("Image") or "",
            command=tuple(word for word in (config.get("Entrypoint") or []) if word) + tuple(config.get("Cmd") or ()),
            init=bool(host.get("Init")),
            env=dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry),
            volumes=_volumes_there(host),
            network=_plain_network(host.get("NetworkMode") or ""),
            cpus=_cpus_there(host),
            memory_bytes=host.get("Memory") or 0,
            shm_size_bytes=host.get("ShmSize") or 0,
            gpus=_gpus_there(host.get("DeviceRequests") or ()),
            labels=labels,
            restart_policy=(host.get("RestartPolicy") or {}).get("Name") or "no",
        )

    def completed(self) -> Settings:
        """The same with the defaults for all that is not said; the image has none."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(_DEFAULTS, **{name: value for name, value in values.items() if value is not None})

    @property
    def special_needs(self) -> tuple[bool, bool]:
        """Whether there are limits, and whether there are GPUs, which not every engine can give."""
        return bool(self.cpus or self.memory_bytes), bool(self.gpus)

    def as_creation(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """The body of `POST /containers/create`, defaults filled in; `labels` are set beside those asked for."""
        said = self.completed()
        return {
            "Image": said.image,
            "Cmd": list(said.command or ()),
            # One empty string takes the image's entry point away, where an empty list would keep it.
            "Entrypoint": [""],
            "Env": [f"{name}={value}" for name, value in (said.env or {}).items()],
            "Labels": {**(said.labels or {}), **labels},
            "HostConfig": {
                "Binds": list(said.volumes or ()),
                # What every engine takes for "the usual network", also one that has no bridge.
                "NetworkMode": "default" if said.network == "bridge" else said.network,
                "Init": said.init,
                "DeviceRequests": _device_requests(said.gpus or 0),
                **({} if said.shm_size_bytes is None else {"ShmSize": said.shm_size_bytes}),
                **said.as_update(),
            },
        }

    def as_update(self) -> dict[str, Any]:
        """The body of `POST /containers/{id}/update` for the limits and the restart policy that are said."""
        update: dict[str, Any] = {}
        if self.cpus is not None:
            update["NanoCpus"] = round(self.cpus * 1e9)
        if self.memory_bytes is not None:
            # Left out, the swap limit stays behind when the memory limit grows, and the engine refuses.
            # Twice the memory is the engine's own default.
            update.update(Memory=self.memory_bytes, MemorySwap=2 * self.memory_bytes)
        if self.restart_policy is not None:
            update["RestartPolicy"] = {"Name": self.restart_policy}
        return update

    def as_options(self) -> dict[str, Any]:
        """What is said, by the names of the options, as plain data."""
        return {
            name: value
            for field in fields(self)
            for name, value in [(_option(field.name), _plain(getattr(self, field.name)))]
            if value is not None
        }


_DEFAULTS = Settings(
    command=("sleep", "infinity"),
    init=True,
    env={},
    volumes=(),
    network="bridge",
    cpus=0.0,
    memory_bytes=0,
    gpus=0,
    labels={},
    restart_policy="unless-stopped",
)


@dataclass(frozen=True)
class Difference:
    """An option whose value is asked to be one and is another there. For dictionaries: the keys that differ."""

    option: str
    asked: Any
    there: Any

    @property
    def in_place(self) -> bool:
        """Whether the engine can change this in a container that exists."""
        return self.option in _IN_PLACE and bool(self.asked)

    def __str__(self) -> str:
        return f"{self.option} (asked: {self._words(self.asked)}; there: {self._words(self.there)})"

    def _words(self, value: Any) -> str:
        if self.option in ("memory", "shm_size"):
            return bytes_to_human(value) if value else "no limit"
        return "none" if value is None or value == [] else str(value)


def differences(asked: Settings, there: Settings) -> tuple[Difference, ...]:
    """Compare what is asked, where anything is, with a container's settings as `from_inspect` reads them."""
    found = []
    for field in fields(Settings):
        wanted, has = getattr(asked, field.name), getattr(there, field.name)
        if wanted is None or _same(field.name, wanted, has):
            continue
        if isinstance(wanted, Mapping):
            wanted = {key: value for key, value in wanted.items() if has.get(key) != value}
            has = {key: has.get(key) for key in wanted}
        found.append(Difference(_option(field.name), _plain(wanted), _plain(has)))
    return tuple(found)


def in_place(asked: Settings, found: Iterable[Difference]) -> Settings:
    """Of what is asked, that which differs and can be changed in a container that exists."""
    options = {each.option for each in found if each.in_place}
    return Settings(
        cpus=asked.cpus if "cpus" in options else None,
        memory_bytes=asked.memory_bytes if "memory" in options else None,
        restart_policy=asked.restart_policy if "restart_policy" in options else None,
    )


# Reading options


def parse_command(command: object) -> tuple[str, ...]:
    """Take a list of arguments, or one string that is split as a shell splits words (without any expansion)."""
    if isinstance(command, str):
        try:
            words: Sequence[object] = shlex.split(command)
        except ValueError as error:
            raise HakuError(f"command {command!r} cannot be split into arguments", cause=str(error)) from error
    elif isinstance(command, (list, tuple)):
        words = command
    else:
        raise HakuError(f"command {command!r} is neither a list of arguments nor a string")
    wrong = [word for word in words if isinstance(word, bool) or not isinstance(word, (str, int))]
    if wrong or not words:
        what = f"has the argument {wrong[0]!r}, which is not a string" if wrong else "is empty"
        raise HakuError(f"command {what}", remedy="Write the arguments as strings, in quotes where YAML needs them")
    return tuple(str(word) for word in words)


def parse_env(env: Mapping[str, object]) -> dict[str, str]:
    """Refuse values that YAML did not read as strings: `1.10` would become 1.1, and `on` become True."""
    for name, value in env.items():
        if not isinstance(value, str):
            raise HakuError(
                f"The value of {name} in env is {value!r}, a {type(value).__name__} and not a string",
                remedy="Put it in quotes, as the variable should have it",
            )
        if not name or "=" in name or "\0" in name + value:
            raise HakuError(f"{name!r} in env cannot be the name of an environment variable")
    return {name: str(value) for name, value in env.items()}


def parse_labels(labels: Mapping[str, object]) -> dict[str, str]:
    """Refuse values that are no strings, and the labels that this collection sets itself."""
    for label, value in labels.items():
        if label.startswith(LABEL_PREFIX):
            raise HakuError(f"The label {label} is not free", remedy=f"Choose one that begins with no {LABEL_PREFIX}")
        if not isinstance(value, str):
            raise HakuError(f"The value of {label} in labels is {value!r} and not a string", remedy="Put it in quotes")
    return {label: str(value) for label, value in labels.items()}


def parse_volumes(volumes: Sequence[str]) -> tuple[str, ...]:
    """Normalise `SOURCE:TARGET[:MODE]`: no `rw`, no slash at the end, modes and volumes in order."""
    return tuple(sorted({_volume(volume) for volume in volumes}))


def parse_memory(size: str) -> int:
    """Read a size such as `512M` or `2G` (powers of 1024) as bytes; 0 is no limit."""
    try:
        return int(human_to_bytes(size))
    except ValueError as error:
        raise HakuError(f"memory {size!r} is not a size", remedy="Write for example 512M or 2G") from error


def parse_shm_size(size: str) -> int:
    """Read a size such as `8G` as bytes; engines take 0 for their own default, so it is nothing to ask for."""
    try:
        size_bytes = int(human_to_bytes(size))
    except ValueError:
        size_bytes = 0
    if size_bytes <= 0:
        raise HakuError(f"shm_size {size!r} is not a size", remedy="Write for example 512M or 8G")
    return size_bytes


def parse_gpus(gpus: object) -> Gpus:
    """Take `all`, a number, or a list of GPU IDs (indices or UUIDs)."""
    if isinstance(gpus, (list, tuple)):
        return tuple(sorted(str(gpu) for gpu in gpus)) or 0
    if gpus == "all":
        return "all"
    if not isinstance(gpus, bool) and re.fullmatch(r"[0-9]{1,4}", str(gpus)):
        return int(str(gpus))
    raise HakuError(f"gpus {gpus!r} means nothing", remedy="Write all, a number of GPUs, or a list of their IDs")


def full_reference(image: str) -> str:
    """Write an image's name out in full, so that two names of one image compare equal; IDs stay as they are."""
    if image.startswith("sha256:"):
        return image
    name = image.partition("@")[0].rpartition("/")[2]
    tagged = image if ":" in name or "@" in image else f"{image}:latest"
    return canonical_reference(familiar_reference(tagged))


def _given(parse: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else parse(value)


def _volume(volume: str) -> str:
    source, _colon, rest = volume.partition(":")
    target, _colon, mode = rest.partition(":")
    if not (source.startswith("/") or _VOLUME_NAME.fullmatch(source)) or not target.startswith("/") or ":" in mode:
        raise HakuError(
            f"{volume!r} in volumes is not SOURCE:TARGET or SOURCE:TARGET:MODE",
            remedy="The source is an absolute path or a volume's name, the target an absolute path, the mode, say, ro",
        )
    return _normal_volume(volume)


def _normal_volume(volume: str) -> str:
    source, target, mode = [*volume.split(":", 2), "", ""][:3]
    paths = [path.rstrip("/") or "/" for path in (source, target)]
    modes = sorted({word for word in mode.split(",") if word not in ("", "rw")})
    return ":".join([*paths, ",".join(modes)] if modes else paths)


def inherited_volumes(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The anonymous volumes that a container has from the one it continues (see `rebase`), by their names.

    To the engine they are named ones, which it keeps when their container is removed.
    """
    if not (answer["Config"].get("Labels") or {}).get(LABEL_CONTINUES):
        return ()
    host = answer["HostConfig"]
    mounts = [
        f"{mount.get('Source')}:{mount['Target']}:nocopy"
        for mount in host.get("Mounts") or ()
        if mount.get("Type") == "volume" and (mount.get("VolumeOptions") or {}).get("NoCopy")
    ]
    return tuple(
        match["name"]
        for volume in [*(host.get("Binds") or ()), *mounts]
        if (match := _INHERITED_VOLUME.fullmatch(volume))
    )


def _plain_network(network: str) -> str:
    return "bridge" if network in ("", "default") else network


# Reading the engine's answers


def _volumes_there(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Mounts asked for as `--volume` and as `--mount` are told apart by the engine, not by us."""
    mounts = [
        f"{mount['Source']}:{mount['Target']}" + (":ro" if mount.get("ReadOnly") else "")
        for mount in host.get("Mounts") or ()
        if mount.get("Type") in ("bind", "volume") and mount.get("Source")
    ]
    volumes = [volume for volume in [*(host.get("Binds") or ()), *mounts] if not _ANONYMOUS_VOLUME.match(volume)]
    return tuple(sorted({_normal_volume(volume) for volume in volumes}))


def _cpus_there(host: Mapping[str, Any]) -> float:
    """`--cpus`, or `--cpu-quota` as the share of its period that means the same."""
    nano, quota = host.get("NanoCpus") or 0, host.get("CpuQuota") or 0
    return float(nano) / 1e9 if nano else max(quota, 0) / (host.get("CpuPeriod") or 100_000)


def _gpus_there(requests: Sequence[Mapping[str, Any]]) -> Gpus:
    for request in requests:
        if any("gpu" in capabilities for capabilities in request.get("Capabilities") or ()):
            if request.get("DeviceIDs"):
                return tuple(sorted(request["DeviceIDs"]))
            count: int = request.get("Count") or 0
            return "all" if count == _ALL_GPUS else count
    return 0


def _device_requests(gpus: Gpus) -> list[dict[str, Any]] | None:
    """As `docker run --gpus` asks for them."""
    if not gpus:
        return None
    if isinstance(gpus, tuple):
        return [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
    return [{"Count": _ALL_GPUS if gpus == "all" else gpus, "Capabilities": [["gpu"]]}]


# Comparing


def _same(field: str, asked: Any, there: Any) -> bool:
    if field == "image":
        # Podman names what has been made on the machine itself so, and finds it by the short name.
        return full_reference(asked) in (full_reference(there), full_reference(there.removeprefix("localhost/")))
    if isinstance(asked, Mapping):
        return all(there.get(key) == value for key, value in asked.items())
    if field == "volumes":
        return {_without_defaults(volume) for volume in asked} == {_without_defaults(volume) for volume in there}
    if field == "cpus":
        return bool(round(asked * 1e9) == round(there * 1e9))
    return bool(asked == there)


def _without_defaults(volume: str) -> str:
    source, target, mode = [*volume.split(":", 2), ""][:3]
    return ":".join([source, target, *sorted(set(mode.split(",")) - _DEFAULT_MODES)])


def _option(field: str) -> str:
    return field.removesuffix("_bytes")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
