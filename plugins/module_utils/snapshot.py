# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking a snapshot of an env container: away for the commit only, and back whatever happens."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.container import Container
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity, portable_configuration

_TAG_PREFIX = "package-"


@dataclass(frozen=True)
class Snapshot:
    """A container committed as the image `reference`, which lives as long as the block that took it."""

    reference: str
    identity: Identity
    timestamp: int
    away_seconds: float


@contextmanager
def snapshot(
    engine: Engine, container: Container, repository: str, stop: bool, stop_timeout_seconds: int
) -> Iterator[Snapshot]:
    """Commit a container; with `stop` a running one is stopped for that long, else paused.

    Its former state is back before the block begins.
    """
    reference = f"{repository}:{_TAG_PREFIX}{secrets.token_hex(4)}"
    with engine.temporary_image(reference):
        if stop and container.state in ("running", "restarting"):
            away_seconds = _commit_stopped(engine, container, reference, stop_timeout_seconds)
        else:
            away_seconds = 0.0
            engine.commit(container.id, reference, pause=container.state == "running")
        yield _described(engine, container, reference, away_seconds)


@contextmanager
def observation(engine: Engine, container: Container, repository: str) -> Iterator[Snapshot]:
    """Commit a container as it runs, neither stopped nor paused, to see what a snapshot would hold now."""
    reference = f"{repository}:{_TAG_PREFIX}{secrets.token_hex(4)}"
    with engine.temporary_image(reference):
        engine.commit(container.id, reference, pause=False)
        yield _described(engine, container, reference, away_seconds=0.0)


def remove_stale_snapshots(engine: Engine, repository: str) -> None:
    """Clean up after packagers that died. Only who holds the environment's lock may call this."""
    for reference in engine.tags_of(repository):
        if reference.startswith(f"{repository}:{_TAG_PREFIX}"):
            engine.remove_image(reference)


def _described(engine: Engine, container: Container, reference: str, away_seconds: float) -> Snapshot:
    image = engine.find_image(reference)
    if image is None or image.timestamp is None:
        raise HakuError(f"The engine committed container {container.id} but has no image with a time of creation")
    base = engine.find_image(container.image_id)
    configuration = portable_configuration(image.identity.configuration, base.identity.configuration if base else {})
    return Snapshot(reference, Identity(image.identity.diff_ids, configuration), image.timestamp, away_seconds)


def _commit_stopped(engine: Engine, container: Container, reference: str, stop_timeout_seconds: int) -> float:
    gone_at = time.monotonic()
    with _although_killed(lambda: engine.reopen().start(container.id)):
        try:
            engine.stop(container.id, stop_timeout_seconds)
            engine.commit(container.id, reference, pause=False)
        finally:
            engine.start(container.id)
    return time.monotonic() - gone_at


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
