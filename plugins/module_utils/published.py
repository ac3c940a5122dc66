# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is published: versions of environments, and a source of them, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ansible_collections.haku.river.plugins.module_utils.errors import Vanished
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time

if TYPE_CHECKING:
    from ansible_collections.haku.river.plugins.module_utils.archive import Archive

# Each try begins with the newest list of versions; only a packager that prunes faster than we read needs a third.
_TRIES = 3


class Published(Protocol):
    """A version that can be had."""

    @property
    def timestamp(self) -> int:
        """The version, in Unix seconds."""

    @property
    def location(self) -> str:
        """What people are told of where the tarball is."""

    @property
    def size_bytes(self) -> int | None:
        """The tarball's size, None where the source does not tell; `FileNotFoundError` when it was pruned meanwhile."""


V = TypeVar("V", bound=Published)
T = TypeVar("T")


class Source(Protocol[V]):
    """Where tarballs come from: a shared directory, a web server."""

    @property
    def location(self) -> str:
        """What people are told of where the tarballs are."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know about reading from there."""

    @property
    def identity(self) -> str | None:
        """What tells the directory from another one; None where it was not marked."""

    def environments(self) -> Mapping[str, Sequence[V]]:
        """Every environment that has a version, by name, each newest first."""

    def versions(self, environment: str) -> Sequence[V]:
        """All versions of one environment, newest first."""

    def find(self, environment: str, timestamp: int) -> V | None:
        """A version that is not in the listing, which may be older than what there is; None if it is not there."""

    def open(self, version: V) -> AbstractContextManager[Archive]:
        """Open a version's tarball and read its index; `Vanished` if it is not there any more."""


def versions_of(source: Source[V], environment: str | None) -> Mapping[str, Sequence[V]]:
    """The environments that have a version, or the one that is asked for, each newest first."""
    if environment is None:
        return source.environments()
    versions = source.versions(environment)
    return {environment: versions} if versions else {}


def described_versions(source: Source[V], environment: str | None = None) -> dict[str, dict[str, Any]]:
    """The environments, or the one that is asked for, as HakuRiver's `list-tars` describes them."""
    described = {}
    for name, versions in versions_of(source, environment).items():
        there = [_described(version, size_bytes) for version, size_bytes in sized(versions)]
        if there:
            latest = {"latest_timestamp": there[0]["timestamp"], "latest_tarball": there[0]["tarball"]}
            described[name] = {**latest, "all_versions": there}
    return described


def sized(versions: Iterable[V]) -> Iterator[tuple[V, int | None]]:
    """Each version with its tarball's size, without those that were pruned since they were listed."""
    for version in versions:
        with suppress(FileNotFoundError):
            yield version, version.size_bytes


def although_pruned(work: Callable[[], T]) -> T:
    """Do the work again, from the listing on, when the version that was chosen is pruned meanwhile."""
    for _try in range(_TRIES - 1):
        try:
            return work()
        except Vanished:
            continue
    return work()


def _described(version: Published, size_bytes: int | None) -> dict[str, Any]:
    return {
        "timestamp": version.timestamp,
        "tarball": version.location,
        "size": size_bytes,
        "created": iso_time(version.timestamp),
    }
