# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine behind one small class: the Docker SDK's low-level client, with typed answers and one kind of error."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, Refused
from ansible_collections.haku.river.plugins.module_utils.image import Image, ListedImage

try:
    from docker.errors import APIError, DockerException, ImageNotFound, NotFound
    from requests.exceptions import RequestException
except ImportError:
    # `connect` says so before anyone gets here; the names are needed for `except`.
    APIError = DockerException = ImageNotFound = OSError  # type: ignore[misc,assignment]  # no type for a stand-in
    NotFound = RequestException = OSError  # type: ignore[misc,assignment]  # no type for a stand-in

_CHUNK_BYTES = 1 << 20
# Commit, save and load are silent for as long as the disk needs; an engine that died closes the connection.
_LONG_CALL_SECONDS = 6 * 3600


class Engine:
    """What answers the Docker API at `url`; `reopen` connects to it once more, for a process of its own."""

    def __init__(self, client: Any, url: str, reopen: Callable[[], Engine], warnings: tuple[str, ...] = ()) -> None:
        # A `docker.APIClient`; untyped, because the stubs describe one SDK and this serves 5.0 to 7.x.
        self.client = client
        self.url = url
        self.reopen = reopen
        self.warnings = warnings

    # The engine itself

    def info(self) -> dict[str, Any]:
        """The engine's own description, as `docker info` has it."""
        with self.saying("Cannot ask the engine about itself"):
            info: dict[str, Any] = self.client.info()
            return info

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The answer of `info` when it was asked first, for what does not change in an engine's life."""
        return self.info()

    # Images

    def find_image(self, reference: str) -> Image | None:
        """Return the image that a tag or ID names, or None."""
        with self.saying(f"Cannot inspect image {reference}"):
            try:
                return Image.from_inspect(self.client.inspect_image(reference))
            except ImageNotFound:
                return None

    def images(self, repository: str | None = None) -> tuple[ListedImage, ...]:
        """The images that the engine lists, all or those of one repository, newest first, each once."""
        with self.saying("Cannot list the images"):
            found = self.client.images(name=repository)
        listed = {image["Id"]: ListedImage(image["Id"], tuple(image.get("RepoTags") or ())) for image in found}
        return tuple(listed.values())

    def tags_of(self, repository: str) -> tuple[str, ...]:
        """All references `<repository>:<tag>` that the engine has."""
        tags = (tag for image in self.images(repository) for tag in image.tags)
        return tuple(tag for tag in tags if tag.rpartition(":")[0] == repository)

    def tag(self, image_id: str, reference: str) -> None:
        """Point `reference` at the image, wherever it pointed before."""
        repository, _colon, tag = reference.rpartition(":")
        with self.saying(f"Cannot tag image {image_id} as {reference}"):
            self.client.tag(image_id, repository, tag, force=True)

    def remove_image(self, reference: str) -> None:
        """Remove a tag, and the image with its last one; images below it stay. It may be gone already."""
        with self.saying(f"Cannot remove image {reference}", remedy="Remove the containers that still use it first"):
            try:
                self.client.remove_image(reference, noprune=True)
            except ImageNotFound:
                return

    def pull(self, reference: str) -> None:
        """Pull one image by tag (`latest` if none is given) or digest, as the user who is logged in on this machine."""
        remedy = "Check the name and tag, and this machine's way to the registry; for a private one, docker login"
        with self.saying(f"Cannot pull image {reference}", remedy=remedy), self._patient():
            for message in _progress(self.client.pull(reference, stream=True, decode=True)):
                if "error" in message:
                    raise EngineError(
                        f"Cannot pull image {reference}", where=self.url, cause=message["error"], remedy=remedy
                    )

    @contextmanager
    def temporary_image(self, reference: str) -> Iterator[None]:
        """Remove the image that the block makes under this tag when the block ends, however it ends."""
        try:
            yield
        except BaseException:
            # What went wrong first is what has to be told; who comes next removes what is left.
            with suppress(EngineError):
                self.remove_image(reference)
            raise
        self.remove_image(reference)

    def save(self, reference: str) -> Iterator[bytes]:
        """Stream the tarball that `docker save` writes."""
        with self.saying(f"Cannot save image {reference}", remedy="Check the disk of the engine"), self._patient():
            yield from self.client.get_image(reference, chunk_size=_CHUNK_BYTES)

    def load(self, tarball: Iterable[bytes], what: str) -> None:
        """Stream a tarball to the engine, as `docker load` does; `what` names it in errors.

        `Refused` if the engine will not have it.
        """
        remedy = "Check the engine's disk and its log (journalctl -u docker), then try again"
        with self.saying(f"The engine cannot load {what}", remedy=remedy), self._patient():
            for message in _progress(self.client.load_image(_not_empty(tarball), quiet=True)):
                # An answer with an error status has a message, and one that fails half way an error.
                refusal = message.get("error") or message.get("message")
                if refusal:
                    raise Refused(f"The engine cannot load {what}", where=self.url, cause=refusal, remedy=remedy)

    # Containers

    def find_container(self, name: str) -> dict[str, Any] | None:
        """Return what `docker inspect` says of the container, or None."""
        with self.saying(f"Cannot inspect container {name}"):
            try:
                found: dict[str, Any] = self.client.inspect_container(name)
            except NotFound:
                return None
        return found

    def containers(self, labels: Mapping[str, str] | None = None, sizes: bool = False) -> list[dict[str, Any]]:
        """All containers, stopped ones too, that carry the labels; as `docker ps --all` lists them.

        With `sizes` the engine also adds up each container's files, which takes it a while.
        """
        wanted = [f"{label}={value}" for label, value in (labels or {}).items()]
        with self.saying("Cannot list the containers"), self._patient():
            found: list[dict[str, Any]] = self.client.containers(
                all=True, size=sizes, filters={"label": wanted} if wanted else {}
            )
        return found

    def create_container(self, name: str, configuration: Mapping[str, Any]) -> str:
        """Create a container and return its ID. `configuration` is the body of `POST /containers/create`."""
        with self.saying(f"Cannot create container {name}"):
            container_id: str = self.client.create_container_from_config(dict(configuration), name)["Id"]
        return container_id

    def update_container(self, container: str, changes: Mapping[str, Any]) -> None:
        """Change limits and restart policy in place. `changes` is the body of `POST /containers/{id}/update`."""
        remedy = "If the engine has no such call, like an older Podman, set this when the container is created"
        with self.saying(f"Cannot update container {container}", remedy=remedy):
            # The SDK's own `update_container` knows no NanoCpus.
            address = self.client._url("/containers/{0}/update", container)
            self.client._raise_for_status(self.client._post_json(address, data=dict(changes)))

    def rename_container(self, container: str, name: str) -> None:
        """Give a container, running or not, another name."""
        with self.saying(f"Cannot rename container {container} to {name}"):
            self.client.rename(container, name)

    def join_network(self, container: str, network: str, endpoint: Mapping[str, Any]) -> None:
        """Connect a container to one more network. `endpoint` is the `EndpointConfig` of that call."""
        with self.saying(f"Cannot connect container {container} to network {network}"):
            # The SDK's own call knows only some of the fields.
            address = self.client._url("/networks/{0}/connect", network)
            body = {"Container": container, "EndpointConfig": dict(endpoint)}
            self.client._raise_for_status(self.client._post_json(address, data=body))

    def remove_container(self, container: str, force: bool = False, volumes: bool = True) -> None:
        """Remove a container, with its anonymous volumes, with `force` a running one; it may be gone already."""
        with self.saying(f"Cannot remove container {container}"), self._patient():
            try:
                self.client.remove_container(container, v=volumes, force=force)
            except NotFound:
                return

    def remove_volume(self, volume: str) -> None:
        """Remove a volume, unless another container uses it; it may be gone already."""
        with self.saying(f"Cannot remove volume {volume}"):
            try:
                self.client.remove_volume(volume)
            except APIError as error:
                if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise

    def restart(self, container: str, timeout_seconds: int) -> None:
        """Stop a container as `stop` does, and start it again; a stopped one is started."""
        remedy = "Check its command, mounts, network and devices"
        with self.saying(f"Cannot restart container {container}", remedy=remedy), self._patient():
            self.client.restart(container, timeout=timeout_seconds)

    def unpause(self, container: str) -> None:
        """Let the processes of a paused container go on."""
        with self.saying(f"Cannot unpause container {container}"):
            self.client.unpause(container)

    def last_words(self, container: str, lines: int) -> str:
        """The end of what the container's process wrote to standard output and standard error."""
        with self.saying(f"Cannot read the log of container {container}"):
            log: bytes = self.client.logs(container, stdout=True, stderr=True, tail=lines)
        return log.decode(errors="replace").strip()

    def changed_paths(self, container: str) -> tuple[str, ...]:
        """What differs from the container's image, as `docker diff` lists it: added, changed and deleted paths."""
        with self.saying(f"Cannot list the changes in container {container}"), self._patient():
            return tuple(change["Path"] for change in self.client.diff(container) or ())

    def start(self, container: str) -> None:
        """Start a container; a running one stays as it is."""
        remedy = "Check its command, mounts, network and devices"
        with self.saying(f"Cannot start container {container}", remedy=remedy):
            self.client.start(container)

    def stop(self, container: str, timeout_seconds: int) -> None:
        """Stop a container, by SIGKILL when `timeout_seconds` have passed."""
        with self.saying(f"Cannot stop container {container}"), self._patient():
            self.client.stop(container, timeout=timeout_seconds)

    def commit(self, container: str, reference: str, pause: bool, comment: str) -> None:
        """Commit a container as image `reference`; `pause` holds a running one still meanwhile."""
        repository, _colon, tag = reference.rpartition(":")
        remedy = "Check the disk of the engine"
        with self.saying(f"Cannot commit container {container}", remedy=remedy), self._patient():
            # `commit` of the SDKs before 7 has no `pause`, and the engine pauses unless told otherwise.
            address = self.client._url("/commit")
            names = {"container": container, "repo": repository, "tag": tag, "comment": comment}
            query = {**names, "pause": "1" if pause else "0"}
            self.client._raise_for_status(self.client._post_json(address, data={}, params=query))

    # Speech

    @contextmanager
    def saying(self, what: str, remedy: str = "") -> Iterator[None]:
        """Turn every failure of the SDK inside into an `EngineError` with the engine's own words."""
        try:
            yield
        except (DockerException, RequestException, OSError) as error:
            raise EngineError(what, where=self.url, cause=own_words(error), remedy=remedy) from error

    @contextmanager
    def _patient(self) -> Iterator[None]:
        usual = self.client.timeout
        self.client.timeout = _LONG_CALL_SECONDS
        try:
            yield
        finally:
            self.client.timeout = usual


def own_words(error: BaseException) -> str:
    """What the engine or the kernel said, without the wrapping that the SDK and its HTTP library put around it."""
    inner = _wrapped(error)
    while inner is not None:
        error, inner = inner, _wrapped(inner)
    if isinstance(error, APIError) and error.explanation:
        explanation = error.explanation
        return explanation.decode() if isinstance(explanation, bytes) else str(explanation)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _wrapped(error: BaseException) -> BaseException | None:
    """The error that this one only wraps: an argument of it, or what the SDK was handling when it raised its own."""
    if isinstance(error, APIError):
        return None
    inner = [*error.args, getattr(error, "reason", None)]
    if isinstance(error, DockerException):
        inner.append(error.__context__)
    return next((item for item in inner if isinstance(item, BaseException)), None)


def _progress(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The JSON messages of an answer; SDKs before 7 hand over some of them unparsed."""
    for message in messages:
        yield from [message] if isinstance(message, dict) else _lines(message)


def _lines(text: bytes | str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)


def _not_empty(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """In HTTP's chunked coding an empty chunk ends the body."""
    return (chunk for chunk in chunks if chunk)
