# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine by TCP: a relay on the loopback address to its socket."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Server(socketserver.ThreadingTCPServer):
    """A relay that can be started again at once."""

    allow_reuse_address = True


@contextmanager
def relay(target: Path, port: int = 0) -> Iterator[int]:
    """Let a socket answer at a port, a free one unless it is named, for the length of the block; gives the port."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(target))
                back = threading.Thread(target=_pump, args=(connection, self.request))
                back.start()
                _pump(self.request, connection)
                back.join()

    with _Server(("127.0.0.1", port), Relay) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
