# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to a process in a container, both ways: what `docker attach` and `docker exec` do over the engine's API.

The Docker SDK has this too, but loses what comes in the same packet as the engine's answer, which breaks frames.
"""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.engine_words import own_words
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError

_CHUNK_BYTES = 1 << 16
_HEAD_MAX_BYTES = 1 << 16
_TICK_SECONDS = 0.1
# The engine's frames, see its API's documentation of "attach": the stream, three zeros, the length.
_FRAME = struct.Struct(">BxxxL")
STDOUT, STDERR = 1, 2
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamEnded(EngineError):
    """The process, its container or its engine is gone."""


class Stream:
    """What a process writes, read by a thread of its own, and what is written to it.

    The thread always reads: an engine stops a process whose output somebody is attached to and does not take. What
    comes while nobody listens is dropped. `framed` says whether standard output and error come apart, as they do
    without a terminal; else all is standard output.
    """

    def __init__(self, connection: socket.socket, url: str, framed: bool, already: bytes = b"") -> None:
        self._connection = connection
        self._url = url
        self._framed = framed
        self._unread = bytearray(already)
        self._pieces: list[tuple[int, bytes]] = []
        self._listening = True
        self._ended: str | None = None
        # TLS connections must not be read and written at the same time.
        self._turn = threading.Lock()
        self._news = threading.Condition()
        connection.setblocking(False)
        self._thread = threading.Thread(target=self._read, name=f"attached to {url}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended is not None

    def listen(self, listening: bool = True) -> None:
        """Forget what has come; keep what comes from now on, or drop it."""
        with self._news:
            self._listening = listening
            self._pieces.clear()

    def receive(self, seconds: float) -> list[tuple[int, bytes]]:
        """What has come, each piece with its stream, after waiting for `seconds` at most; raises `StreamEnded`."""
        with self._news:
            self._news.wait_for(lambda: self._pieces or self.ended, max(seconds, 0))
            pieces, self._pieces = self._pieces, []
            if not pieces and self._ended is not None:
                raise StreamEnded("The connection to the container has ended", where=self._url, cause=self._ended)
            return pieces

    def send(self, data: bytes, seconds: float) -> None:
        """Write to the process's standard input; raises `EngineError` if it cannot be done in time."""
        deadline = time.monotonic() + seconds
        while data:
            try:
                with self._turn:
                    sent = self._connection.send(data)
            except _WOULD_BLOCK:
                if time.monotonic() > deadline:
                    raise EngineError(
                        "The container does not read its standard input",
                        where=self._url,
                        cause=f"nothing could be written for {seconds:.0f} s",
                    ) from None
                _wait(self._connection, select.POLLOUT, _TICK_SECONDS)
            except OSError as error:
                raise StreamEnded(
                    "The connection to the container has ended", where=self._url, cause=own_words(error)
                ) from error
            else:
                data = data[sent:]

    def close(self) -> None:
        """Leave; the process stays."""
        with self._turn, suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()

    def _read(self) -> None:
        reason = "it was closed"
        try:
            self._take(b"")
            while True:
                try:
                    with self._turn:
                        data = self._connection.recv(_CHUNK_BYTES)
                except _WOULD_BLOCK:
                    _wait(self._connection, select.POLLIN, None)
                    continue
                if not data:
                    break
                self._take(data)
        except (OSError, ValueError) as error:
            reason = own_words(error)
        with self._news:
            self._ended = reason
            self._news.notify_all()

    def _take(self, data: bytes) -> None:
        pieces = self._split(data) if self._framed else [(STDOUT, bytes(self._unread) + data)]
        if not self._framed:
            self._unread.clear()
        with self._news:
            if self._listening:
                self._pieces += [piece for piece in pieces if piece[1]]
                self._news.notify_all()

    def _split(self, data: bytes) -> list[tuple[int, bytes]]:
        self._unread += data
        pieces = []
        while len(self._unread) >= _FRAME.size:
            kind, length = _FRAME.unpack_from(self._unread)
            end = _FRAME.size + length
            if len(self._unread) < end:
                break
            pieces.append((kind, bytes(self._unread[_FRAME.size : end])))
            del self._unread[:end]
        return pieces


def attach(engine: Engine, container_id: str, has_terminal: bool, seconds: float) -> Stream:
    """Attach to a container's main process, in that time. What it wrote before does not come."""
    query = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1", "logs": "0"}
    path = _path(engine, "/containers/{0}/attach", container_id) + "?" + urlencode(query)
    # No body: Podman types it into the console.
    return _upgrade(engine, path, None, f"attach to container {container_id[:12]}", seconds, framed=not has_terminal)


def start_exec(engine: Engine, exec_id: str, seconds: float) -> Stream:
    """Start a program that was made ready with `POST /containers/{id}/exec`, and attach to it."""
    body = {"Detach": False, "Tty": False}
    return _upgrade(engine, _path(engine, "/exec/{0}/start", exec_id), body, "start the program", seconds, framed=True)


def _path(engine: Engine, template: str, identity: str) -> str:
    return urlsplit(str(engine.client._url(template, identity))).path


def _upgrade(
    engine: Engine, path: str, body: Mapping[str, Any] | None, what: str, seconds: float, framed: bool
) -> Stream:
    """Ask for a connection that stops being HTTP once the engine has answered."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    deadline = time.monotonic() + seconds
    with engine.saying(f"Cannot {what}"):
        connection = _dial(engine, deadline)
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(head.encode() + content)
            status, rest = _answer(connection, deadline)
            if status in (101, 200):
                return Stream(connection, engine.url, framed, rest)
            refusal = _refusal(connection, rest)
        except BaseException:
            connection.close()
            raise
        connection.close()
    raise EngineError(f"Cannot {what}", where=engine.url, cause=refusal)


def _left(deadline: float) -> float:
    """How long the next step may take."""
    return max(deadline - time.monotonic(), _TICK_SECONDS)


def _dial(engine: Engine, deadline: float) -> socket.socket:
    """Connect to the engine as its client does."""
    client = engine.client
    address = urlsplit(client.base_url)
    if address.scheme in ("http", "https"):
        connection = socket.create_connection((address.hostname, address.port), _left(deadline))
        connection.settimeout(_left(deadline))
        return _with_tls(client, connection, address.hostname or "") if address.scheme == "https" else connection
    scheme, _colon, path = engine.url.partition(":")
    if scheme not in ("unix", "http+unix"):
        raise EngineError(
            "A console needs a connection that both sides can speak on at any time",
            where=engine.url,
            cause=f"{scheme}: is not one here",
            remedy="Run this on the engine's machine, or use a tcp: address with TLS",
        )
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_left(deadline))
    try:
        connection.connect("/" + path.lstrip("/"))
    except OSError:
        connection.close()
        raise
    return connection


def _with_tls(client: Any, connection: socket.socket, host_name: str) -> ssl.SSLSocket:
    """Do what the SDK's client does with its settings: `verify` is a bool or the authorities' file."""
    context = ssl.create_default_context(cafile=client.verify if isinstance(client.verify, str) else None)
    if not client.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client.cert:
        context.load_cert_chain(*client.cert)
    asserted = getattr(client.get_adapter("https://"), "assert_hostname", None)
    return context.wrap_socket(connection, server_hostname=asserted or host_name)


def _answer(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """The status of an HTTP answer, and what has come after its head."""
    read = b""
    while b"\r\n\r\n" not in read:
        connection.settimeout(_left(deadline))
        data = connection.recv(_CHUNK_BYTES)
        if not data or len(read) > _HEAD_MAX_BYTES:
            raise OSError("the engine ended the connection without an answer")
        read += data
    head, _blank, rest = read.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/\S+ (\d{3})\b", head)
    if not status:
        raise OSError(f"what answers does not speak HTTP: {head[:100].decode(errors='replace')!r}")
    return int(status[1]), rest


def _refusal(connection: socket.socket, rest: bytes) -> str:
    """The engine's own words in the body of an answer; the connection may stay open after it."""
    connection.settimeout(1)
    with suppress(OSError):
        while b"}" not in rest and (data := connection.recv(_CHUNK_BYTES)):
            rest += data
    text = rest[rest.find(b"{") : rest.rfind(b"}") + 1] or rest
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()


def _wait(connection: socket.socket, event: int, seconds: float | None) -> None:
    poll = select.poll()
    poll.register(connection, event)
    poll.poll(None if seconds is None else seconds * 1000)
