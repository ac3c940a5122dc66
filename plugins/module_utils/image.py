# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes an image the same image on every engine: its diff IDs and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.names import LABEL_PREFIX
from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp

# The fields that decide how a container of the image runs. Engines add others, such as the host name of the
# container that was committed, and leave out empty ones, each in its own way.
# https://github.com/opencontainers/image-spec/blob/main/config.md and Docker's Healthcheck, Shell and OnBuild.
_RUN_FIELDS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)


def run_configuration(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Cut a `config` section down to what an image means: run fields that are not empty."""
    config = config or {}
    return {field: config[field] for field in _RUN_FIELDS if config.get(field)}


def portable_configuration(committed: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The run configuration that a packaged image has, made from those of the commit and of the container's image.

    A commit also takes along what only its container meant: the command that kept it running, which gives way to the
    image's own, and this collection's labels, which would make every container of that image a managed one.
    """
    portable = {**committed, "Entrypoint": base.get("Entrypoint"), "Cmd": base.get("Cmd")}
    labels = committed.get("Labels", {}).items()
    portable["Labels"] = {label: value for label, value in labels if not label.startswith(LABEL_PREFIX)}
    return run_configuration(portable)


@dataclass(frozen=True)
class Identity:
    """Two images with equal identities run the same; the image ID differs by image store, this does not."""

    diff_ids: tuple[str, ...]
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class Image:
    """An image that an engine has. `timestamp` is its `Created` in Unix seconds, None where it has none.

    `untold` are the fields of a run configuration that the engine never tells.
    """

    id: str
    identity: Identity
    timestamp: int | None
    tags: tuple[str, ...]
    size_bytes: int
    untold: tuple[str, ...] = ()

    def is_one_of(self, wanted: Identity) -> bool:
        """Whether it is that very image, as far as its engine tells."""
        told = {field: value for field, value in wanted.configuration.items() if field not in self.untold}
        return self.identity == Identity(wanted.diff_ids, told)

    @classmethod
    def from_inspect(cls, answer: Mapping[str, Any], untold: tuple[str, ...] = ()) -> Image:
        """Read the answer of the engine's `GET /images/{name}/json`."""
        root = answer.get("RootFS") or {}
        return cls(
            id=answer["Id"],
            identity=Identity(tuple(root.get("Layers") or ()), run_configuration(answer.get("Config"))),
            timestamp=unix_timestamp(answer.get("Created")),
            tags=tuple(answer.get("RepoTags") or ()),
            size_bytes=answer.get("Size") or 0,
            untold=untold,
        )


@dataclass(frozen=True)
class ListedImage:
    """As much of an image as the engine's list of images tells."""

    """As much of an image as the engine's list of images tells."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
