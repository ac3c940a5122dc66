# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Engines: the host's own Docker, and beside it four of other versions and image stores, and Podman twice."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .host import (
    HOME,
    PREFIX,
    Daemon,
    LabError,
    debootstrap,
    exclusive,
    remove,
    require,
    run,
    stop as stop_process,
    succeeds,
    wait_until,
)

_BASE = ("ca-certificates", "iproute2", "iptables", "tini")
_DOCKER = ("docker.io", *_BASE)
_PODMAN = ("podman", "aardvark-dns", "catatonit", "crun", "netavark", "nftables", "passt", "uidmap", *_BASE)
_MAIN_SOCKET = Path("/var/run/docker.sock")
_SERVE = Path(__file__).with_name("serve")


@dataclass(frozen=True)
class Engine:
    """A running engine. `store` is `overlay2` (Docker's classic image store), `containerd` or Podman's `overlay`."""

    name: str
    socket: Path
    version: str
    store: str

    @property
    def url(self) -> str:
        """The engine's address as `docker_host` and `DOCKER_HOST` want it."""
        return f"unix://{self.socket}"

    def docker(self, *arguments: str | Path, stdin: bytes | Path | None = None) -> str:
        """Run the Docker command line on this engine and return what it printed."""
        return run("docker", "--host", self.url, *arguments, stdin=stdin)


@dataclass(frozen=True)
class Release:
    """An engine that the lab can start: Debian's package in a suite. `kind` and `options` are for `serve`."""

    name: str
    suite: str
    options: tuple[str, ...] = ()
    kind: str = "docker"
    packages: tuple[str, ...] = _DOCKER

    @property
    def directory(self) -> Path:
        """The engine's state: socket, images, containers, log."""
        return HOME / "engines" / self.name

    @property
    def rootfs(self) -> Path:
        """The root file system that the engine runs on, named after its recipe: a new recipe makes a new one."""
        recipe = hashlib.sha256(repr((self.suite, self.packages)).encode()).hexdigest()[:8]
        return HOME / "rootfs" / f"{self.suite}-{recipe}"

    @property
    def daemon(self) -> Daemon:
        """The process that holds the engine's namespaces."""
        return Daemon("unshare", self.directory)


RELEASES = {
    release.name: release
    for release in (
        Release("d20", "bookworm"),  # 20.10: legacy `docker save` layout
        Release("d26", "trixie"),  # 26.1: OCI `docker save` layout
        Release("d28", "sid"),  # 28.5: the newest with the classic store
        Release("d28c", "sid", ("--feature", "containerd-snapshotter")),  # what a fresh Docker 29 uses
    )
}
"""Docker."""

PODMAN = {
    kind: Release(kind, "trixie", kind=kind, packages=_PODMAN)  # 5.4
    for kind in ("podman", "podman-rootless")
}
"""Podman's Docker-compatible service, of root and of another user."""

_ALL = {**RELEASES, **PODMAN}


@exclusive("main")
def start_main() -> Engine:
    """Return the host's own engine, started if nobody has; then without what a killed session left on it."""
    started = not _answers(_MAIN_SOCKET)
    if started:
        require("docker", "dockerd", "ip", "iptables")
        if succeeds("systemctl", "start", "docker.service"):
            _started_by_systemd().touch()
        else:
            # A killed engine leaves its pid file, and refuses to start when the ID is in use again.
            Path("/var/run/docker.pid").unlink(missing_ok=True)
            _main_daemon().start()
        wait_until(lambda: _answers(_MAIN_SOCKET), f"the host's engine, see {_main_daemon().log}")
    engine = _describe("main", _MAIN_SOCKET)
    if started:
        sweep_main(engine)
    return engine


def main() -> Engine | None:
    """Return the host's own engine if it runs."""
    return _describe("main", _MAIN_SOCKET) if _answers(_MAIN_SOCKET) else None


def sweep_main(engine: Engine, but: Collection[str] = ()) -> None:
    """Remove the containers that the lab and its tests have made on the host's own engine, `but` those named so."""
    named = engine.docker("ps", "--all", "--filter", f"name={PREFIX}-", "--format", "{{.Names}}").split()
    left = [name for name in named if name not in but]
    if left:
        engine.docker("rm", "--force", "--volumes", *left)


def stop_main() -> None:
    """Stop the host's own engine if the lab started it."""
    _main_daemon().stop()
    if _started_by_systemd().exists():
        run("systemctl", "stop", "docker.service", "docker.socket")
        _started_by_systemd().unlink()


@exclusive("engines")
def start(names: Iterable[str] = tuple(RELEASES)) -> dict[str, Engine]:
    """Start the named engines, those not running already, side by side; keys are their names."""
    releases = [_ALL[name] for name in names]
    for release in {release.rootfs: release for release in releases}.values():
        if not release.rootfs.exists():
            debootstrap(release.suite, release.packages, release.rootfs)
    with ThreadPoolExecutor() as pool:
        return {engine.name: engine for engine in pool.map(_start, releases)}


@contextmanager
def serving(release: Release) -> Iterator[tuple[Engine, int]]:
    """Run one more engine for the length of the block; gives it, and a process in its network namespace."""
    try:
        yield _start(release), _first_process(release.daemon)
    finally:
        _stop(release.daemon)
        remove(release.directory)


def stop(names: Iterable[str] = tuple(_ALL)) -> None:
    """Stop the named engines; their images stay on disk."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(_stop, (_ALL[name].daemon for name in names)))


def kill(name: str) -> None:
    """Take an engine away at once, with its containers, as a power failure does."""
    daemon = RELEASES[name].daemon
    os.kill(_first_process(daemon), signal.SIGKILL)
    wait_until(lambda: daemon.pid is None, f"engine {name} to be gone")


def within_network(name: str) -> tuple[str, ...]:
    """A command that starts another one in the network of an engine, where the ports are that it publishes."""
    return ("nsenter", f"--net=/proc/{_first_process(_ALL[name].daemon)}/ns/net")


def within(name: str) -> tuple[str, ...]:
    """A command that starts another one among the files and processes of an engine, where its own command line is."""
    return ("nsenter", f"--target={_first_process(_ALL[name].daemon)}", "--mount", "--pid")


def running() -> dict[str, Engine]:
    """Return the lab's engines that answer now."""
    sockets = {name: release.directory / "docker.sock" for name, release in _ALL.items()}
    return {name: _describe(name, socket) for name, socket in sockets.items() if _answers(socket)}


def forget() -> None:
    """Delete the state of the engines that do not run; base images are quickly loaded again."""
    for release in _ALL.values():
        if release.daemon.pid is None:
            remove(release.directory)


def _start(release: Release) -> Engine:
    socket = release.directory / "docker.sock"
    if not _answers(socket):
        _stop(release.daemon)
        socket.unlink(missing_ok=True)
        namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child")
        release.daemon.start(*namespaces, _SERVE, release.rootfs, release.directory, release.kind, *release.options)
        wait_until(lambda: _answers(socket), f"engine {release.name}, see {release.daemon.log}")
    return _describe(release.name, socket)


def _stop(daemon: Daemon) -> None:
    if daemon.pid:
        stop_process(_first_process(daemon), lambda: daemon.pid is None, 20)


def _first_process(daemon: Daemon) -> int:
    """Return process 1 of the namespaces that the daemon holds, by its ID on the host."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    if not children:
        raise LabError(f"the engine in {daemon.directory} has just ended, see {daemon.log}")
    return int(children[0])


def _answers(socket: Path) -> bool:
    return socket.exists() and succeeds("docker", "--host", f"unix://{socket}", "version")


def _describe(name: str, socket: Path) -> Engine:
    info = json.loads(run("docker", "--host", f"unix://{socket}", "info", "--format", "{{json .}}"))
    # The containerd store reports its snapshotter, "overlayfs", and says what it is among the details.
    store = (
        "containerd"
        if ["driver-type", "io.containerd.snapshotter.v1"] in (info["DriverStatus"] or [])
        else info["Driver"]
    )
    return Engine(name, socket, info["ServerVersion"], store)


def _main_daemon() -> Daemon:
    return Daemon("dockerd", HOME / "main")


def _started_by_systemd() -> Path:
    return HOME / "main" / "started-by-systemd"
