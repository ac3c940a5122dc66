# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding the engine: what the user names, or else the usual places in turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.haku.river.plugins.module_utils.engine import Engine, own_words
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError

try:
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException
    from docker.tls import TLSConfig
    from requests.exceptions import RequestException
except ImportError as error:
    SDK_MISSING: str | None = str(error)
else:
    SDK_MISSING = None

ENGINE_OPTIONS: dict[str, dict[str, Any]] = {
    "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"]), "aliases": ["docker_url"]},
    "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["DOCKER_TLS"])},
    "validate_certs": {
        "type": "bool",
        "default": False,
        "fallback": (env_fallback, ["DOCKER_TLS_VERIFY"]),
        "aliases": ["tls_verify"],
    },
    "tls_hostname": {"type": "str", "fallback": (env_fallback, ["DOCKER_TLS_HOSTNAME"])},
    "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
    "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
    "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"]},
    "api_version": {
        "type": "str",
        "default": "auto",
        "fallback": (env_fallback, ["DOCKER_API_VERSION"]),
        "aliases": ["docker_api_version"],
    },
    "timeout": {"type": "int", "default": 60, "fallback": (env_fallback, ["DOCKER_TIMEOUT"])},
}
"""The argument specification of the doc fragment `haku.river.engine`."""

ENGINE_REQUIRED_TOGETHER = [("client_cert", "client_key")]


@dataclass(frozen=True)
class EngineSettings:
    """What the user said about the engine: the values of `ENGINE_OPTIONS`. `timeout` is in seconds."""

    docker_host: str | None = None
    tls: bool = False
    validate_certs: bool = False
    tls_hostname: str | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    api_version: str = "auto"
    timeout: int = 60


@dataclass(frozen=True)
class Candidate:
    """A place where an engine may answer. `verify` is None without TLS, else whether the server must prove itself."""

    url: str
    origin: str
    verify: bool | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    warning: str | None = None


def candidates(settings: EngineSettings, environment: Mapping[str, str], home: Path) -> tuple[Candidate, ...]:
    """The places to try, in order. What the user names is the only one; see DESIGN, "Finding the engine"."""
    if settings.docker_host:
        return (_named(settings, environment),)
    certificates = _certificates(settings, Path(environment.get("DOCKER_CERT_PATH") or home / ".docker"))
    unencrypted = "Speaking to the engine at tcp://localhost:2375 unencrypted and unauthenticated: prefer its socket."
    usual = [
        Candidate("unix:///var/run/docker.sock", "the default socket"),
        Candidate("tcp://localhost:2376", "the local TLS port", verify=True, **certificates),
        Candidate("tcp://localhost:2375", "the local port without TLS", warning=unencrypted),
    ]
    return (*usual, *_given_by(environment))


def connect(settings: EngineSettings) -> Engine:
    """Return the first engine that answers; `EngineError` lists every attempt and why it failed."""
    if SDK_MISSING:
        raise HakuError(
            f"The Docker SDK for Python is missing for {sys.executable}",
            cause=SDK_MISSING,
            remedy="Install the package python3-docker, or run: pip install docker",
        )
    places = candidates(settings, os.environ, Path.home())
    attempts = []
    for place in places:
        try:
            return _open(place, settings)
        except (DockerException, RequestException, OSError) as error:
            attempts.append(f"{place.url} ({place.origin}): {own_words(error)}")
    named = bool(settings.docker_host)
    raise EngineError(
        "The container engine does not answer" if named else "No container engine answers",
        where=places[0].url if named else "",
        cause="; ".join(attempts),
        remedy="Start it (systemctl start docker), give this user access to it (become, or the group docker), "
        "or name another with docker_host",
    )


def _named(settings: EngineSettings, environment: Mapping[str, str]) -> Candidate:
    url = settings.docker_host or ""
    if not (settings.tls or settings.validate_certs) or url.startswith(("unix:", "npipe:", "ssh:")):
        return Candidate(url, "as named")
    directory = environment.get("DOCKER_CERT_PATH")
    certificates = _certificates(settings, Path(directory) if directory else None)
    return Candidate(url, "as named", verify=settings.validate_certs, **certificates)


def _certificates(settings: EngineSettings, directory: Path | None) -> dict[str, str | None]:
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


def _given_by(environment: Mapping[str, str]) -> list[Candidate]:
    """Engines that nobody named but the environment leads to: the rootless socket, the current context."""
    found = []
    runtime_directory = environment.get("XDG_RUNTIME_DIR")
    if runtime_directory:
        found.append(Candidate(f"unix://{runtime_directory}/docker.sock", "XDG_RUNTIME_DIR"))
    try:
        name = environment.get("DOCKER_CONTEXT")
        context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    except (DockerException, OSError, LookupError, TypeError, ValueError):
        # A broken client configuration is a place without an engine, not a reason to stop.
        return found
    if context is not None and context.Name != "default" and context.Host:
        found.append(Candidate(context.Host, f"Docker context {context.Name}"))
    return found


def _open(place: Candidate, settings: EngineSettings) -> Engine:
    client = docker.APIClient(
        base_url=place.url,
        version=settings.api_version,
        timeout=settings.timeout,
        tls=_tls(place, settings.tls_hostname) or False,
    )
    client.ping()
    warnings = (place.warning,) if place.warning else ()
    return Engine(client, place.url, reopen=lambda: _open(place, settings), warnings=warnings)


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
