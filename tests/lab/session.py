# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses the lab: several test sessions may share it, the first finds it clean, the last takes it down."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO

from . import engines, machines, registry
from .host import HOME, LabError, lock_file, remove
from .images import Docker

# Podman names what is loaded without a registry so.
_BASE_IMAGES = ("haku-lab/", "localhost/haku-lab/")


@contextmanager
def session(sweeping: bool = True) -> Iterator[None]:
    """Use the lab: no other session takes it down meanwhile.

    Whoever comes first sweeps away what an earlier session left, unless it is not `sweeping`, because it knows what is
    its own; whoever leaves last stops everything, unless the environment variable HAKU_LAB_KEEP asks to leave it
    running for the next one. A killed session's claim ends with it.
    """
    with lock_file("users") as claim:
        if sweeping and _is_alone(claim):
            sweep()
        fcntl.flock(claim, fcntl.LOCK_SH)
        try:
            yield
        finally:
            _leave(claim)


def _leave(claim: IO[str]) -> None:
    if not os.environ.get("HAKU_LAB_KEEP") and _is_alone(claim):
        _stop_all()


def down() -> None:
    """Stop all that the lab runs; images stay.

    :raises LabError: a test session is using the lab.
    """
    with lock_file("users") as claim:
        if not _is_alone(claim):
            raise LabError("a test session is using the lab")
        _stop_all()


def purge() -> None:
    """Stop all that the lab runs and delete everything that it made."""
    down()
    engine = engines.main()
    if engine:
        for name in _images(engine):
            another_lab_uses_it = engine.docker("ps", "--all", "--quiet", "--filter", f"ancestor={name}")
            if name.startswith(_BASE_IMAGES) and not another_lab_uses_it:
                engine.docker("image", "rm", name)
    remove(HOME)


def sweep() -> None:
    """Remove what earlier tests left on the lab's own engines and machines: all but the base images."""
    engines.forget()
    for fleet in (machines.BARE, machines.MOLECULE):
        machines.stop(fleet)  # their tests install things
    left_running: list[Docker] = [*engines.running().values()]
    managed = machines.running(machines.MACHINES).values()
    own = engines.main()
    if own:
        engines.sweep_main(own, but=[machine.container for machine in managed])
    for machine in managed:
        if machine.succeeds("docker", "version"):
            left_running.append(machine)
        else:
            machines.discard(machine)
    with ThreadPoolExecutor() as pool:
        list(pool.map(_sweep_engine, left_running))
    for left in machines.MACHINES.shared.glob("*"):
        remove(left)


def _sweep_engine(engine: Docker) -> None:
    # Podman removes no container before those that use its network, so there may be two rounds.
    with suppress(LabError):
        _remove_containers(engine)
    _remove_containers(engine)
    engine.docker("network", "prune", "--force")
    volumes = engine.docker("volume", "ls", "--quiet").split()
    if volumes:
        engine.docker("volume", "rm", *volumes)
    names = [name for name in _images(engine) if not name.startswith(_BASE_IMAGES)]
    if names:
        engine.docker("image", "rm", "--force", *names)


def _remove_containers(engine: Docker) -> None:
    containers = engine.docker("ps", "--all", "--quiet").split()
    if containers:
        engine.docker("rm", "--force", "--volumes", *containers)


def _images(engine: Docker) -> list[str]:
    """Return what to call each image by: name and tag, or the ID where it has none."""
    listed = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    images = [line.split() for line in listed]
    return [identity if name.startswith("<none>") else name for name, identity in images]


def _stop_all() -> None:
    with ThreadPoolExecutor() as pool:
        stopping = [pool.submit(machines.stop, fleet) for fleet in machines.FLEETS.values()]
        stopping += [pool.submit(engines.stop), pool.submit(registry.stop)]
    for stopped in stopping:
        stopped.result()
    engines.stop_main()  # last: the machines are its containers


def _is_alone(claim: IO[str]) -> bool:
    """Turn the claim into an exclusive one, if no other process has one."""
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
