# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking a snapshot of an env container: away for the commit only, and back whatever happens."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ansible_collections.haku.river.plugins.module_utils.container import Container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.host_image import remove_unused_images
from ansible_collections.haku.river.plugins.module_utils.image import Identity, portable_configuration
from ansible_collections.haku.river.plugins.module_utils.rebase import recover
from ansible_collections.haku.river.plugins.module_utils.storage import (
    PiledImage,
    StorageError,
    StoredImage,
    stored_image,
)

_TAG_PREFIX = "package-"
COMMENT = "haku.river"
"""What `docker history` says of a layer that a package has made."""


@dataclass(frozen=True)
class Snapshot:
    """What a container was at one moment: the identity and time of the image that is made of it.

    `stored` is where its layers can be read, None if only the engine itself can (and then it has the image
    `reference`), with `obstacle` saying why.
    """

    reference: str
    identity: Identity
    timestamp: int
    stored: StoredImage | None = None
    obstacle: StorageError | None = None


@dataclass
class Absence:
    """How long a container was away, once it is back."""

    seconds: float = 0.0


def temporary_reference(repository: str) -> str:
    """A new name for a snapshot, which `remove_stale_snapshots` knows."""
    return f"{repository}:{_TAG_PREFIX}{secrets.token_hex(4)}"


def take(engine: Engine, container: Container, reference: str, pause: bool) -> Snapshot:
    """Have the engine commit a container as the image `reference`; `pause` holds a running one still meanwhile."""
    engine.commit(container.id, reference, pause=pause, comment=COMMENT)
    image = engine.find_image(reference)
    if image is None or image.timestamp is None:
        raise HakuError(f"The engine committed container {container.id} but has no image with a time of creation")
    base = engine.find_image(container.image_id)
    below = base.identity.configuration if base else {}
    committed = image.identity.configuration
    if engine.is_podman:
        # Its commit says also what only the container's process meant.
        committed = engine.run_configuration(engine.find_container(container.id) or {"Config": {}}, below)
    configuration = portable_configuration(committed, below)
    snapshot = Snapshot(reference, Identity(image.identity.diff_ids, configuration), image.timestamp)
    try:
        stored = stored_image(engine.description, image.id)
        if engine.is_podman:
            stored = _with_comment(stored, stored_image(engine.description, container.image_id))
    except StorageError as error:
        return replace(snapshot, obstacle=error)
    return replace(snapshot, stored=stored)


def _with_comment(stored: StoredImage, base: StoredImage) -> StoredImage:
    """A commit with the comment that was asked for, by which compaction tells its layers from those of the base.

    Podman's commit writes into the comment what the image stands on, and leaves all history out if that has none.
    """
    document = json.loads(stored.config)
    own = {**(document.get("history") or [{}])[-1], "created": document["created"], "comment": COMMENT}
    document["history"] = [*(json.loads(base.config).get("history") or ()), own]
    return PiledImage(stored, json.dumps(document).encode(), layers=(), missing=None)


@contextmanager
def away(engine: Engine, container: Container, name: str, stop_timeout_seconds: int) -> Iterator[Absence]:
    """Stop a container for the block. In the end whoever has its name then runs, even if this process was killed."""
    absence = Absence()
    gone_at = time.monotonic()
    with _although_killed(lambda: _restore(engine.reopen(), container, name)):
        try:
            engine.stop(container.id, stop_timeout_seconds)
            yield absence
        finally:
            engine.start(name)
    absence.seconds = time.monotonic() - gone_at


def remove_stale_snapshots(engine: Engine, repository: str) -> None:
    """Clean up after packagers that died. Only who holds the environment's lock may call this."""
    for reference in engine.tags_of(repository):
        if reference.startswith(f"{repository}:{_TAG_PREFIX}"):
            engine.remove_image(reference)
    remove_unused_images(engine, repository)


def _restore(engine: Engine, container: Container, name: str) -> None:
    recover(engine, name, container.id)
    engine.start(name)


@contextmanager
def _although_killed(restore: Callable[[], None]) -> Iterator[None]:
    """Have `restore` called by another process if this one is killed inside the block, by SIGKILL too.

    The child waits at a pipe: a byte says that the block has ended, the end of the pipe that its parent has.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _watch(reading, writing, restore)
    os.close(reading)
    try:
        yield
    finally:
        os.write(writing, b".")
        os.close(writing)
        os.waitpid(child, 0)


def _watch(reading: int, writing: int, restore: Callable[[], None]) -> None:
    """The child's whole life; it never returns."""
    status = 1
    try:
        os.setsid()
        os.close(writing)
        # Who waits for the end of the module's output must not wait for this process.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        if not os.read(reading, 1):
            restore()
        status = 0
    finally:
        os._exit(status)
