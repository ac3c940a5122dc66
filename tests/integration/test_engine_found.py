# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where nobody names an engine, the usual places are tried in turn, on a machine whose own socket is out of sight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.modules import Result, run_module
from tests.lab.engines import Engine
from tests.lab.relay import relay

# /var/run is a link to /run; nobody else sees this mount.
WITHOUT_SOCKET = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
UNNAMED = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "", "XDG_RUNTIME_DIR": "", "HOME": "/nonexistent"}


def ask(**options: Any) -> Result:
    return run_module("haku_container_info", within=WITHOUT_SOCKET, environment=UNNAMED, **options)


@pytest.fixture
def plain_port(engines: dict[str, Engine]) -> Iterator[None]:
    """Have an engine answer at tcp://localhost:2375, through a relay to its socket."""
    with relay(engines["d28"].socket, 2375):
        yield


def test_if_none_answers_every_attempt_is_listed_with_its_cause(engines: dict[str, Engine]) -> None:
    result = ask()
    assert result["failed"]
    sentence = result["msg"]
    assert sentence.startswith("No container engine answers: ")
    attempts = ["unix:///var/run/docker.sock", "tcp://localhost:2376", "tcp://localhost:2375"]
    positions = [sentence.index(attempt) for attempt in attempts]
    assert positions == sorted(positions)
    assert "unix:///var/run/docker.sock (the default socket): No such file or directory" in sentence
    assert sentence.count("Connection refused") == 2
    assert "systemctl start docker" in sentence


def test_a_plain_local_port_is_used_with_a_warning(plain_port: None) -> None:
    result = ask()
    assert not result.get("failed"), result
    assert "tcp://localhost:2375 unencrypted" in str(result["warnings"])


def test_what_the_user_names_is_the_only_place_tried(plain_port: None) -> None:
    result = ask(docker_host="tcp://localhost:2374")
    assert result["failed"]
    assert "tcp://localhost:2374 (as named)" in result["msg"]
    assert "2375" not in result["msg"]
