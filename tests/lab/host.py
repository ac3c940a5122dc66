# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Debian host that the lab runs on: where its state is, its programs, packages and background processes."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOME = Path(os.environ.get("HAKU_LAB", "/var/tmp/haku-river-lab"))

PREFIX = HOME.name
"""Begins the name of everything that the lab makes outside its directory, so that two labs do not meet.

What begins so and goes on with a dash is this lab's: `lab` and `lab-2` are no good names for two.
"""

_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

_PACKAGE_OF = {
    "createrepo_c": "createrepo-c",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "filefrag": "e2fsprogs",
    "gpg": "gpg",
    "ip": "iproute2",
    "iptables": "iptables",
    "mkfs.xfs": "xfsprogs",
    "mmdebstrap": "mmdebstrap",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "rpmbuild": "rpm",
    "skopeo": "skopeo",
    "ssh-keygen": "openssh-client",
    "tmux": "tmux",
    "zsh": "zsh",
}


class LabError(Exception):
    """The lab could not do what it was asked; the message says what and why."""


def run(*command: str | Path, stdin: bytes | Path | None = None, seconds: float = 600) -> str:
    """Run a command to its end, fed with these bytes or this file, and return what it printed.

    :raises LabError: it is not there, failed or took too long; the message holds its output.
    """
    words = [str(word) for word in command]
    try:
        if isinstance(stdin, Path):
            with stdin.open("rb") as stream:
                done = subprocess.run(words, stdin=stream, capture_output=True, timeout=seconds, check=True)
        else:
            done = subprocess.run(words, input=stdin or b"", capture_output=True, timeout=seconds, check=True)
    except FileNotFoundError as error:
        raise LabError(f"`{words[0]}` is not installed") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr + error.stdout).decode(errors="replace").strip()
        raise LabError(f"`{' '.join(words)}` ended with {error.returncode}: {output}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(words)}` did not end within {seconds} s") from error
    return done.stdout.decode(errors="replace")


def succeeds(*command: str | Path) -> bool:
    """Tell whether a command ends well; for probes."""
    try:
        run(*command, seconds=30)
    except LabError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """Return as soon as the condition holds.

    :raises LabError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"gave up after {seconds:.0f} s waiting for {what}")
        time.sleep(0.1)


@functools.cache
def require(*programs: str) -> None:
    """Install the Debian packages of those programs that the host lacks."""
    missing = sorted({_PACKAGE_OF[program] for program in programs if shutil.which(program) is None})
    if missing:
        apt_get = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300")
        with exclusive("apt"):  # for the lock that an update takes there is no such option
            run(*apt_get, "update")
            run(*apt_get, "install", "--yes", "--no-install-recommends", *missing)


@functools.cache
def debian_mirror() -> str:
    """Return the address that this host's apt gets Debian from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        found = source.is_file() and re.search(
            r"^[^#]*?(https?://\S+/debian)/?(\s|$)", source.read_text(), re.MULTILINE
        )
        if found:
            return found[1]
    raise LabError("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d")


def debootstrap(suite: str, packages: tuple[str, ...], target: Path, variant: str = "minbase") -> None:
    """Make a minimal Debian with these packages: a folder, or a tar file if the target's name ends so.

    The variant is mmdebstrap's; `extract` unpacks the packages and nothing else.
    """
    require("mmdebstrap")
    with atomic(target) as partial:
        # A mirror that lags behind has a Release file of sid past its date.
        options = ["--quiet", f"--variant={variant}", "--aptopt=Acquire::Check-Valid-Until false"]
        options += [f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("doc", "locale", "man")]
        if ca_bundle() and "ca-certificates" in packages:
            options.append(f"--customize-hook=upload {_CA_BUNDLE} {_CA_BUNDLE}")
        source = f"deb [trusted=yes] {debian_mirror()} {suite} main"
        run("mmdebstrap", *options, f"--include={','.join(packages)}", suite, partial, source)


@functools.cache
def ca_bundle() -> str:
    """Return the authorities that the host trusts; what runs on it must trust an inspecting proxy as well."""
    bundle = Path(_CA_BUNDLE)
    return bundle.read_text() if bundle.exists() else ""


@contextmanager
def exclusive(what: str) -> Iterator[None]:
    """Let one process (or thread) at a time make or start something."""
    with lock_file(what) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_file(name: str) -> IO[str]:
    """Open the file that a lock of this name is held on."""
    path = HOME / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Give a path to make something at that gets its real name only once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    remove(partial)
    yield partial
    partial.rename(target)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there, without following a mount into another file system."""
    run("rm", "-rf", "--one-file-system", path)


@dataclass(frozen=True)
class Daemon:
    """A background process of the lab, known by the pid file in its directory."""

    program: str
    directory: Path

    @property
    def pidfile(self) -> Path:
        """Where the process's ID is."""
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        """What the process printed since its last start."""
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """The process's ID while it lives; a pid file that a killed process left counts for nothing."""
        try:
            pid = int(self.pidfile.read_text())
        except FileNotFoundError:
            return None
        return pid if is_running(pid, self.program) else None

    def start(self, *arguments: str | Path) -> None:
        """Start the process in a session of its own, so that it survives the one that asked for it."""
        require(self.program)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.pidfile.unlink(missing_ok=True)  # of a killed process; its ID may be in use again
        files = ("--make-pidfile", "--pidfile", self.pidfile, "--output", self.log)
        program = str(shutil.which(self.program))
        run("start-stop-daemon", "--start", "--background", *files, "--startas", program, "--", *arguments)

    def stop(self, seconds: float = 20) -> None:
        """End the process, by force if it does not end in time."""
        if self.pid:
            stop(self.pid, lambda: self.pid is None, seconds)


def stop(pid: int, gone: Callable[[], bool], seconds: float) -> None:
    """Ask a process to end, and kill it when it is not gone in time."""
    os.kill(pid, signal.SIGTERM)
    try:
        wait_until(gone, f"process {pid} to end", seconds)
    except LabError:
        os.kill(pid, signal.SIGKILL)
        wait_until(gone, f"process {pid} to be killed", seconds)


def is_running(pid: int, program: str) -> bool:
    """Tell whether this process exists, has not ended, and is that program (IDs are used again)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    name = status[status.index("(") + 1 : status.rindex(")")]
    state = status[status.rindex(")") + 2]
    return name == program[:15] and state != "Z"
