# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared directory as a catalogue of versions: listing, publishing and removing tarballs."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ansible_collections.haku.river.plugins.module_utils.errors import CatalogueError, HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive
from ansible_collections.haku.river.plugins.module_utils.names import TarballName, parse_tarball_name
from ansible_collections.haku.river.plugins.module_utils.published import sized

if TYPE_CHECKING:
    from ansible_collections.haku.river.plugins.module_utils.archive import Archive

CATALOGUE_OPTIONS: dict[str, dict[str, Any]] = {
    "shared_dir": {"type": "path", "required": True},
    "container_dir": {"type": "str", "default": "hakuriver-containers"},
}
"""The argument specification of the doc fragment `haku.river.catalogue`."""


INDEX_NAME = "catalogue.json"
"""What there is, for machines that read the directory through a web server."""

MARKER_NAME = ".haku-river"
"""Has the identity by which the role haku.river.host marks the directory."""

_MARKER_BYTES = 100
_PARTIAL_INDEX = "._index."
_INDEX_LOCK_SECONDS = 60


@dataclass(frozen=True)
class Version:
    """A published tarball of an environment; its timestamp, in Unix seconds, is the version."""

    environment: str
    timestamp: int
    path: Path

    @property
    def location(self) -> str:
        """What people are told of where the tarball is."""
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        """The tarball's size on disk; raises `OSError` when it has been pruned meanwhile."""
        return self.path.stat().st_size


class Catalogue:
    """The tarballs in `<shared_dir>/<container_dir>`."""

    warnings: tuple[str, ...] = ()
    """What people should know about reading it: nothing."""

    def __init__(self, shared_dir: str, container_dir: str) -> None:
        relative = Path(container_dir)
        if relative.is_absolute() or ".." in relative.parts:
            remedy = "Name a directory below shared_dir"
            raise HakuError(f"container_dir {container_dir!r} leads out of shared_dir", remedy=remedy)
        self.shared_dir = Path(shared_dir)
        self.path = self.shared_dir / relative

    @property
    def location(self) -> str:
        """What people are told of where the tarballs are."""
        return str(self.path)

    @property
    def identity(self) -> str | None:
        """What tells the directory from another one; None where it was not marked, or the marker cannot be read."""
        try:
            with (self.path / MARKER_NAME).open("rb") as file:
                return file.read(_MARKER_BYTES).decode("ascii", "backslashreplace").strip() or None
        except OSError:
            return None

    # What there is

    def environments(self) -> dict[str, tuple[Version, ...]]:
        """Every environment that has a version, by name, each newest first. Reads names only."""
        found: dict[str, list[TarballName]] = {}
        for file_name in self._file_names():
            name = parse_tarball_name(file_name)
            if name:
                found.setdefault(name.environment, []).append(name)
        return {environment: self._newest_first(names) for environment, names in sorted(found.items())}

    def versions(self, environment: str) -> tuple[Version, ...]:
        """All versions of one environment, newest first. Costs next to nothing for the files of others."""
        prefix = f"{environment}-"
        names = filter(None, map(parse_tarball_name, self._file_names(prefix)))
        return self._newest_first(name for name in names if name.environment == environment)

    def find(self, environment: str, timestamp: int) -> Version | None:
        """A version by its path: what an NFS client remembers of a directory may be older than the tarball."""
        version = self.version(TarballName(environment, timestamp))
        return version if version.path.is_file() else None

    def open(self, version: Version) -> AbstractContextManager[Archive]:
        """Open a version's tarball; see `open_archive`."""
        # Most runs of a module open none.
        from ansible_collections.haku.river.plugins.module_utils.archive import open_archive

        return open_archive(version.path)

    def version(self, name: TarballName) -> Version:
        """The version that a tarball of this name is, whether it is there or not."""
        return Version(name.environment, name.timestamp, self.path / str(name))

    def check_writable(self) -> None:
        """Raise `CatalogueError` unless files can be made in the directory."""
        self._file_names()
        if not os.access(self.path, os.W_OK | os.X_OK):
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
            raise CatalogueError(
                f"Cannot write into {self.path}",
                where=str(self.path),
                cause="Read-only file system" if read_only else "Permission denied",
                remedy="Run on the machine, and as the user, that may write there",
            )

    # Changing it

    def lock(self, environment: str, timeout_seconds: float) -> AbstractContextManager[object]:
        """Keep every other packager and pruner of this environment away, on whichever machine."""
        return exclusive(self.path / f".{environment}.lock", timeout_seconds, f"packaging {environment}")

    @contextmanager
    def partial(self, name: TarballName) -> Iterator[BinaryIO]:
        """A new file, open for reading and writing, that no Runner looks for.

        It is gone at the end of the block, unless `publish` gave it its name.
        """
        path = self.path / f".{name}.{secrets.token_hex(4)}.part"
        with self.saying(f"Cannot write {path}"):
            file = path.open("x+b")
        try:
            with file:
                yield file
        finally:
            with self.saying(f"Cannot remove {path}"):
                path.unlink(missing_ok=True)

    def publish(self, file: BinaryIO, name: TarballName) -> None:
        """Give a finished partial file its name. After this, and not before, Runners see it, whatever fails."""
        path = self.path / str(name)
        with self.saying(f"Cannot publish {path}"):
            file.flush()
            self._let_read(file.fileno())
            os.fsync(file.fileno())
            Path(file.name).rename(path)
            self._sync_directory()

    def remove(self, version: Version) -> None:
        """Remove a version; it may be gone already."""
        with self.saying(f"Cannot remove {version.path}"):
            version.path.unlink(missing_ok=True)
            self._sync_directory()

    def write_index(self) -> None:
        """Write down what there is, for web servers. Whoever comes last has seen what everybody before it published."""
        # An environment's name cannot begin so.
        with exclusive(self.path / "._index.lock", _INDEX_LOCK_SECONDS, f"listing {self.path}"):
            described = {
                name: [{"timestamp": version.timestamp, "size": size} for version, size in sized(versions)]
                for name, versions in self.environments().items()
            }
            path = self.path / f"{_PARTIAL_INDEX}{secrets.token_hex(4)}.part"
            with self.saying(f"Cannot write {self.path / INDEX_NAME}"):
                for stale in self.path.glob(f"{_PARTIAL_INDEX}*.part"):
                    stale.unlink(missing_ok=True)
                try:
                    with path.open("x") as file:
                        json.dump({"format": 1, "environments": described}, file, separators=(",", ":"))
                        file.flush()
                        self._let_read(file.fileno())
                        os.fsync(file.fileno())
                    path.rename(self.path / INDEX_NAME)
                    self._sync_directory()
                finally:
                    path.unlink(missing_ok=True)

    def refreshed_index(self) -> tuple[str, ...]:
        """Have an index of what there is; a failure is no more than the warning that is returned."""
        try:
            # Also if nothing was done: whoever did it may have died before the index was written, or be HakuRiver.
            environments = self.environments()
            if self._indexed() != {name: [it.timestamp for it in versions] for name, versions in environments.items()}:
                self.write_index()
        except HakuError as error:
            return (f"Machines that read {self.path} through a web server may not see what there is now. {error}",)
        return ()

    def _indexed(self) -> dict[str, list[int]] | None:
        """The timestamps that the index has, None if it cannot be read as one."""
        try:
            listed = json.loads((self.path / INDEX_NAME).read_bytes())["environments"].items()
            return {name: [version["timestamp"] for version in versions] for name, versions in listed}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def remove_stale_partials(self, environment: str) -> None:
        """Clean up after packagers that died. Only who holds the environment's lock may call this."""
        stale = re.compile(rf"\.{re.escape(environment)}-\d+\.tar\.[0-9a-f]+\.part")
        for file_name in filter(stale.fullmatch, self._file_names()):
            with self.saying(f"Cannot remove {self.path / file_name}"):
                (self.path / file_name).unlink(missing_ok=True)

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """Turn the kernel's refusals inside the block into a `CatalogueError`."""
        try:
            yield
        except OSError as error:
            remedy = "Check that the shared directory is mounted and writable and has room, then try again"
            raise CatalogueError(what, where=str(self.path), cause=error.strerror, remedy=remedy) from error

    def _newest_first(self, names: Iterable[TarballName]) -> tuple[Version, ...]:
        ordered = sorted(names, key=lambda name: name.timestamp, reverse=True)
        return tuple(self.version(name) for name in ordered)

    def _file_names(self, prefix: str = "") -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return [entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_file()]
        except FileNotFoundError as error:
            missing = self.path if self.shared_dir.is_dir() else self.shared_dir
            raise CatalogueError(
                f"There is no directory {missing}",
                where=str(missing),
                remedy=f"Mount the shared directory; if it is new, make the tarballs' directory: mkdir -p {self.path}",
            ) from error
        except OSError as error:
            remedy = "Check the mount and who may read it"
            raise CatalogueError(
                f"Cannot list {self.path}", where=str(self.path), cause=error.strerror, remedy=remedy
            ) from error

    def _let_read(self, descriptor: int) -> None:
        """Let those read a file who may read the directory, whatever the umask of this process is."""
        mode = os.fstat(descriptor).st_mode | self.path.stat().st_mode & 0o444
        with suppress(OSError):  # file systems without modes may refuse
            os.fchmod(descriptor, mode & 0o777)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
