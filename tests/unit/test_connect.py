# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which engines are tried, in which order, and what is said when none answers."""

from __future__ import annotations

import gc
import json
import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils import connect as connect_module
from ansible_collections.haku.river.plugins.module_utils.connect import (
    Candidate,
    EngineSettings,
    candidates,
    connect,
    first_answering,
    podman_candidates,
)
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError

# The SDK's constructor leaves its socket to the garbage collector when the engine does not answer; the test has to
# call that in itself, or the warning goes to another test.
forgotten_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

USUAL = ["unix:///var/run/docker.sock", "tcp://localhost:2376", "tcp://localhost:2375"]


def urls(settings: EngineSettings, environment: dict[str, str], home: Path) -> list[str]:
    return [candidate.url for candidate in candidates(settings, environment, home)]


def test_what_the_user_names_is_the_only_one_tried(tmp_path: Path) -> None:
    assert urls(EngineSettings(docker_host="tcp://192.0.2.1:2375"), {}, tmp_path) == ["tcp://192.0.2.1:2375"]


def test_what_the_environment_names_is_the_only_one_tried_unless_the_user_names_another(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "unix:///there.sock", "XDG_RUNTIME_DIR": "/run/user/1000"}
    assert urls(EngineSettings(), environment, tmp_path) == ["unix:///there.sock"]
    assert urls(EngineSettings(docker_host="unix:///here.sock"), environment, tmp_path) == ["unix:///here.sock"]
    assert urls(EngineSettings(), {"DOCKER_HOST": ""}, tmp_path) == USUAL


def test_podman_is_where_its_own_variable_says_before_that_of_docker() -> None:
    def places(environment: dict[str, str], docker_host: str | None = None) -> list[tuple[str, str]]:
        found = podman_candidates(EngineSettings(docker_host=docker_host), environment)
        assert all(place.only_podman for place in found)
        return [(place.url, place.origin) for place in found]

    both = {"DOCKER_HOST": "unix:///docker.sock", "CONTAINER_HOST": "unix:///podman.sock", "XDG_RUNTIME_DIR": "/own"}
    assert places(both) == [("unix:///podman.sock", "CONTAINER_HOST")]
    assert places({**both, "CONTAINER_HOST": ""}) == [("unix:///docker.sock", "DOCKER_HOST")]
    assert places(both, "unix:///named.sock") == [("unix:///named.sock", "as named")]
    unnamed = {**both, "CONTAINER_HOST": "", "DOCKER_HOST": ""}
    services = ["unix:///own/podman/podman.sock", "unix:///run/podman/podman.sock"]
    assert sorted(url for url, _origin in places(unnamed)) == services


@pytest.mark.parametrize("variable", ["CONTAINER_HOST", "DOCKER_HOST"])
def test_tls_holds_for_podman_wherever_its_address_comes_from(tmp_path: Path, variable: str) -> None:
    (tmp_path / "ca.pem").touch()
    environment = {variable: "tcp://192.0.2.1:2376", "DOCKER_CERT_PATH": str(tmp_path)}
    (place,) = podman_candidates(EngineSettings(validate_certs=True), environment)
    assert (place.verify, place.ca_path, place.warning) == (True, str(tmp_path / "ca.pem"), None)


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("tcp://192.0.2.1:2375", True),
        ("tcp://engine.example.org:2375", True),
        ("tcp://[2001:db8::1]:2375", True),
        ("engine.example.org:2375", True),
        ("http://192.0.2.1:2375", True),
        ("tcp://localhost:2375", False),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://[::1]:2375", False),
        ("tcp://:2375", False),
        ("unix:///var/run/docker.sock", False),
        ("ssh://engine.example.org", False),
    ],
)
def test_another_machine_is_spoken_to_without_tls_only_with_a_warning(tmp_path: Path, url: str, warns: bool) -> None:
    (place,) = candidates(EngineSettings(docker_host=url), {}, tmp_path)
    warning = f"Speaking to the engine at {url} unencrypted and unauthenticated: prefer TLS."
    assert place.warning == (warning if warns else None)
    (encrypted,) = candidates(EngineSettings(docker_host=url, tls=True), {}, tmp_path)
    assert encrypted.warning is None


def test_the_usual_places_are_tried_in_order(tmp_path: Path) -> None:
    places = candidates(EngineSettings(), {}, tmp_path)
    assert [place.url for place in places] == USUAL
    assert [place.verify for place in places] == [None, True, None]
    assert [bool(place.warning) for place in places] == [False, False, True]


def test_the_environment_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    meta = tmp_path / ".docker/contexts/meta/6b86b273"
    meta.mkdir(parents=True)
    environment = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert urls(EngineSettings(), environment, tmp_path) == [*USUAL, "unix:///run/user/1000/docker.sock"]


def test_programs_without_ansible_have_their_settings_from_the_same_variables() -> None:
    said = {"DOCKER_TLS_VERIFY": "1", "DOCKER_TIMEOUT": "5"}
    assert EngineSettings.from_environment(said) == EngineSettings(validate_certs=True, timeout=5)
    assert EngineSettings.from_environment({"DOCKER_TLS_VERIFY": "", "DOCKER_TIMEOUT": ""}) == EngineSettings()
    with pytest.raises(HakuError, match=r"DOCKER_TIMEOUT is '1m'.* number of seconds"):
        EngineSettings.from_environment({"DOCKER_TIMEOUT": "1m"})


def test_a_broken_client_configuration_is_no_reason_to_stop(tmp_path: Path) -> None:
    assert urls(EngineSettings(), {"DOCKER_CONTEXT": "../none"}, tmp_path) == USUAL


def test_certificates_come_from_the_options_then_from_the_environment(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    settings = EngineSettings(docker_host="tcp://192.0.2.1:2376", validate_certs=True, ca_path="/etc/ca.pem")
    (place,) = candidates(settings, {"DOCKER_CERT_PATH": str(tmp_path)}, Path("/nowhere"))
    assert (place.verify, place.ca_path) == (True, "/etc/ca.pem")
    assert (place.client_cert, place.client_key) == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))


def test_tls_without_verification_is_only_used_when_asked_for(tmp_path: Path) -> None:
    asked = EngineSettings(docker_host="tcp://192.0.2.1:2376", tls=True)
    assert candidates(asked, {}, tmp_path)[0].verify is False
    plain = EngineSettings(docker_host="tcp://192.0.2.1:2375")
    assert candidates(plain, {}, tmp_path)[0].verify is None


@pytest.mark.parametrize("settings", [EngineSettings(tls=True), EngineSettings(validate_certs=True)])
def test_who_asks_for_tls_never_ends_at_the_port_without(settings: EngineSettings, tmp_path: Path) -> None:
    assert urls(settings, {}, tmp_path) == [url for url in USUAL if not url.endswith(":2375")]


@forgotten_socket
def test_the_error_names_the_engine_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as failed:
        connect(EngineSettings(docker_host=f"unix://{tmp_path}/docker.sock"))
    gc.collect()
    assert f"unix://{tmp_path}/docker.sock (as named): No such file or directory" in str(failed.value)
    assert "systemctl start docker" in str(failed.value)


@forgotten_socket
def test_an_engine_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(EngineError, match=r"does not answer.*timed out"):
            connect(EngineSettings(docker_host=f"unix://{tmp_path}/s", timeout=1))
        gc.collect()


@forgotten_socket
def test_what_answers_but_is_no_engine_is_not_taken_for_one(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            connection, _address = listener.accept()
            connection.recv(4096)
            body = json.dumps({"message": "I am a teapot"}).encode()
            connection.sendall(b"HTTP/1.1 418 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(EngineError, match=r"does not answer.*teapot"):
            connect(EngineSettings(docker_host=f"unix://{tmp_path}/s", timeout=5))
        gc.collect()


@forgotten_socket
def test_a_place_that_cannot_be_asked_as_wished_does_not_keep_the_others_from_being_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer_configuration(assert_hostname: str, **_others: object) -> None:
        raise TypeError(f"what to do with {assert_hostname}?")

    # As in the SDKs from 7.0.
    monkeypatch.setattr(connect_module, "TLSConfig", newer_configuration)
    settings = EngineSettings(tls_hostname="engine.example.org", timeout=1)
    encrypted = Candidate("tcp://localhost:2376", "the local TLS port", verify=True)
    others = [Candidate(f"unix://{tmp_path}/{name}.sock", name) for name in ("first", "last")]
    with pytest.raises(EngineError) as failed:
        first_answering([others[0], encrypted, others[1]], settings)
    gc.collect()
    attempts = failed.value.cause.split("; ")
    assert [attempt.partition(" ")[0] for attempt in attempts] == [others[0].url, encrypted.url, others[1].url]
    assert "cannot check for the host name in tls_hostname" in attempts[1]
    with pytest.raises(HakuError, match=r"^Docker SDK .* cannot check for the host name"):
        connect(EngineSettings(docker_host="tcp://localhost:2376", tls=True, tls_hostname="engine.example.org"))
