# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tarballs on a web server: a static one, or an object store, that answers Range requests.

What there is, `catalogue.json` tells, which packaging keeps, or the server's own index of the directory. Of a tarball
only the index and the layers that are asked for are transferred.

Formats: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests
"""

from __future__ import annotations

import errno
import html
import itertools
import json
import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES
from ansible_collections.haku.river.plugins.module_utils.archive import Archive
from ansible_collections.haku.river.plugins.module_utils.catalogue import INDEX_NAME
from ansible_collections.haku.river.plugins.module_utils.engine_words import own_words
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError, Vanished
from ansible_collections.haku.river.plugins.module_utils.names import TarballName, parse_tarball_name

try:
    from requests import PreparedRequest, Response, Session
    from requests.exceptions import ProxyError, RequestException, SSLError
    from urllib3 import disable_warnings
    from urllib3.exceptions import HTTPError, InsecureRequestWarning
except ImportError as error:
    REQUESTS_MISSING: str | None = str(error)
    ProxyError = RequestException = OSError  # type: ignore[misc,assignment]  # no type for a stand-in
    SSLError = HTTPError = OSError  # type: ignore[misc,assignment]  # no type for a stand-in
    Session = object  # type: ignore[misc,assignment]  # no type for a stand-in
else:
    REQUESTS_MISSING = None

# A tarball ends with its index, and what is read of it before are headers of 512 bytes.
_TAIL_BYTES = 32 << 10
_HEADER_BYTES = 2 << 10
_MAX_LIST_BYTES = 64 << 20
_TIMEOUTS_SECONDS = (10, 60)
# Waits between tries. Bytes that arrive begin the count anew, so a long transfer may break many times.
_PAUSES_SECONDS = (0.2, 1.0, 3.0, 6.0)
# What the HTTP library puts before the kernel's words.
_CONNECTING = re.compile(r".*Failed to establish a new connection: (?:\[Errno -?\d+\] )?")
_LINK = re.compile(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)


class SourceError(HakuError):
    """The web server cannot be reached, or does not give what it is asked for."""


@dataclass(frozen=True)
class WebSettings:
    """What the user said about the web server: the values of `source.WEB_OPTIONS`."""

    source: str
    source_ca_path: str | None = None
    source_validate_certs: bool = True
    source_username: str | None = None
    source_password: str | None = field(default=None, repr=False)
    source_headers: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def address(self) -> SplitResult:
        """The parts of the address; `HakuError` if it is none."""
        try:
            address = urlsplit(self.source)
            usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
        except ValueError:
            usable = False
        if not usable:
            remedy = "Write it as https://server/hakuriver-containers/"
            raise HakuError("source is not the address of a web server", remedy=remedy)
        return address

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User name and password, by option or else from the address."""
        username = self.source_username or unquote(self.address.username or "")
        password = self.source_password or unquote(self.address.password or "")
        return (username, password) if username or password else None

    @property
    def secrets(self) -> frozenset[str]:
        """What in the address nobody may see: the password, and the query, which signs addresses of object stores."""
        address = self.address
        return frozenset(filter(None, (address.password, unquote(address.password or ""), address.query)))


@dataclass(frozen=True)
class WebVersion:
    """A published tarball of an environment on a web server."""

    environment: str
    timestamp: int
    location: str
    size_bytes: int | None

    @property
    def file_name(self) -> str:
        """The tarball's name in its directory."""
        return str(TarballName(self.environment, self.timestamp))


class WebCatalogue:
    """The tarballs in a directory of a web server."""

    identity: str | None = None
    """It has an address, and needs no other mark."""

    def __init__(self, settings: WebSettings) -> None:
        if REQUESTS_MISSING:
            raise HakuError(
                f"The Python library requests is missing for {sys.executable}",
                cause=REQUESTS_MISSING,
                remedy="Install the package python3-requests, or run: pip install requests",
            )
        self._site = _Site(settings)
        self.location = self._site.shown("")
        self.warnings = self._site.warnings

    def environments(self) -> dict[str, tuple[WebVersion, ...]]:
        """Every environment that has a version, by name, each newest first."""
        sizes = self._sizes()
        names = sorted(sizes, key=lambda name: (name.environment, -name.timestamp))
        return {
            environment: tuple(self._version(name, sizes[name]) for name in newest_first)
            for environment, newest_first in itertools.groupby(names, key=lambda name: name.environment)
        }

    def versions(self, environment: str) -> tuple[WebVersion, ...]:
        """All versions of one environment, newest first."""
        return self.environments().get(environment, ())

    def find(self, environment: str, timestamp: int) -> WebVersion | None:
        """A version that the server lists by now."""
        return next((version for version in self.versions(environment) if version.timestamp == timestamp), None)

    @contextmanager
    def open(self, version: WebVersion) -> Iterator[Archive]:
        """Open a version's tarball and read its index; `Vanished` if it is not there any more."""
        yield Archive(WebFile(self._site, version.file_name), version.location)

    def _version(self, name: TarballName, size_bytes: int | None) -> WebVersion:
        return WebVersion(name.environment, name.timestamp, self._site.shown(str(name)), size_bytes)

    def _sizes(self) -> dict[TarballName, int | None]:
        """The tarballs that the server has, by what `haku_tar` wrote down or else by the server's own index.

        That index does not tell sizes.
        """
        # An object store that may not be listed says 403 of a key that is not there.
        document = self._site.document(INDEX_NAME, unless=(403, 404, 410))
        if document is not None:
            return self._listed(document)
        index = self._site.document("", unless=(403, 404, 410))
        if index is None:
            raise SourceError(
                f"{self.location} has neither {INDEX_NAME} nor an index of the directory",
                where=self.location,
                remedy=f"Correct the address; package once more, which writes {INDEX_NAME}; or let the server list "
                "the directory (nginx: autoindex on)",
            )
        links = (html.unescape(double or single) for double, single in _LINK.findall(index.decode(errors="replace")))
        names = (parse_tarball_name(unquote(urlsplit(link).path).rpartition("/")[2]) for link in links)
        return {name: None for name in names if name}

    def _listed(self, document: bytes) -> dict[TarballName, int | None]:
        try:
            environments = json.loads(document)["environments"]
            sizes = {
                parse_tarball_name(f"{environment}-{version['timestamp']}.tar"): int(version["size"])
                for environment, versions in environments.items()
                for version in versions
            }
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise SourceError(
                f"{self._site.shown(INDEX_NAME)} is not what haku_tar writes",
                where=self._site.shown(INDEX_NAME),
                cause=str(error),
                remedy="Package once more, which writes it anew",
            ) from error
        return {name: size_bytes for name, size_bytes in sizes.items() if name}


class WebFile:
    """A tarball on a web server, as `archive.RandomAccess`.

    What is read first is remembered by its ETag or time, so a file that is replaced meanwhile is `Vanished`.
    """

    def __init__(self, site: _Site, name: str) -> None:
        self._site = site
        self._name = name
        self.bytes_read = 0
        self._validator = ""
        with self._partial(f"bytes=-{_TAIL_BYTES}") as response:
            start, end, self.size_bytes = self._extent(response)
            self._validator = _validator(response)
            tail = b"".join(self._pieces(response, []))
        self._blocks = [(start, tail + b"".join(self.chunks(start + len(tail), end - start - len(tail))))]

    def fileno(self) -> int:
        """There is none."""
        raise OSError(errno.ENOTSUP, "a file on a web server has no descriptor")

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """A few bytes, all at once."""
        size_bytes = max(min(size_bytes, self.size_bytes - offset), 0)
        for start, block in self._blocks:
            if start <= offset and offset + size_bytes <= start + len(block):
                return block[offset - start : offset - start + size_bytes]
        wanted = min(max(size_bytes, _HEADER_BYTES), self.size_bytes - offset)
        block = b"".join(self.chunks(offset, wanted))
        self._blocks.append((offset, block))
        return block[:size_bytes]

    def chunks(self, offset: int, size_bytes: int) -> Generator[bytes, None, None]:
        """Many bytes, one bounded piece after the other; a transfer that breaks goes on where it broke."""
        end = min(offset + size_bytes, self.size_bytes)
        pauses = iter(_PAUSES_SECONDS)
        while offset < end:
            failures: list[Exception] = []
            with self._partial(f"bytes={offset}-{end - 1}") as response:
                if self._extent(response) != (offset, end, self.size_bytes) or _validator(response) != self._validator:
                    raise self._replaced()
                for piece in self._pieces(response, failures):
                    offset += len(piece)
                    pauses = iter(_PAUSES_SECONDS)
                    yield piece
            if offset < end:
                self._site.pause(pauses, self._name, next(iter(failures), None))

    def _pieces(self, response: Response, failures: list[Exception]) -> Iterator[bytes]:
        """What comes, to its end, where the connection can serve the next request; why it broke goes to `failures`."""
        try:
            for piece in response.raw.stream(CHUNK_BYTES, decode_content=False):
                self.bytes_read += len(piece)
                yield piece
        except (HTTPError, RequestException, OSError) as error:
            failures.append(error)

    def _partial(self, wanted: str) -> Response:
        headers = {"Range": wanted}
        if self._validator and not self._validator.startswith("W/"):
            headers["If-Range"] = self._validator
        response = self._site.get(self._name, headers)
        if response.status_code in (404, 410, 416):
            raise self._replaced()
        if response.status_code == 200:
            response.close()
            if self._validator:
                raise self._replaced()
            raise SourceError(
                f"The web server does not answer Range requests for {self._site.shown(self._name)}",
                where=self._site.shown(self._name),
                cause="it sends the whole file when a part is asked for",
                remedy="Serve the directory with one that does: nginx, Apache, Caddy, an object store "
                "(python3 -m http.server does not), without compressing or filtering tarballs",
            )
        self._site.check(response, self._name)
        return response

    def _extent(self, response: Response) -> tuple[int, int, int]:
        """Which part came: its start, its end, and the size of the whole file."""
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if match is None:
            raise SourceError(
                f"The web server does not say which part of {self._site.shown(self._name)} it sends",
                where=self._site.shown(self._name),
                cause=f"its answer has Content-Range {response.headers.get('Content-Range')!r}",
                remedy="Look at what is between this machine and the server (proxies, caches)",
            )
        return int(match[1]), int(match[2]) + 1, int(match[3])

    def _replaced(self) -> Vanished:
        where = self._site.shown(self._name)
        return Vanished(f"{where} was pruned or replaced", where=where, remedy="Try again")


class _Site:
    """The requests to one directory of a web server, and what is said when they fail."""

    def __init__(self, settings: WebSettings) -> None:
        address = settings.address
        host = address.netloc.rpartition("@")[2]
        self._base = urlunsplit((address.scheme, host, address.path.rstrip("/") + "/", "", ""))
        self._query = address.query
        self._has_credentials = bool(settings.credentials or settings.source_headers or self._query)
        self._session = _Session()
        self._session.auth = settings.credentials
        self._session.secret_headers = {name: str(value) for name, value in (settings.source_headers or {}).items()}
        self._session.headers.update({"Accept-Encoding": "identity", **self._session.secret_headers})
        # By request and not by session, where the environment's REQUESTS_CA_BUNDLE would win.
        self._verify: bool | str = settings.source_ca_path or True if settings.source_validate_certs else False
        if self._verify is False:
            disable_warnings(InsecureRequestWarning)
        self.warnings = self._warnings(address.scheme)

    def shown(self, name: str) -> str:
        """The address of a file as people may see it, without user, password and signature."""
        return self._base + name

    def get(self, name: str, headers: Mapping[str, str] | None = None) -> Response:
        """Ask for a file, again if the server is in trouble; the answer may have any status below 500."""
        pauses = iter(_PAUSES_SECONDS)
        while True:
            try:
                response = self._session.get(
                    self._base + quote(name) + (f"?{self._query}" if self._query else ""),
                    headers=dict(headers or {}),
                    stream=True,
                    timeout=_TIMEOUTS_SECONDS,
                    verify=self._verify,
                )
            except (SSLError, ProxyError) as error:
                raise self._unreachable(name, error) from error
            except (RequestException, OSError) as error:
                self.pause(pauses, name, error)
                continue
            if response.status_code < 500 and response.status_code != 429:
                return response
            response.close()
            if not self._pause(pauses):
                self.check(response, name)

    def document(self, name: str, unless: tuple[int, ...]) -> bytes | None:
        """A small file, whole, again if the connection breaks; None if the server answers one of `unless`."""
        pauses = iter(_PAUSES_SECONDS)
        while True:
            failure: Exception | None = None
            with self.get(name) as response:
                if response.status_code in unless:
                    return None
                self.check(response, name)
                try:
                    content: bytes = response.raw.read(_MAX_LIST_BYTES + 1, decode_content=True)
                except (HTTPError, RequestException, OSError) as error:
                    failure = error
                else:
                    if len(content) > _MAX_LIST_BYTES:
                        raise SourceError(
                            f"{self.shown(name)} is larger than a list of tarballs can be", where=self.shown(name)
                        )
                    # Of Content-Length; urllib3 1.26 does not mind what is missing.
                    if not response.raw.length_remaining:
                        return content
            self.pause(pauses, name, failure)

    def check(self, response: Response, name: str) -> None:
        """Raise `SourceError` unless the answer has what was asked for."""
        status = response.status_code
        if status in (200, 206):
            return
        cause, remedy = {
            401: (
                "the user name or password is wrong" if self._session.auth else "it wants a user name and password",
                "Set source_username and source_password, or the header that it wants with source_headers",
            ),
            403: ("it forbids reading this", "Let this user, or everybody, read the directory and its files"),
            404: ("there is no such file", "Correct the address in source"),
        }.get(
            status,
            (f"it answers {status} {response.reason}", "Look into the server's log, then try again"),
        )
        raise SourceError(
            f"The web server does not give {self.shown(name)}",
            where=self.shown(name),
            cause=f"{cause} ({status})" if str(status) not in cause else cause,
            remedy=remedy,
        )

    def pause(self, pauses: Iterator[float], name: str, failure: Exception | None) -> None:
        """Wait before the next try; raise `SourceError` when there have been enough."""
        if not self._pause(pauses):
            raise self._unreachable(name, failure) from failure

    def _pause(self, pauses: Iterator[float]) -> bool:
        seconds = next(pauses, None)
        if seconds is None:
            return False
        time.sleep(seconds)
        return True

    def _unreachable(self, name: str, failure: Exception | None) -> SourceError:
        cause = own_words(failure) if failure else "the connection ended before the file did"
        cause = _CONNECTING.sub("", cause)
        if isinstance(failure, SSLError):
            remedy = "Name the authority that signed its certificate in source_ca_path"
        else:
            remedy = "Check the address, the network and the proxy settings (https_proxy, no_proxy), then try again"
        # The HTTP library quotes addresses.
        cause = cause.replace(self._query, "…") if self._query else cause
        return SourceError(f"Cannot read {self.shown(name)}", where=self.shown(name), cause=cause, remedy=remedy)

    def _warnings(self, scheme: str) -> tuple[str, ...]:
        if scheme == "https" and self._verify is not False:
            return ()
        what = "unencrypted" if scheme == "http" else "without verifying the server's certificate"
        also = " and read the credentials" if self._has_credentials else ""
        danger = f"whoever is on the way can put another image in place{also}"
        return (f"Reading {self._base} {what}: {danger}. Prefer https with source_ca_path.",)


class _Session(Session):
    """Keeps secrets from servers that a redirect leads to, and redirects from leading out of TLS."""

    secret_headers: Mapping[str, str] = {}

    def get_redirect_target(self, resp: Response) -> str | None:
        """Where the answer leads to."""
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:") and urlsplit(target).scheme == "http":
            raise SourceError(
                "The web server redirects from https to http",
                where=target.partition("?")[0],
                remedy="Correct the server's redirect, or the address in source",
            )
        return target

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Prepare the request that follows a redirect."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]  # by the stubs
        before, after = response.request.url, prepared_request.url
        if self.should_strip_auth(before, after):  # type: ignore[no-untyped-call]  # by the stubs
            for name in self.secret_headers:
                prepared_request.headers.pop(name, None)


def _validator(response: Response) -> str:
    """What tells this content of a file from another one."""
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
