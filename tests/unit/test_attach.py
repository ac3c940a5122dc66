# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attaching to what does not answer as an engine does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
from ansible_collections.haku.river.plugins.module_utils.attach import attach
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError


class Interface(EngineInterface):
    """The interface to an engine that nobody has looked for."""

    def get_interface_type(self) -> str:
        """What it calls itself."""
        return "docker"


@contextmanager
def engine_that_says(folder: Path, pieces: list[bytes], pause_seconds: float = 0) -> Iterator[Engine]:
    """An engine that answers whatever it is asked with these pieces, and then no more."""
    path = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as connections:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection = connections.enter_context(listener.accept()[0])
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause_seconds)

        threading.Thread(target=serve, daemon=True).start()
        url = f"unix://{path}"
        engine = Engine(docker.APIClient(url, version="1.41"), url, reopen=lambda: engine)
        yield engine


def test_what_does_not_speak_http_is_an_error_in_its_words(tmp_path: Path) -> None:
    with (
        engine_that_says(tmp_path, [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"]) as engine,
        pytest.raises(EngineError, match=r"Cannot attach to container cid: .*not speak HTTP: 'SSH-2.0-OpenSSH_9.2'"),
    ):
        attach(engine, "cid", has_terminal=True, seconds=5)


def test_an_engine_that_answers_by_and_by_has_no_more_time_for_it(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        engine_that_says(tmp_path, [b"H"] * 20, pause_seconds=0.5) as engine,
        pytest.raises(EngineError, match="Cannot attach to container cid"),
    ):
        attach(engine, "cid", has_terminal=True, seconds=1)
    assert time.monotonic() - began < 3


def test_a_command_has_no_more_time_where_the_engine_does_not_answer(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        engine_that_says(tmp_path, []) as engine,
        Interface(engine, ()) as interface,
        pytest.raises(EngineError, match="Cannot inspect container server: "),
    ):
        interface.execute_command("server", "status", timeout=1)
    assert time.monotonic() - began < 3
