# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server on the loopback address: nginx, with TLS by an authority of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .host import Daemon, require, run, wait_until

USERNAME, PASSWORD = "runner", "s3cret/:word"

_CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
  log_format short '$uri $status $body_bytes_sent';
  access_log {directory}/access.log short;
  client_body_temp_path {directory}/temporary;
  proxy_temp_path {directory}/temporary;
  fastcgi_temp_path {directory}/temporary;
  uwsgi_temp_path {directory}/temporary;
  scgi_temp_path {directory}/temporary;
  server {{
    listen 127.0.0.1:{port} ssl;
    listen 127.0.0.1:{plain_port};
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.key;
    location /open/ {{ alias {root}/; autoindex on; }}
    location /unlisted/ {{ alias {root}/; }}
    location /whole/ {{ alias {root}/; autoindex on; max_ranges 0; }}
    location /closed/ {{
      alias {root}/;
      auth_basic "haku";
      auth_basic_user_file {directory}/passwords;
    }}
    location /broken/ {{ return 503; }}
    location /downgraded/ {{ return 302 http://127.0.0.1:{plain_port}/open/$uri; }}
  }}
}}
"""


@dataclass(frozen=True)
class Webserver:
    """A running server. Below its address, `/open/` and others, see the configuration, are the same directory."""

    directory: Path
    port: int
    plain_port: int

    @property
    def ca_path(self) -> Path:
        """The authority that signed its certificate."""
        return self.directory / "ca.pem"

    def url(self, path: str) -> str:
        """The address of a path, with TLS."""
        return f"https://127.0.0.1:{self.port}/{path}"

    def take_log(self) -> list[tuple[str, int, int]]:
        """What was asked for since the last call: path, status, and bytes of the answer's body."""
        path = self.directory / "access.log"
        lines = [line.rsplit(" ", 2) for line in path.read_text().splitlines()]
        path.write_bytes(b"")
        return [(uri, int(status), int(size_bytes)) for uri, status, size_bytes in lines]


@contextmanager
def serving(root: Path, directory: Path) -> Iterator[Webserver]:
    """Serve the files of `root` for the length of the block, with the server's own files in `directory`."""
    require("nginx", "openssl")
    (directory / "temporary").mkdir(parents=True)
    _certify(directory)
    hashed = run("openssl", "passwd", "-apr1", PASSWORD).strip()
    (directory / "passwords").write_text(f"{USERNAME}:{hashed}\n")
    server = Webserver(directory, _free_port(), _free_port())
    configuration = directory / "nginx.conf"
    ports = {"port": server.port, "plain_port": server.plain_port}
    configuration.write_text(_CONFIGURATION.format(root=root, directory=directory, **ports))
    daemon = Daemon("nginx", directory)
    daemon.start("-e", "stderr", "-c", configuration)
    try:
        wait_until(lambda: _accepts(server.port), f"the web server, see {daemon.log}", seconds=30)
        yield server
    finally:
        daemon.stop()


def _certify(directory: Path) -> None:
    """Make an authority, and have it sign a certificate for the loopback address."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
    authority = (directory / "ca.pem", directory / "ca.key")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run(
        *("openssl", "req", "-x509", "-days", "2", "-subj", "/CN=haku lab", *usage),
        *(*new_key, authority[1], "-out", authority[0]),
    )
    request = directory / "server.csr"
    run("openssl", "req", "-subj", "/CN=localhost", *new_key, directory / "server.key", "-out", request)
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n")
    run(
        *("openssl", "x509", "-req", "-days", "2", "-in", request, "-extfile", extensions),
        *("-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial", "-out", directory / "server.pem"),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
