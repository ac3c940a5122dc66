# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's class where its own threads matter, with a client that does what it is told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.haku.river.plugins.module_utils.engine import Engine


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


def test_the_end_of_a_log_keeps_the_indentation_of_its_first_line() -> None:
    client = Logs(b"\r\n    at Main()\r\n  at Run()  \r\n\r\n")
    engine = Engine(client, "here", reopen=lambda: engine)
    assert engine.last_words("server", 3) == "    at Main()\r\n  at Run()"
