# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packaging is asked for, and what follows from that and from what there is."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass, replace

from ansible_collections.haku.river.plugins.module_utils.catalogue import Version
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity
from ansible_collections.haku.river.plugins.module_utils.names import TarballName
from ansible_collections.haku.river.plugins.module_utils.snapshot import Snapshot

_LEAST_LAYERS = 2
# The diff ID of a layer without any files, with which Podman's commit says that there is nothing new.
_NOTHING = f"sha256:{hashlib.sha256(bytes(2 * tarfile.BLOCKSIZE)).hexdigest()}"


@dataclass(frozen=True)
class Packaging:
    """What the user wants packaged, and how. `reference` is the tag that the tarball gives its image when loaded."""

    environment: str
    reference: str
    keep: int = 1
    stop: bool = True
    stop_timeout_seconds: int = 10
    lock_timeout_seconds: int = 600
    prune_grace_seconds: int = 0
    rebase: bool = True
    max_layers: int = 32
    adopt: bool = False

    def __post_init__(self) -> None:
        """Raise `HakuError` for a wish that would leave no version."""
        if self.keep < 1:
            remedy = "Keep at least one; state: absent removes versions"
            raise HakuError(f"keep: {self.keep} would leave no version of {self.environment}", remedy=remedy)
        if self.max_layers < _LEAST_LAYERS:
            remedy = f"Set it to {_LEAST_LAYERS} or more: what was made one, and what changed since"
            raise HakuError(f"max_layers: {self.max_layers} is not possible", remedy=remedy)

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return self.reference.rpartition(":")[0]


@dataclass(frozen=True)
class Plan:
    """What is to be done: publish a version or none, continue the container on it or not, and remove some versions."""

    publish: TarballName | None = None
    rebase: bool = False
    remove: tuple[Version, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.publish is not None or bool(self.remove)


def plan_package(
    wish: Packaging,
    taken: Snapshot,
    newest: Identity | None,
    versions: tuple[Version, ...],
    now: int,
    can_rebase: bool,
) -> Plan:
    """Decide from what there is. `newest` is the identity of the first of `versions`, `now` is in Unix seconds.

    Raises `HakuError` if the snapshot is not newer than all of them.
    """
    if newest is not None and taken.identity in (newest, replace(newest, diff_ids=(*newest.diff_ids, _NOTHING))):
        publish, published = None, 0
    else:
        publish, published = TarballName(wish.environment, taken.timestamp), 1
    if publish and versions and publish.timestamp <= versions[0].timestamp:
        raise HakuError(
            f"The engine's clock went backwards while {wish.environment} was packaged",
            cause=f"the image is from {publish.timestamp}, the newest version from {versions[0].timestamp}",
            remedy="Set the clocks right (chrony, ntpd), then package again",
        )
    superseded = versions[max(wish.keep - published, 0) :]
    remove = tuple(version for version in superseded if now - version.timestamp >= wish.prune_grace_seconds)
    return Plan(publish, bool(publish) and wish.rebase and can_rebase, remove)


def plan_removal(versions: tuple[Version, ...], timestamp: int | None) -> Plan:
    """Remove one version, or all of them; one that is not there needs nothing."""
    return Plan(remove=tuple(version for version in versions if timestamp in (None, version.timestamp)))
