# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding the engine: what the user names, or else the usual places in turn."""

from __future__ import annotations

import functools
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.engine_words import own_words
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError

try:
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.context import ContextAPI
    from docker.errors import DockerException
    from docker.tls import TLSConfig
    from requests.exceptions import RequestException
except ImportError as error:
    SDK_MISSING: str | None = str(error)
else:
    SDK_MISSING = None

    class _Client(docker.APIClient):
        """The SDK's client, which verifies the engine's certificate by what the user says.

        Its HTTP library prefers the authorities in REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, where these are set.
        """

        def merge_environment_settings(self, *arguments: Any) -> Any:
            """Do as the library does, but for the authorities."""
            settings = super().merge_environment_settings(*arguments)
            return {**settings, "verify": self.verify}


# What Ansible takes for true.
_TRUE = ("1", "true", "yes", "on", "y", "t")
# What is looked for, and what to do if it does not answer.
_ANY_ENGINE = (
    "container engine",
    (
        "Start it (systemctl start docker), give this user access to it (become, or the group docker), "
        "or name another with docker_host"
    ),
)
_PODMAN = (
    "Podman service",
    (
        "Start it (systemctl start podman.socket, for a user's own with --user), "
        "or name another with docker_host or CONTAINER_HOST"
    ),
)


@dataclass(frozen=True)
class EngineSettings:
    """What the user said about the engine: the values of `ENGINE_OPTIONS`. `timeout` is in seconds.

    Where `docker_host` is None, the environment has its say when the engine is looked for; which variable counts
    depends on the kind of engine that is wanted.
    """

    docker_host: str | None = None
    tls: bool = False
    validate_certs: bool = False
    tls_hostname: str | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    api_version: str = "auto"
    timeout: int = 60

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> EngineSettings:
        """What the variables say that Ansible's options fall back on, for programs without Ansible.

        Raises `HakuError` for a timeout that is none.
        """
        timeout = environment.get("DOCKER_TIMEOUT") or "60"
        if not timeout.isdecimal():
            raise HakuError(f"DOCKER_TIMEOUT is {timeout!r}", remedy="Set it to a number of seconds, for example 60")
        return cls(
            tls=environment.get("DOCKER_TLS", "").lower() in _TRUE,
            validate_certs=environment.get("DOCKER_TLS_VERIFY", "").lower() in _TRUE,
            tls_hostname=environment.get("DOCKER_TLS_HOSTNAME") or None,
            api_version=environment.get("DOCKER_API_VERSION") or "auto",
            timeout=int(timeout),
        )


@dataclass(frozen=True)
class Attempt:
    """A place where an engine was looked for; `failure` says why it did not answer, and is None where one did."""

    url: str
    origin: str
    failure: str | None = None

    def __str__(self) -> str:
        return f"{self.url} ({self.origin}): {self.failure or 'answers'}"


class _Files(TypedDict):
    """The certificates of a `Candidate`."""

    ca_path: str | None
    client_cert: str | None
    client_key: str | None


@dataclass(frozen=True)
class Candidate:
    """A place where an engine may answer. `verify` is None without TLS, else whether the server must prove itself.

    With `only_podman`, no other engine is taken for the one that is looked for.
    """

    url: str
    origin: str
    verify: bool | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    warning: str | None = None
    only_podman: bool = False


def candidates(settings: EngineSettings, environment: Mapping[str, str], home: Path) -> tuple[Candidate, ...]:
    """The places to try, in order. What the user names is the only one; see DESIGN, "Finding the engine"."""
    if settings.docker_host:
        return (_at(settings.docker_host, "as named", settings, environment),)
    if environment.get("DOCKER_HOST"):
        return (_at(environment["DOCKER_HOST"], "DOCKER_HOST", settings, environment),)
    certificates = _certificates(settings, Path(environment.get("DOCKER_CERT_PATH") or home / ".docker"))
    usual = [
        Candidate("unix:///var/run/docker.sock", "the default socket"),
        Candidate("tcp://localhost:2376", "the local TLS port", verify=True, **certificates),
    ]
    if not (settings.tls or settings.validate_certs):
        plain = "tcp://localhost:2375"
        usual.append(Candidate(plain, "the local port without TLS", warning=_unencrypted(plain, "its socket")))
    others = [_at(url, origin, settings, environment) for url, origin in _given_by(environment)]
    return (*usual, *others)


def connect(settings: EngineSettings) -> Engine:
    """Return the first engine that answers; `EngineError` lists every attempt and why it failed."""
    return first_answering(candidates(settings, os.environ, Path.home()), settings)[0]


def first_answering(places: Sequence[Candidate], settings: EngineSettings) -> tuple[Engine, tuple[Attempt, ...]]:
    """Return the first engine that answers, and all attempts up to it; `EngineError` lists them if none does."""
    if SDK_MISSING:
        raise HakuError(
            f"The Docker SDK for Python is missing for {sys.executable}",
            cause=SDK_MISSING,
            remedy="Install the package python3-docker, or run: pip install docker",
        )
    named = len(places) == 1
    attempts: list[Attempt] = []
    for place in places:
        try:
            engine = _open(place, settings)
        except (DockerException, RequestException, OSError) as error:
            attempts.append(Attempt(place.url, place.origin, _why(error, place)))
        except HakuError as error:
            # What cannot be asked for here is no reason to leave out the places after it.
            if named:
                raise
            attempts.append(Attempt(place.url, place.origin, str(error).rstrip(".")))
        else:
            if engine.is_podman or not place.only_podman:
                return engine, (*attempts, Attempt(place.url, place.origin))
            engine.client.close()
            attempts.append(Attempt(place.url, place.origin, "it is Docker"))
    sought, remedy = _PODMAN if places[0].only_podman else _ANY_ENGINE
    raise EngineError(
        f"The {sought} does not answer" if named else f"No {sought} answers",
        where=places[0].url if named else "",
        cause="; ".join(map(str, attempts)),
        remedy=remedy,
    )


def podman_candidates(settings: EngineSettings, environment: Mapping[str, str]) -> tuple[Candidate, ...]:
    """The places where Podman's service is looked for: what the user names, or else root's and the user's own.

    `DOCKER_HOST`, which may well be there for Docker's sake, counts where Podman's own `CONTAINER_HOST` is not set.
    """
    named = [
        (settings.docker_host, "as named"),
        *((environment.get(variable), variable) for variable in ("CONTAINER_HOST", "DOCKER_HOST")),
    ]
    for url, origin in named:
        if url:
            return (replace(_at(url, origin, settings, environment), only_podman=True),)
    own = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    roots = Candidate("unix:///run/podman/podman.sock", "root's socket", only_podman=True)
    users = Candidate(f"unix://{own}/podman/podman.sock", "the user's socket", only_podman=True)
    return (roots, users) if os.geteuid() == 0 else (users, roots)


def _at(url: str, origin: str, settings: EngineSettings, environment: Mapping[str, str]) -> Candidate:
    """An address that somebody gave, with TLS if that is asked for."""
    if not (settings.tls or settings.validate_certs) or url.startswith(("unix:", "npipe:", "ssh:")):
        return Candidate(url, origin, warning=_unencrypted(url, "TLS") if _leaves_the_machine(url) else None)
    directory = environment.get("DOCKER_CERT_PATH")
    certificates = _certificates(settings, Path(directory) if directory else None)
    return Candidate(url, origin, verify=settings.validate_certs, **certificates)


def _unencrypted(url: str, better: str) -> str:
    return f"Speaking to the engine at {url} unencrypted and unauthenticated: prefer {better}."


def _leaves_the_machine(url: str) -> bool:
    """Whether anybody on the way could read along; `url` has no TLS. An address may lack its scheme and its host."""
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    if parts.scheme not in ("tcp", "http") or parts.hostname in (None, "", "localhost"):
        return False
    try:
        return not ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return True  # another name


def _certificates(settings: EngineSettings, directory: Path | None) -> _Files:
    """Files that the options name, or those of Docker's own names that `directory` has."""

    def choose(option: str | None, file_name: str) -> str | None:
        if option or directory is None:
            return option
        return str(directory / file_name) if (directory / file_name).is_file() else None

    return {
        "ca_path": choose(settings.ca_path, "ca.pem"),
        "client_cert": choose(settings.client_cert, "cert.pem"),
        "client_key": choose(settings.client_key, "key.pem"),
    }


def _given_by(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Addresses that the environment leads to without naming one, with their origins: rootless socket, context."""
    found = []
    runtime_directory = environment.get("XDG_RUNTIME_DIR")
    if runtime_directory:
        found.append((f"unix://{runtime_directory}/docker.sock", "XDG_RUNTIME_DIR"))
    try:
        name = environment.get("DOCKER_CONTEXT")
        context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    except (DockerException, OSError, LookupError, TypeError, ValueError):
        # A broken client configuration is a place without an engine, not a reason to stop.
        return found
    if context is not None and context.Name != "default" and context.Host:
        found.append((context.Host, f"Docker context {context.Name}"))
    return found


def _open(place: Candidate, settings: EngineSettings) -> Engine:
    tls = _tls(place, settings.tls_hostname) or False
    open_client = functools.partial(_Client, base_url=place.url, timeout=settings.timeout, tls=tls)
    asked = settings.api_version
    client: Any = open_client(version=DEFAULT_DOCKER_API_VERSION if asked == "auto" else asked)
    # The SDK's own `ping` keeps to itself who has answered.
    answer = client._get(client._url("/_ping", versioned_api=asked != "auto"))
    client._raise_for_status(answer)
    if asked == "auto":
        # The answer tells the version, too. The SDK would ask the engine to describe itself, which takes that a while.
        client.close()
        client = open_client(version=answer.headers.get("Api-Version") or asked)
    return Engine(
        client,
        place.url,
        reopen=lambda: _open(place, settings),
        warnings=(place.warning,) if place.warning else (),
        is_podman="Libpod-API-Version" in answer.headers,
    )


def _why(error: BaseException, place: Candidate) -> str:
    words = own_words(error)
    # Before TLS 1.3 engines only say that they do not like the handshake.
    missing = place.verify is not None and not place.client_cert and "alert" in words
    return f"{words} (no client certificate was shown to it)" if missing else words


def _tls(place: Candidate, hostname: str | None) -> TLSConfig | None:
    if place.verify is None:
        return None
    pair = (place.client_cert, place.client_key) if place.client_cert and place.client_key else None
    arguments: dict[str, Any] = {"client_cert": pair, "ca_cert": place.ca_path, "verify": place.verify}
    if hostname:
        arguments["assert_hostname"] = hostname
    try:
        return TLSConfig(**arguments)
    except TypeError as error:
        raise HakuError(
            f"Docker SDK {docker.__version__} cannot check for the host name in tls_hostname",
            cause=str(error),
            remedy="Leave tls_hostname out and name the engine as its certificate does, or use an SDK before 7.0",
        ) from error
