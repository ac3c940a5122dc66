# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What answers at a port and is no SSH server is told, whatever it says. Real servers are in tests/integration."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from ansible_collections.haku.river.plugins.module_utils.ssh_handshake import NoAnswer, host_key

BANNER = b"Welcome\r\nSSH-2.0-Something\r\n"


@contextmanager
def answering(*words: bytes) -> Iterator[int]:
    """Be a server that says this to whoever comes, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            # Whoever hears nonsense does not hear it to its end.
            with connection, suppress(OSError):
                connection.sendall(b"".join(words))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def packet(payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload) + 1, 0) + payload


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "closed the connection before it said anything"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "closed the connection before it said anything"),
        ((b"\0\xff" * 100_000,), "does not speak SSH"),
        ((b"hello\r\n" * 1000,), "does not speak SSH"),
        ((BANNER,), "in the middle of the key exchange"),
        ((BANNER, b"\xff\xff\xff\xff\x04"), "a packet of 4294967295 bytes"),
        ((BANNER, b"\0\0\0\0\0"), "a packet of 0 bytes"),
        ((BANNER, packet(b"")), "a packet of 1 bytes"),
        ((BANNER, packet(bytes([20]) + bytes(15))), "does not speak SSH"),
        ((BANNER, packet(bytes([20]) + bytes(16) + b"\xff\xff\xff\xffx")), "a message that is cut off"),
        ((BANNER, packet(bytes([20]) + bytes(16) + string(b"rot13"))), "exchanges keys only by rot13"),
        ((BANNER, packet(bytes([50]))), "a message of kind 50"),
        ((BANNER, packet(bytes([1, 0, 0, 0, 2]) + string(b"Too many") + string(b""))), "refuses: Too many"),
    ],
)
def test_what_is_no_ssh_server_is_told(words: tuple[bytes, ...], complaint: str) -> None:
    with answering(*words) as port, pytest.raises(NoAnswer, match=complaint):
        host_key("127.0.0.1", port, 5)


def test_the_host_key_is_taken_from_the_answer_whatever_harmless_comes_before() -> None:
    proposal = packet(bytes([20]) + bytes(16) + string(b"unknown,ecdh-sha2-nistp256"))
    reply = packet(bytes([31]) + string(b"the key") + string(b"its half") + string(b"its signature"))
    ignored = packet(bytes([2]) + string(b"ignored"))
    with answering(BANNER, ignored, proposal, ignored, reply) as port:
        assert host_key("127.0.0.1", port, 5) == b"the key"


def test_a_port_at_which_nobody_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswer, match="refused"):
        host_key("127.0.0.1", port, 5)
