# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The beginning of an SSH connection, as far as the server's host key: proof that a server answers, and which one.

It takes no cryptography of ours. Whoever only wants to hear the server's key needs no secret, so the public half that
is sent is a point that everybody knows, and nothing is sent after the server's answer. Whether the answer is genuine
is told by comparing the key with one that was read another way.

RFC 4253 (transport), RFC 5656 (ecdh-sha2-nistp256), RFC 8731 (curve25519-sha256).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_BANNER = b"SSH-2.0-haku.river\r\n"
_DISCONNECT, _KEXINIT, _ECDH_INIT, _ECDH_REPLY = 1, 20, 30, 31
_HARMLESS = (2, 3, 4)  # ignore, unimplemented, debug
_BLOCK = 8
# RFC 4253, 6.1 and 4.2: what an implementation has to take; what a server says before its banner is up to it.
_PACKET_MAX = 35_000
_LINE_MAX = 255
_LINES_MAX = 50

# The base points of the curves: u = 9 of X25519, and G of P-256 (SEC 2, 2.4.2) uncompressed.
_U9 = bytes([9]) + bytes(31)
_G = bytes.fromhex(
    "04"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
_EXCHANGES = {"curve25519-sha256": _U9, "curve25519-sha256@libssh.org": _U9, "ecdh-sha2-nistp256": _G}
_KEYS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)
# Never used, but no exchange begins without an agreement on them.
_CIPHERS = ("aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_MACS = ("hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com", "hmac-sha1")


class NoAnswer(Exception):
    """There is no SSH server, or none yet; the message says what there is instead."""


def host_key(address: str, port: int, timeout_seconds: float) -> bytes:
    """The host key of the SSH server at that place, as the blob that known_hosts has in base64; or `NoAnswer`."""
    try:
        with socket.create_connection((address, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            return _exchange(connection)
    except OSError as error:
        raise NoAnswer(error.strerror or str(error) or type(error).__name__) from error
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise NoAnswer(f"what answers does not speak SSH: {error}") from error


def _exchange(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        connection.sendall(_BANNER)
        _read_banner(stream)
        connection.sendall(_packet(_proposal()))
        packets = _packets(stream)
        offered = _names(_expect(packets, _KEXINIT), 17)
        method = next((name for name in _EXCHANGES if name in offered), None)
        if method is None:
            raise NoAnswer(f"its SSH server exchanges keys only by {', '.join(offered)}")
        connection.sendall(_packet(bytes([_ECDH_INIT]) + _string(_EXCHANGES[method])))
        reply = _expect(packets, _ECDH_REPLY)
        return _read_string(reply, 1)


def _read_banner(stream: object) -> None:
    for _line in range(_LINES_MAX):
        line: bytes = stream.readline(_LINE_MAX)  # type: ignore[attr-defined]  # what makefile("rb") gives
        if line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            return
        if not line:
            raise NoAnswer("it closed the connection before it said anything of SSH")
    raise NoAnswer("what answers does not speak SSH")


def _proposal() -> bytes:
    """RFC 4253, 7.1."""
    both_ways = (_CIPHERS, _CIPHERS, _MACS, _MACS, ("none",), ("none",), (), ())
    lists = (tuple(_EXCHANGES), _KEYS, *both_ways)
    names = b"".join(_string(",".join(names).encode()) for names in lists)
    return bytes([_KEXINIT]) + os.urandom(16) + names + bytes(5)


def _packet(payload: bytes) -> bytes:
    """RFC 4253, 6: before any keys, without a MAC."""
    padding = _BLOCK - (5 + len(payload)) % _BLOCK
    padding += _BLOCK if padding < 4 else 0
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def _packets(stream: object) -> Iterator[bytes]:
    while True:
        length, padding = struct.unpack(">IB", _read(stream, 5))
        if not padding + 1 < length <= _PACKET_MAX:
            raise ValueError(f"a packet of {length} bytes")
        yield _read(stream, length - 1)[: length - 1 - padding]


def _read(stream: object, size: int) -> bytes:
    data: bytes = stream.read(size)  # type: ignore[attr-defined]  # what makefile("rb") gives
    if len(data) < size:
        raise NoAnswer("it closed the connection in the middle of the key exchange")
    return data


def _expect(packets: Iterator[bytes], kind: int) -> bytes:
    for packet in packets:
        if packet[0] == kind:
            return packet
        if packet[0] == _DISCONNECT:
            raise NoAnswer(f"its SSH server refuses: {_read_string(packet, 5).decode(errors='replace')}")
        if packet[0] not in _HARMLESS:
            raise ValueError(f"a message of kind {packet[0]}")
    raise NoAnswer("it fell silent")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _read_string(packet: bytes, offset: int) -> bytes:
    (length,) = struct.unpack_from(">I", packet, offset)
    data = packet[offset + 4 : offset + 4 + length]
    if len(data) < length:
        raise ValueError("a message that is cut off")
    return data


def _names(packet: bytes, offset: int) -> list[str]:
    return _read_string(packet, offset).decode("ascii").split(",")
