# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Synchronising from a web server: a real nginx with TLS, and whatever can go wrong on the way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import converge, fail, peak_memory, run_module, succeed
from tests.lab.webserver import PASSWORD, USERNAME, Webserver, serving

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Served:
    """An environment on a machine without the shared directory, with a web server that has two versions of it."""

    environment: Environment
    server: Webserver
    older: int
    newer: int

    def options(self, path: str = "open/") -> dict[str, Any]:
        """Options of haku_sync for a directory of the web server."""
        here = {"name": self.environment.name, "docker_host": self.environment.engine.url}
        return {**here, "source": self.server.url(path), "source_ca_path": str(self.server.ca_path)}


@pytest.fixture
def served(one_environment: Environment, tmp_path: Path) -> Iterator[Served]:
    """Give an environment of 20 MB, with a small change in its second version, on a web server."""
    one_environment.execute("dd if=/dev/urandom of=/large bs=1M count=20 2>/dev/null")
    versions = []
    for greeting in ("one", "two"):
        one_environment.execute(f"echo {greeting} > /greeting")
        versions.append(succeed("haku_tar", **one_environment.options, keep=9)["version"])
    one_environment.leave()
    with serving(one_environment.tarballs, tmp_path / "nginx") as server:
        yield Served(one_environment, server, *versions)


def test_only_the_index_and_the_missing_layers_are_transferred(served: Served) -> None:
    first = converge("haku_sync", **served.options(), version=served.older).first
    assert (first["layers_loaded"], first["layers_reused"]) == (1, 1)
    succeed("haku_sync", **served.options(), state="absent")
    succeed("haku_sync", **served.options(), version=served.older)
    served.server.take_log()
    update = succeed("haku_sync", **served.options())
    log = served.server.take_log()
    assert (update["layers_loaded"], update["layers_reused"]) == (1, 2)
    tarball = [entry for entry in log if entry[0].endswith(".tar")]
    assert {status for _path, status, _size in tarball} == {206}
    assert sum(size for _path, _status, size in tarball) == update["bytes_read"] < MEGABYTE // 4
    assert len(log) <= 8
    assert update["tarball"] == served.server.url(f"open/{served.environment.name}-{served.newer}.tar")
    assert served.environment.run_image("cat /greeting; stat -c %s /large").split() == ["two", str(20 * MEGABYTE)]
    again = succeed("haku_sync", **served.options())
    assert (again["changed"], again["bytes_read"]) == (False, 0)
    assert [path for path, _status, _size in served.server.take_log()] == ["/open/catalogue.json"]


def test_a_server_gives_the_very_image_that_the_directory_gives(served: Served) -> None:
    succeed("haku_sync", **served.options())
    by_web = served.environment.inspect(served.environment.image)
    served.environment.engine.docker("image", "rm", served.environment.image)
    succeed("haku_sync", **served.environment.options)
    by_directory = served.environment.inspect(served.environment.image)
    assert (by_web["Id"], by_web["RootFS"]) == (by_directory["Id"], by_directory["RootFS"])


@pytest.mark.parametrize("path", ["open/", "open"])
def test_an_index_of_the_directory_serves_where_there_is_no_catalogue(served: Served, path: str) -> None:
    (served.environment.tarballs / "catalogue.json").unlink()
    assert converge("haku_sync", **served.options(path)).first["version"] == served.newer


def test_a_catalogue_that_does_not_say_what_there_is_is_mended_though_nothing_changes(served: Served) -> None:
    catalogue = served.environment.tarballs / "catalogue.json"
    catalogue.write_text(catalogue.read_text().replace(str(served.newer), "1"))
    assert not succeed("haku_tar", **served.environment.options, state="absent", version=1)["changed"]
    assert succeed("haku_sync", **served.options())["version"] == served.newer


def test_without_catalogue_and_index_the_error_says_both(served: Served) -> None:
    (served.environment.tarballs / "catalogue.json").unlink()
    assert "neither catalogue.json nor an index" in fail("haku_sync", **served.options("unlisted/"))
    assert "neither catalogue.json nor an index" in fail("haku_sync", **served.options("nowhere/"))


def test_a_catalogue_of_another_kind_is_refused(served: Served) -> None:
    (served.environment.tarballs / "catalogue.json").write_text(json.dumps({"environments": [1]}))
    assert "is not what haku_tar writes" in fail("haku_sync", **served.options())


def test_an_environment_that_the_server_lacks_is_named_with_those_that_it_has(served: Served) -> None:
    sentence = fail("haku_sync", **{**served.options(), "name": "other"})
    assert "There is no tarball of other in https://127.0.0.1" in sentence
    assert served.environment.name in sentence


def test_a_server_that_nobody_vouches_for_is_refused(served: Served) -> None:
    options = served.options()
    del options["source_ca_path"]
    sentence = fail("haku_sync", **options)
    assert "CERTIFICATE_VERIFY_FAILED" in sentence
    assert "source_ca_path" in sentence
    result = run_module("haku_sync", **options, source_validate_certs=False)
    assert result["action"] == "load"
    assert "without verifying the server's certificate" in json.dumps(result["warnings"])


def test_unencrypted_transfer_is_warned_of(served: Served) -> None:
    result = run_module(
        "haku_sync", **{**served.options(), "source": f"http://127.0.0.1:{served.server.plain_port}/open"}
    )
    assert result["action"] == "load"
    assert "unencrypted" in json.dumps(result["warnings"])


def test_a_redirect_out_of_tls_is_not_followed(served: Served) -> None:
    assert "redirects from https to http" in fail("haku_sync", **served.options("downgraded/"))


@pytest.mark.parametrize("way", ["options", "address", "header"])
def test_credentials_are_used_and_never_shown(served: Served, way: str) -> None:
    closed = served.options("closed/")
    sentence = fail("haku_sync", **closed)
    assert "wants a user name and password (401)" in sentence
    basic = "Basic cnVubmVyOnMzY3JldC86d29yZA=="
    given: dict[str, Any] = {
        "options": {"source_username": USERNAME, "source_password": PASSWORD},
        "address": {"source": closed["source"].replace("//", "//runner:s3cret%2F%3Aword@")},
        "header": {"source_headers": {"Authorization": basic}},
    }[way]
    result = run_module("haku_sync", **{**closed, **given})
    assert result["action"] == "load", result
    assert not any(secret in json.dumps(result) for secret in ("s3cret", basic))
    wrong = json.loads(json.dumps(given).replace("s3cret", "wr0ng").replace("cnV", "cnX"))
    refused = run_module("haku_sync", **{**closed, **wrong}, version=served.older)
    assert refused["failed"]
    assert "(401)" in refused["msg"]
    assert "wr0ng" not in json.dumps(refused)


def test_a_server_without_range_requests_is_refused_with_the_way_out(served: Served) -> None:
    served.server.take_log()
    sentence = fail("haku_sync", **served.options("whole/"))
    assert "does not answer Range requests" in sentence
    assert "nginx, Apache, Caddy" in sentence


def test_a_server_in_trouble_is_asked_again_and_then_quoted(served: Served) -> None:
    assert "it answers 503 Service Temporarily Unavailable" in fail("haku_sync", **served.options("broken/"))
    assert len(served.server.take_log()) == 5


def test_a_server_that_is_not_there_is_named(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    sentence = fail("haku_sync", **{**served.options(), "source": f"https://127.0.0.1:{port}/x?sig=s3cret"})
    assert sentence.startswith(f"Cannot read https://127.0.0.1:{port}/x/catalogue.json: Connection refused")


@pytest.mark.parametrize("source", ["ftp://server/x", "server/x", "https://", "https://[x", "https://server:port/"])
def test_what_is_no_address_of_a_web_server_is_refused(served: Served, source: str) -> None:
    assert "source is not the address of a web server" in fail("haku_sync", **{**served.options(), "source": source})


def test_a_version_pruned_meanwhile_gives_way_to_the_newest(served: Served) -> None:
    """The catalogue that names it is older than what is there, as it is for a moment while a packager prunes."""
    stale = (served.environment.tarballs / "catalogue.json").read_bytes()
    served.environment.tarball(served.newer).unlink()
    sentence = fail("haku_sync", **served.options())
    assert "was pruned or replaced" in sentence
    (served.environment.tarballs / "catalogue.json").unlink()
    assert succeed("haku_sync", **served.options())["version"] == served.older
    assert json.loads(stale)["environments"][served.environment.name][0]["timestamp"] == served.newer


@contextmanager
def breaking(port: int, after_bytes: int) -> Iterator[tuple[int, list[int]]]:
    """A way to a server on which every connection breaks after so many bytes; gives its port, and a list of breaks."""
    breaks: list[int] = []

    def carry(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as upstream, suppress(OSError):
            threading.Thread(target=forward, args=(client, upstream), daemon=True).start()
            carried = 0
            while carried < after_bytes:
                data = upstream.recv(min(1 << 16, after_bytes - carried))
                if not data:
                    return
                client.sendall(data)
                carried += len(data)
            breaks.append(carried)
            client.shutdown(socket.SHUT_RDWR)

    def forward(client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                upstream.sendall(data)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1], breaks
        listening.shutdown(socket.SHUT_RDWR)


def test_a_broken_transfer_goes_on_where_it_broke(served: Served) -> None:
    with breaking(served.server.port, after_bytes=3 * MEGABYTE) as (port, breaks):
        options = {**served.options(), "source": f"https://127.0.0.1:{port}/open/"}
        result = succeed("haku_sync", **options)
    assert len(breaks) >= 6
    assert result["bytes_read"] < 21 * MEGABYTE, "nothing was transferred twice"
    assert served.environment.run_image("cat /greeting; stat -c %s /large").split() == ["two", str(20 * MEGABYTE)]


def test_memory_does_not_grow_with_what_is_transferred(served: Served) -> None:
    result, peak_bytes = peak_memory("haku_sync", **served.options(), delta="never")
    assert result["bytes_read"] > 20 * MEGABYTE
    assert peak_bytes < 100_000_000


def test_versions_are_listed_from_a_server_as_from_the_directory(served: Served) -> None:
    options = served.options()
    source = {key: options[key] for key in ("name", "source", "source_ca_path")}
    by_web = converge("haku_tar_info", **source).first["environments"][served.environment.name]
    directory: dict[str, Any] = {"name": served.environment.name, "shared_dir": str(served.environment.shared)}
    by_directory = succeed("haku_tar_info", **directory)["environments"][served.environment.name]
    server = served.server.url("open")
    assert by_web == json.loads(json.dumps(by_directory).replace(str(served.environment.tarballs), server))
    assert [version["timestamp"] for version in by_web["all_versions"]] == [served.newer, served.older]
    assert succeed("haku_tar_info", **source | {"name": "other"})["environments"] == {}
    (served.environment.tarballs / "catalogue.json").unlink()
    unsized = succeed("haku_tar_info", **source | {"name": None})["environments"][served.environment.name]
    assert [version["size"] for version in unsized["all_versions"]] == [None, None]
    assert "shared_dir, source" in fail("haku_tar_info")
    assert "mutually exclusive" in fail("haku_tar_info", **source, shared_dir="/shared")


def test_what_is_the_newest_can_be_asked_of_a_server(served: Served) -> None:
    def seen(**options: Any) -> tuple[Any, ...]:
        described = succeed("haku_sync_info", **served.options(), **options)["environments"][served.environment.name]
        return tuple(described[key] for key in ("version", "newest_version", "stale"))

    assert seen() == (None, served.newer, True)
    succeed("haku_sync", **served.options(), version=served.older)
    assert seen() == (served.older, served.newer, True)
    succeed("haku_sync", **served.options())
    served.server.take_log()
    assert seen() == (served.newer, served.newer, False)
    assert [path for path, _status, _size in served.server.take_log()] == ["/open/catalogue.json"]
    refused = run_module("haku_tar_info", source="https://127.0.0.1:1/x?sig=s3cret")
    assert refused["failed"]
    assert "s3cret" not in json.dumps(refused)


def test_removing_the_image_needs_no_source(served: Served) -> None:
    succeed("haku_sync", **served.options())
    here: dict[str, Any] = {"name": served.environment.name, "docker_host": served.environment.engine.url}
    assert converge("haku_sync", **here, state="absent").first["action"] == "remove"
    assert "shared_dir, source" in fail("haku_sync", **here)
    assert "mutually exclusive" in fail("haku_sync", **served.options(), shared_dir="/shared")
