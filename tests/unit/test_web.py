# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of what a web server has comes whole, or is asked for again, or is an error."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils import web
from ansible_collections.haku.river.plugins.module_utils.web import SourceError, WebCatalogue, WebSettings
from urllib3.connection import HTTPConnection

CATALOGUE = json.dumps({"environments": {"env": [{"timestamp": 900, "size": 1}, {"timestamp": 800, "size": 1}]}})


@contextmanager
def serving(content: bytes, breaks: int, encoding: str = "") -> Iterator[tuple[WebCatalogue, list[str]]]:
    """A server's catalogue, of which the first `breaks` answers end half way; gives it, and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if encoding:
                self.send_header("Content-Encoding", encoding)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if len(asked) <= breaks else content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its own name for it
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield WebCatalogue(WebSettings(f"http://127.0.0.1:{server.server_port}/")), asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["urllib3 2", "urllib3 1.26"])
def _either_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older one does not compare what came with Content-Length; nobody waits."""
    monkeypatch.setattr(web, "_PAUSES_SECONDS", (0.0, 0.0))
    if request.param == "urllib3 1.26":
        ask = HTTPConnection.request
        unminding = {"enforce_content_length": False}
        monkeypatch.setattr(HTTPConnection, "request", lambda *args, **how: ask(*args, **{**how, **unminding}))


@pytest.mark.usefixtures("_either_library")
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_list_that_breaks_is_read_again(encoding: str) -> None:
    content = gzip.compress(CATALOGUE.encode()) if encoding else CATALOGUE.encode()
    with serving(content, 2, encoding) as (catalogue, asked):
        assert [version.timestamp for version in catalogue.versions("env")] == [900, 800]
    assert asked == ["/catalogue.json"] * 3


@pytest.mark.usefixtures("_either_library")
def test_a_list_that_never_comes_whole_is_said() -> None:
    with serving(CATALOGUE.encode(), 9) as (catalogue, asked):
        with pytest.raises(SourceError, match=r"Cannot read http://127\.0\.0\.1:\d+/catalogue\.json"):
            catalogue.versions("env")
        assert len(asked) == 3
