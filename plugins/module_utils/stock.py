# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine has of an environment: the image that people use, and former versions under tags of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ansible_collections.haku.river.plugins.module_utils.image import Image, ListedImage

UNFINISHED = f"sync-{os.geteuid()}-"
"""What the tag of an image begins with while this user's synchronisation works on it; others may do so beside it."""

_VERSION_TAG = re.compile(r"0|[1-9][0-9]{0,11}")


@dataclass(frozen=True)
class Stock:
    """What the machine has of an environment.

    `current` is the image that people use, `versions` the IDs of those with a version's tag, by timestamp, `used` the
    IDs that containers, running or not, were made from, and `stale` what a killed synchronisation of this user left
    behind. `published` is the newest version that the source has: an image of a newer one is a packager's, at work
    here. `images` are the IDs of all of the environment's images, whatever their tags.
    """

    current: Image | None = None
    versions: Mapping[int, str] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    stale: tuple[str, ...] = ()
    published: int | None = None
    images: tuple[str, ...] = ()

    def kept(self, besides: str | None) -> dict[int, str]:
        """The IDs of the versions that stay beside an image, which is or becomes current, by timestamp."""
        return {
            timestamp: image_id
            for timestamp, image_id in self.versions.items()
            if image_id != besides and (self.published is None or timestamp <= self.published)
        }


def is_version_tag(tag: str) -> bool:
    """Whether an image with this tag would be taken for a former version."""
    return _VERSION_TAG.fullmatch(tag) is not None


def tags_in(repository: str, listed: Iterable[ListedImage]) -> dict[str, str]:
    """The images of a repository: their IDs by tag."""
    named = ((*reference.rpartition(":"), image.id) for image in listed for reference in image.tags)
    return {tag: image_id for there, _colon, tag, image_id in named if there == repository}


def by_version(tags: Mapping[str, str]) -> dict[int, str]:
    """Of images by tag, those with a version's tag, by timestamp."""
    return {int(tag): image_id for tag, image_id in tags.items() if is_version_tag(tag)}
