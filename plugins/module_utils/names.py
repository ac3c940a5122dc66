# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that go onto disks, into engines and back: environments, tarballs, image references, labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError

LABEL_PREFIX = "haku.river."
LABEL_MANAGED = LABEL_PREFIX + "managed"
LABEL_ENVIRONMENT = LABEL_PREFIX + "env"
LABEL_IMAGE = LABEL_PREFIX + "image"
LABEL_CONTINUES = LABEL_PREFIX + "continues"
LABEL_SMOKE_TEST = LABEL_PREFIX + "smoke-test"
LABEL_TASK = LABEL_PREFIX + "task"
LABEL_OUTPUT = LABEL_PREFIX + "output"
LABEL_VPS = LABEL_PREFIX + "vps"
# Not `LABEL_ENVIRONMENT`, which is what makes an env container.
LABEL_VPS_ENVIRONMENT = LABEL_PREFIX + "vps.env"
LABEL_VPS_VERSION = LABEL_PREFIX + "vps.version"

# A path component of a repository name:
# https://github.com/distribution/reference/blob/main/regexp.go
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_ENVIRONMENT = re.compile(_COMPONENT)
_PREFIX = re.compile(rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# A host name of one part (RFC 1123, 2.1).
_VPS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TARBALL = re.compile(rf"(?P<environment>{_COMPONENT})-(?P<timestamp>0|[1-9][0-9]{{0,11}})\.tar")
# A file name ends at 255 bytes, and a partial tarball adds a timestamp and a unique part to the name.
_ENVIRONMENT_MAX = 200

RULE = (
    "a name is made of lower-case letters and digits, parted by single dots, one or two underscores, or hyphens, "
    f"and has at most {_ENVIRONMENT_MAX} characters"
)

IMAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "image_prefix": {"type": "str", "default": "hakuriver"},
    "image_tag": {"type": "str", "default": "base"},
}
"""The argument specification of the doc fragment `haku.river.catalogue.image`."""


class TarballName(NamedTuple):
    """What the file name of a tarball says."""

    environment: str
    timestamp: int

    def __str__(self) -> str:
        return f"{self.environment}-{self.timestamp}.tar"


def check_environment_name(name: str) -> str:
    """Return `name` if it can be an environment's, else raise `HakuError` with the rule."""
    if len(name) <= _ENVIRONMENT_MAX and _ENVIRONMENT.fullmatch(name):
        return name
    raise HakuError(f"{name!r} cannot be the name of an environment: {RULE}", remedy="Choose another name")


def check_vps_name(name: str) -> str:
    """Return `name` if it can be a VPS's, and so its host name, else raise `HakuError` with the rule."""
    if _VPS.fullmatch(name):
        return name
    rule = "it is made of lower-case letters, digits and hyphens inside it, and has at most 63 characters"
    raise HakuError(f"{name!r} cannot be the name of a VPS: {rule}", remedy="Choose another name")


def parse_tarball_name(file_name: str) -> TarballName | None:
    """Read `<env>-<timestamp>.tar`; None if the file is named otherwise."""
    match = _TARBALL.fullmatch(file_name)
    return TarballName(match["environment"], int(match["timestamp"])) if match else None


def check_image_names(prefix: str, tag: str) -> None:
    """Raise `HakuError` if the engine could not take them."""
    if not _PREFIX.fullmatch(prefix):
        raise HakuError(f"image_prefix {prefix!r} cannot begin an image's name", remedy="Use for example 'hakuriver'")
    if not _TAG.fullmatch(tag):
        raise HakuError(f"image_tag {tag!r} cannot be a tag", remedy="Use letters, digits, '_', '.' and '-'")


def image_reference(prefix: str, environment: str, tag: str) -> str:
    """`<prefix>/<env>:<tag>`, or `HakuError` if the engine could not take it."""
    check_image_names(prefix, tag)
    return f"{prefix}/{check_environment_name(environment)}:{tag}"


def environment_of(prefix: str, reference: str) -> str | None:
    """The environment that `<prefix>/<env>:<tag>` belongs to; None if the image is named otherwise."""
    start = f"{prefix}/"
    name = reference.rpartition(":")[0][len(start) :] if reference.startswith(start) else ""
    return name if _ENVIRONMENT.fullmatch(name) else None


def is_env_container(name: str, labels: Mapping[str, str]) -> bool:
    """Whether the labels make the container of that name the env container of the environment with that name."""
    return labels.get(LABEL_MANAGED) == "true" and labels.get(LABEL_ENVIRONMENT) == name


def canonical_reference(reference: str) -> str:
    """Write a reference out in full (`docker.io/library/…`), as the containerd image store names it."""
    first, slash, rest = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    if first == "localhost" or "." in first or ":" in first:
        return f"{first}/{rest}"
    return f"docker.io/{reference}"


def familiar_reference(reference: str) -> str:
    """Write a reference as people do: without the registry `docker.io`, as which nothing is meant."""
    return re.sub(r"^(index\.)?docker\.io/(library/)?", "", reference)


def other_references(repository: str, tag: str) -> list[str]:
    """Patterns that match all references of a repository but the one with this tag.

    Engines take them as https://pkg.go.dev/path#Match says, which has no word for "not": so these are all shorter tags,
    all that differ in one character first, and all longer ones.
    """
    beginnings = [tag[:length] for length in range(len(tag))]
    shorter = beginnings[1:]
    different = [rf"{beginning}[^\{character}]*" for beginning, character in zip(beginnings, tag)]
    return [f"{repository}:{pattern}" for pattern in (*shorter, *different, f"{tag}?*")]
