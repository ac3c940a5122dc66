# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a VPS: images on its own machine, by which it can go back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_steps import Step
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import ListedImage
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_VPS
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time
from ansible_collections.haku.river.plugins.module_utils.vps_steps import container_name

_TAG = re.compile(r"(?P<repository>.+):vps-(?P<vps>[a-z0-9-]+)-(?P<timestamp>0|[1-9][0-9]{0,11})")
_COMMENT = "haku.river: a VPS"


@dataclass(frozen=True)
class VpsSnapshot:
    """A snapshot; `timestamp` is when it was taken, in Unix seconds, `image` its tag on this machine.

    `image_id` is None for one that is yet to be taken.
    """

    vps: str
    timestamp: int
    image: str
    image_id: str | None = None

    @property
    def environment(self) -> str:
        """The environment of the VPS, by the image's name."""
        return self.image.rpartition(":")[0].rpartition("/")[2]

    def as_facts(self) -> dict[str, Any]:
        """The snapshot as modules report it."""
        return {"timestamp": self.timestamp, "taken": iso_time(self.timestamp), "image": self.image}


def all_snapshots(images: Iterable[ListedImage]) -> dict[str, tuple[VpsSnapshot, ...]]:
    """The snapshots among the images of an engine by VPS, newest first.

    They have the labels of the machine that they were taken of. A tag like theirs is one that anybody may give.
    """
    matches = ((_TAG.fullmatch(tag), image) for image in images for tag in image.tags)
    found = [
        VpsSnapshot(match["vps"], int(match["timestamp"]), match[0], image.id)
        for match, image in matches
        if match and image.labels.get(LABEL_VPS) == match["vps"]
    ]
    newest_first = sorted(found, key=lambda snapshot: snapshot.timestamp, reverse=True)
    return {vps: tuple(each for each in newest_first if each.vps == vps) for vps in {each.vps for each in found}}


def next_snapshot(vps: str, repository: str, there: tuple[VpsSnapshot, ...], now: int) -> VpsSnapshot:
    """The one to take now; two within a second differ all the same."""
    timestamp = max(now, there[0].timestamp + 1) if there else now
    return VpsSnapshot(vps, timestamp, f"{repository}:vps-{vps}-{timestamp}")


def choose_snapshot(vps: str, there: tuple[VpsSnapshot, ...], timestamp: int | None) -> VpsSnapshot:
    """The newest one, or the one of that time; `HakuError` if it is not there."""
    if not there:
        raise HakuError(f"VPS {vps} has no snapshot", remedy="Take one with state: snapshot")
    chosen = there[0] if timestamp is None else next((it for it in there if it.timestamp == timestamp), None)
    if chosen is None:
        times = ", ".join(str(each.timestamp) for each in there)
        raise HakuError(f"VPS {vps} has no snapshot {timestamp}", remedy=f"Choose one of: {times}")
    return chosen


def superfluous(there: tuple[VpsSnapshot, ...], keep: int | None, used: str | None = None) -> tuple[VpsSnapshot, ...]:
    """Those beyond the newest `keep`, all of which stay if that is None, but for one whose image ID is `used`."""
    return () if keep is None else tuple(each for each in there[keep:] if used is None or each.image_id != used)


@dataclass(frozen=True)
class Take(Step):
    """Commit a VPS, held still for that moment if it runs."""

    snapshot: VpsSnapshot

    @property
    def words(self) -> str:
        return f"take a snapshot of VPS {self.snapshot.vps}"

    def run(self, engine: Engine) -> None:
        engine.commit(container_name(self.snapshot.vps), self.snapshot.image, pause=True, comment=_COMMENT)


@dataclass(frozen=True)
class Forget(Step):
    """Remove a snapshot."""

    snapshot: VpsSnapshot

    @property
    def words(self) -> str:
        return f"remove snapshot {self.snapshot.timestamp} of VPS {self.snapshot.vps}"

    def run(self, engine: Engine) -> None:
        engine.remove_image(self.snapshot.image)
