# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be done to a VPS beyond what can be done to any container: each step leaves no half of it."""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.haku.river.plugins.module_utils.container_steps import (
    Step,
    aside_name,
    discard,
    exit_of,
    on_failure,
    remove_with_volumes,
    stop_alive,
)
from ansible_collections.haku.river.plugins.module_utils.engine import Engine, Entry
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.rebase import Creation, continuation
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE
from ansible_collections.haku.river.plugins.module_utils.ssh_handshake import NoAnswer, host_key
from ansible_collections.haku.river.plugins.module_utils.vps_keys import (
    AUTHORIZED_KEYS,
    HOST_KEY,
    LOGIN_DIRECTORY,
    SSH_DIRECTORY,
    own_host_key,
    public_key,
    read_keys,
    written_keys,
)
from ansible_collections.haku.river.plugins.module_utils.vps_port import (
    SSH_PORT,
    Ports,
    binding,
    choose,
    choosing,
    is_in_use,
    published,
    taken_ports,
)
from ansible_collections.haku.river.plugins.module_utils.vps_variables import (
    PROFILE,
    PROFILE_DIRECTORY,
    SESSION_FILE,
    profile,
    session_file,
)

# What the server may not do is said on its command line, as the first value that an sshd hears holds, whatever the
# image's own configuration says. Of users, it takes all that are named: an environment can name more.
_ONE_WAY_IN = {
    "AuthenticationMethods": "publickey",
    "AuthorizedKeysFile": ".ssh/authorized_keys",
    "AuthorizedKeysCommand": "none",
    "TrustedUserCAKeys": "none",
}
_SERVER = {**_ONE_WAY_IN, "AllowUsers": "root", "PermitRootLogin": "prohibit-password", "PermitUserEnvironment": "yes"}
# Only what stands in a block `Match` holds against that. As whom and from where is asked for root from anywhere.
_ROOT = "user=root,host=anywhere.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"

# The shell is the image's own, and nothing that anybody has written gets into it.
START = f"""
set -e
for file in {SSH_DIRECTORY}/ssh_host_*; do [ -s "$file" ] || rm -f "$file"; done
[ -e {SSH_DIRECTORY}/{HOST_KEY} ] || ssh-keygen -q -t ed25519 -N '' -f {SSH_DIRECTORY}/{HOST_KEY}
mkdir -p /run/sshd
set -- -o HostKey={SSH_DIRECTORY}/{HOST_KEY} {" ".join(f"-o {name}={value}" for name, value in _SERVER.items())}
there=$(/usr/sbin/sshd -T -C {_ROOT} "$@")
for wanted in {" ".join(f"'{name.lower()} {value}'" for name, value in _ONE_WAY_IN.items())}; do
  case "
$there
" in
    *"
$wanted
"*) ;;
    *) echo "a block Match of this image's sshd_config keeps root's logins from being as they have to be: $wanted" >&2
      exit 1 ;;
  esac
done
exec /usr/sbin/sshd -D -e "$@"
"""

OWN_FILES = (
    f"{LOGIN_DIRECTORY}/{AUTHORIZED_KEYS}",
    f"{LOGIN_DIRECTORY}/{SESSION_FILE}",
    f"{SSH_DIRECTORY}/{HOST_KEY}",
    f"{SSH_DIRECTORY}/{HOST_KEY}.pub",
    f"{PROFILE_DIRECTORY}/{PROFILE}",
)
"""What is put into a VPS, or made in it at its first start."""

_NOT_FOUND = 127
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0
_LAST_LINES = 10
_NO_SERVER = (
    "Prepare the environment on the Host with the role haku.river.sshd, package it, and try again; the first start "
    "of a VPS installs nothing"
)


def container_name(vps: str) -> str:
    """What the container of a VPS is called."""
    return f"haku-vps-{vps}"


@dataclass(frozen=True)
class Answering:
    """Returns when a VPS answers by SSH with its own host key."""

    vps: str
    timeout_seconds: int

    def __call__(self, engine: Engine, name: str) -> None:
        """See `container_steps.Ready`; raises `HakuError` as soon as the server has ended, and after the timeout."""
        deadline = time.monotonic() + self.timeout_seconds
        began = None
        while True:
            answer = engine.find_container(name)
            state = answer["State"] if answer else {}
            if (
                answer is None
                or not state["Running"]
                or state.get("Restarting")
                or began not in (None, state["StartedAt"])
            ):
                raise _ended(engine, self.vps, name)
            began = state["StartedAt"]
            address, port = published(answer)
            try:
                return self._check(engine, name, _way_to(engine, address), port or 0)
            except NoAnswer as problem:
                if time.monotonic() > deadline:
                    raise HakuError(
                        f"VPS {self.vps} does not answer by SSH after {self.timeout_seconds} s",
                        where=f"port {port}",
                        cause=str(problem),
                        remedy=f"See what it says with docker logs {name}, or give it more time with ready_timeout",
                    ) from problem
            time.sleep(_POLL_SECONDS)

    def _check(self, engine: Engine, name: str, address: str, port: int) -> None:
        heard = host_key(address, port, _PATIENCE_SECONDS)
        own = find_host_key(engine, name)
        if own is None or own[1] != heard:
            raise NoAnswer("another SSH server answers at its port")


@dataclass(frozen=True)
class NewMachine:
    """A VPS that is to be made: `body` is that of `POST /containers/create`, without a port.

    `former_files` are those in /etc/ssh of the machine that it replaces, `networks` more of them to join.
    """

    vps: str
    body: Mapping[str, Any]
    ports: Ports
    keys: tuple[str, ...]
    ready: Answering
    lock_timeout_seconds: int
    former_files: Mapping[str, bytes] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def make(self, engine: Engine, make_way: Callable[[], None] = lambda: None) -> None:
        """Create it at the first port that is free, and start it when `make_way` has made that port so."""
        name = container_name(self.vps)
        refused: dict[int, str] = {}
        while True:
            with choosing(engine, self.lock_timeout_seconds):
                port = choose(self.ports, taken_ports(engine, except_for=(aside_name(name),)), refused)
                container_id = engine.create_container(name, _at_port(self.body, self.ports.address, port))
            try:
                with on_failure(functools.partial(discard, engine, container_id)):
                    for network, endpoint in self.networks.items():
                        engine.join_network(container_id, network, endpoint)
                    self._equip(engine, container_id)
                    make_way()
                    engine.start(container_id)
                    return self.ready(engine, name)
            except EngineError as error:
                if not is_in_use(error):
                    raise
                refused[port] = error.cause

    def _equip(self, engine: Engine, container_id: str) -> None:
        """Put into a machine that has never run what its first start needs."""
        there = engine.read_files(container_id, SSH_DIRECTORY)
        if there is None:
            what = f"VPS {self.vps} cannot be: its image has no SSH server ({SSH_DIRECTORY})"
            raise HakuError(what, remedy=_NO_SERVER)
        variables = (engine.find_container(container_id) or {"Config": {}})["Config"].get("Env") or ()
        host_keys = own_host_key(there, self.former_files)
        entries = [
            *(Entry(f"{SSH_DIRECTORY}/{name}", 0o600, content) for name, content in host_keys.items()),
            *_login(self.keys),
            Entry(f"{LOGIN_DIRECTORY}/{SESSION_FILE}", 0o600, session_file(variables)),
            Entry(PROFILE_DIRECTORY, 0o755),
            Entry(f"{PROFILE_DIRECTORY}/{PROFILE}", 0o644, profile(variables)),
        ]
        engine.write_files(container_id, entries)


@dataclass(frozen=True)
class Create(Step):
    """Create and start a VPS; one that does not answer is removed again."""

    machine: NewMachine

    @property
    def ports(self) -> Ports:
        """Where it may answer."""
        return self.machine.ports

    @property
    def words(self) -> str:
        return f"create and start VPS {self.machine.vps} from image {self.machine.body['Image']}"

    def run(self, engine: Engine) -> None:
        self.machine.make(engine)


@dataclass(frozen=True)
class Replace(Step):
    """Put a new machine into the place of a VPS, with the same host key; if that fails, the former one is back.

    Without a `body`, the new one has all settings of the former. Without `keys`, it has its authorized keys.
    """

    vps: str
    image: str
    body: Mapping[str, Any] | None
    ports: Ports
    keys: tuple[str, ...] | None
    stop_timeout_seconds: int
    lock_timeout_seconds: int
    ready: Answering

    @property
    def words(self) -> str:
        return f"{'restore' if self.body is None else 're-create'} VPS {self.vps} from image {self.image}"

    def run(self, engine: Engine) -> None:
        name = container_name(self.vps)
        former = aside_name(name)
        answer = engine.find_container(name)
        if answer is None:
            raise HakuError(f"VPS {self.vps} was removed meanwhile", where=engine.url)
        creation = continuation(answer, self.image) if self.body is None else Creation(self.body, {})
        machine = NewMachine(
            self.vps,
            creation.body,
            self.ports,
            find_keys(engine, name) if self.keys is None else self.keys,
            self.ready,
            self.lock_timeout_seconds,
            engine.read_files(name, SSH_DIRECTORY) or {},
            creation.networks,
        )
        engine.rename_container(name, former)
        with on_failure(lambda: self._put_back(engine, answer, former)):
            machine.make(engine, functools.partial(self._stop, engine, former))
        if self.body is None:
            # Its volumes are those of the new one.
            engine.remove_container(former, force=True, volumes=False)
        else:
            remove_with_volumes(engine, former)

    def _stop(self, engine: Engine, former: str) -> None:
        there = engine.find_container(former)
        if there and there["State"]["Status"] in ALIVE:
            stop_alive(engine, former, there["State"]["Status"], self.stop_timeout_seconds)

    def _put_back(self, engine: Engine, answer: Mapping[str, Any], former: str) -> None:
        name = container_name(self.vps)
        engine.rename_container(former, name)
        now = engine.find_container(name)
        if answer["State"]["Status"] in ALIVE and now and now["State"]["Status"] not in ALIVE:
            engine.start(name)
            # Whether it answers, nobody is told now; but who is told of the failure can use it then.
            with suppress(HakuError):
                self.ready(engine, name)


@dataclass(frozen=True)
class PutKeys(Step):
    """Let exactly the owners of these keys log in; whoever is logged in stays so."""

    vps: str
    keys: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"put {len(self.keys)} authorized keys into VPS {self.vps}"

    def run(self, engine: Engine) -> None:
        engine.write_files(container_name(self.vps), _login(self.keys))


def find_keys(engine: Engine, container: str) -> tuple[str, ...]:
    """The keys that may log in to a VPS, running or not."""
    return read_keys(_content(engine, container, f"{LOGIN_DIRECTORY}/{AUTHORIZED_KEYS}"))


def find_host_key(engine: Engine, container: str) -> tuple[str, bytes] | None:
    """The type and the blob of the key by which people know a VPS, running or not; None before its first start."""
    content = _content(engine, container, f"{SSH_DIRECTORY}/{HOST_KEY}.pub")
    return public_key(content.decode(errors="replace").strip())


def _content(engine: Engine, container: str, path: str) -> bytes:
    """A file, empty if it is not there, or if those inside have made something of it that cannot be read."""
    # Nothing that they do may keep anyone from listing or removing machines. An engine that is gone is noticed anyway.
    with suppress(EngineError):
        return (engine.read_files(container, path) or {}).get("", b"")
    return b""


def _at_port(body: Mapping[str, Any], address: str | None, port: int) -> dict[str, Any]:
    host = {**body["HostConfig"], "PortBindings": binding(address, port)}
    return {**body, "ExposedPorts": {**(body.get("ExposedPorts") or {}), SSH_PORT: {}}, "HostConfig": host}


def _login(keys: tuple[str, ...]) -> tuple[Entry, ...]:
    return (Entry(LOGIN_DIRECTORY, 0o700), Entry(f"{LOGIN_DIRECTORY}/{AUTHORIZED_KEYS}", 0o600, written_keys(keys)))


def _way_to(engine: Engine, address: str) -> str:
    """Where this process reaches a port that the engine publishes on an address of its machine."""
    host = urlsplit(engine.url).hostname
    if host and not engine.url.startswith(("unix:", "npipe:")):
        return host
    if not ipaddress.ip_address(address).is_unspecified:
        return address
    return "::1" if ":" in address else "127.0.0.1"


def _ended(engine: Engine, vps: str, name: str) -> HakuError:
    _command, code = exit_of(engine, name)
    try:
        log = engine.last_words(name, _LAST_LINES)
    except EngineError:
        # Some logging drivers cannot be read; the exit code says enough.
        log = ""
    remedy = "Correct the environment's /etc/ssh/sshd_config on the Host (sshd -t checks it), package it, and try again"
    return HakuError(
        f"VPS {vps} does not keep running",
        where=engine.url,
        cause=f"its SSH server ended with exit code {code}" + (f" and last wrote: {log}" if log else ""),
        remedy=_NO_SERVER if code == _NOT_FOUND else remedy,
    )
