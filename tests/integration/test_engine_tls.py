# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine that speaks TLS and wants to see certificates, at the port where it is looked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.modules import Result, run_module
from tests.lab import images
from tests.lab.certificates import Authority, Certificate
from tests.lab.engines import RELEASES, Engine, serving

# Nobody else sees this mount; /var/run is a link to /run.
WITHOUT_SOCKET = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
UNNAMED = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "", "XDG_RUNTIME_DIR": ""}
# Many machines have this for their Python programs; an engine's authority is not in it.
MACHINES_AUTHORITIES = {"REQUESTS_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt"}


@dataclass(frozen=True)
class Place:
    """The engine, a process in its network namespace, and what is needed to make friends with it."""

    engine: Engine
    process: int
    directory: Path
    authority: Authority
    client: Certificate

    def ask(self, module: str = "haku_instance_info", home: str = "/nonexistent", **options: Any) -> Result:
        """Run a module where 127.0.0.1 is the engine's."""
        within = ("nsenter", f"--net=/proc/{self.process}/ns/net", *WITHOUT_SOCKET)
        environment = {**UNNAMED, **MACHINES_AUTHORITIES, "HOME": home}
        return run_module(module, within=within, environment=environment, **options)

    def options(self, client: Certificate | None, authority: Authority | None = None) -> dict[str, Any]:
        """The engine's options with this certificate."""
        shown = {"client_cert": str(client.path), "client_key": str(client.key_path)} if client else {}
        return {
            "docker_host": "tcp://localhost:2376",
            "validate_certs": True,
            "ca_path": str((authority or self.authority).path),
            **shown,
        }


@contextmanager
def engine_with_tls(name: str, *, expired: bool = False) -> Iterator[Place]:
    """Run an engine that answers at tcp://localhost:2376 to those who can prove themselves, for the block's length."""
    release = replace(RELEASES["d28"], name=name)
    directory = release.directory / "certificates"
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority(directory, "authority")
    own = authority.sign("engine", expired=expired)
    files = (f"--tlscacert={authority.path}", f"--tlscert={own.path}", f"--tlskey={own.key_path}")
    release = replace(release, options=("--host=tcp://127.0.0.1:2376", "--tlsverify", *files))
    with serving(release) as (engine, process):
        yield Place(engine, process, directory, authority, authority.sign("client"))


@pytest.fixture(scope="module")
def place(engines: dict[str, Engine]) -> Iterator[Place]:
    """Give an engine that has a certificate itself, and asks for one."""
    with engine_with_tls("tls") as found:
        yield found


def refusal(place: Place, options: dict[str, Any]) -> str:
    """What is said where the engine is not spoken to, in lower case and without underscores, as libraries differ."""
    refused = place.ask(**options)
    assert refused.get("failed"), refused
    assert refused["msg"].startswith("The container engine does not answer: tcp://")
    sentence: str = refused["msg"].lower().replace("_", " ")
    return sentence


def test_the_right_certificate_is_let_in(place: Place) -> None:
    found = place.ask(**place.options(place.client))
    assert found["instances"] == []
    assert "warnings" not in found


def test_a_console_is_reached_through_tls(place: Place) -> None:
    image = images.provide(images.BUSYBOX, place.engine)
    arguments = ("--detach", "--interactive", "--tty", "--network", "none", "--name", "shell")
    place.engine.docker("run", *arguments, image, "sh")
    lines = "for i in $(seq 5000); do echo line $i '>' end; done"
    told = place.ask("haku_console", name="shell", command=lines, raw=True, **place.options(place.client))
    assert told["answer"] == "\n".join(f"line {number} > end" for number in range(1, 5001))
    ran = place.ask("haku_instance", name="shell", exec=["echo", "hello"], **place.options(place.client))
    assert ran["stdout"] == "hello\n"
    place.engine.docker("rm", "--force", "shell")


def test_what_cannot_be_trusted_is_refused_with_the_cause(place: Place) -> None:
    stranger = Authority(place.directory, "stranger")
    right = place.options(place.client)
    cases = {
        "no client certificate was shown": place.options(None),
        "unknown certificate authority|unknown ca": place.options(stranger.sign("wrong")),
        "certificate expired|expired certificate": place.options(place.authority.sign("expired", expired=True)),
        "certificate verify failed": place.options(place.client, stranger),
        "IP address mismatch|doesn't match": {**right, "docker_host": "tcp://127.0.0.1:2376"},
    }
    for causes, options in cases.items():
        sentence = refusal(place, options)
        assert any(cause.lower() in sentence for cause in causes.split("|")), sentence


def test_an_engine_whose_own_certificate_has_expired_is_refused_with_the_cause(engines: dict[str, Engine]) -> None:
    with engine_with_tls("tls-expired", expired=True) as place:
        assert "certificate verify failed: certificate has expired" in refusal(place, place.options(place.client))
        # It is there for those who do not ask who it is.
        trusting = {**place.options(place.client), "validate_certs": False, "tls": True}
        assert place.ask(**trusting)["instances"] == []


def test_it_is_found_where_nobody_names_it(place: Place) -> None:
    home = place.directory / "home"
    (home / ".docker").mkdir(parents=True)
    for source, name in (
        (place.authority.path, "ca.pem"),
        (place.client.path, "cert.pem"),
        (place.client.key_path, "key.pem"),
    ):
        shutil.copy(source, home / ".docker" / name)
    found = place.ask(home=str(home))
    assert [(it["url"], it["failure"]) for it in found["attempts"]] == [
        ("unix:///var/run/docker.sock", "No such file or directory"),
        ("tcp://localhost:2376", None),
    ]
    sentence = place.ask()["msg"]
    assert sentence.index("tcp://localhost:2376 (the local TLS port): ") < sentence.index("tcp://localhost:2375")
