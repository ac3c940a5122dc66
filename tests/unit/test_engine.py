# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's class where its own threads matter, with a client that does what it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError


class Client:
    """An engine's client on which stopping a container takes until the container is let go."""

    def __init__(self, *containers: str) -> None:
        self.timeout = 60
        self.asked = {container: threading.Event() for container in containers}
        self.let_go = {container: threading.Event() for container in containers}

    def stop(self, container: str, timeout: int) -> None:
        """Stop a container."""
        self.asked[container].set()
        assert self.let_go[container].wait(timeout)


class Logs:
    """A client of an engine where each container has this log."""

    def __init__(self, log: bytes) -> None:
        self._log = log

    def logs(self, _container: str, **_options: object) -> bytes:
        """Read it."""
        return self._log


class Loads:
    """A client that takes what is loaded."""

    timeout = 60

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def load_image(self, data: Iterable[bytes], **_options: Any) -> Iterator[dict[str, str]]:
        self._sent.extend(data)
        return iter(())


def test_long_calls_at_once_leave_the_time_limit_as_it_was() -> None:
    client = Client("first", "second")
    engine = Engine(client, "unix:///engine", reopen=lambda: engine)
    with ThreadPoolExecutor() as pool:
        stopping = {}
        for container in client.asked:
            stopping[container] = pool.submit(engine.stop, container, 30)
            assert client.asked[container].wait(30)
        for container in client.asked:
            assert client.timeout > 3600
            client.let_go[container].set()
            stopping[container].result()
    assert client.timeout == 60


@pytest.mark.parametrize(
    ("url", "sdk", "requests", "refused"),
    [
        ("unix:///run/docker.sock", "5.0.3", "2.28.2", False),
        ("unix:///run/docker.sock", "5.0.3", "2.31.0", True),
        ("ssh://host", "6.0.1", "2.29.0", True),
        ("tcp://host:2376", "5.0.3", "2.31.0", False),
        ("unix:///run/docker.sock", "6.1.0", "2.31.0", False),
        ("unix:///run/docker.sock", "7.1.0", "2.32.4", False),
    ],
)
def test_libraries_that_cannot_send_a_stream_together_are_named(
    monkeypatch: pytest.MonkeyPatch, url: str, sdk: str, requests: str, refused: bool
) -> None:
    monkeypatch.setattr("docker.__version__", sdk)
    monkeypatch.setattr("requests.__version__", requests)
    sent: list[bytes] = []
    engine = Engine(Loads(sent), url, reopen=lambda: engine)
    with pytest.raises(HakuError, match=f"Docker SDK {sdk} .* requests {requests}") if refused else nullcontext():
        engine.load([b"tarball"], "my-env")
    assert sent == ([] if refused else [b"tarball"])


def test_the_end_of_a_log_keeps_the_indentation_of_its_first_line() -> None:
    client = Logs(b"\r\n    at Main()\r\n  at Run()  \r\n\r\n")
    engine = Engine(client, "here", reopen=lambda: engine)
    assert engine.last_words("server", 3) == "    at Main()\r\n  at Run()"
