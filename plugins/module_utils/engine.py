# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine behind one small class: the Docker SDK's low-level client, with typed answers and one kind of error."""

from __future__ import annotations

import functools
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ansible_collections.haku.river.plugins.module_utils import podman
from ansible_collections.haku.river.plugins.module_utils.engine_words import own_words, progress
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, Refused
from ansible_collections.haku.river.plugins.module_utils.following import ContainerExit, ContainerOutput
from ansible_collections.haku.river.plugins.module_utils.image import Image, ListedImage, run_configuration
from ansible_collections.haku.river.plugins.module_utils.names import other_references
from ansible_collections.haku.river.plugins.module_utils.sdk_errors import (
    APIError,
    DockerException,
    NotFound,
    RequestException,
)

if TYPE_CHECKING:
    from ansible_collections.haku.river.plugins.module_utils.tarball import Stream

_CHUNK_BYTES = 1 << 20
# Commit, save and load are silent for as long as the disk needs; an engine that died closes the connection.
_LONG_CALL_SECONDS = 6 * 3600
# A container that is started again and again is met while it runs within this time, if it can be met.
_MEET_SECONDS = 1.0
_REST_SECONDS = 10.0
_POLL_SECONDS = 0.05
# Sockets take no time for an order not to wait.
_LEAST_SECONDS = 0.1
# What `read_files` takes into memory: configuration and keys, not data.
_FILES_BYTES_MAX = 4 << 20


@dataclass(frozen=True)
class Entry:
    """A file to put into a container, or a directory if it has no content; what is above it has to be there."""

    path: str
    mode: int
    content: bytes | None = None


class Engine:
    """What answers the Docker API at `url`, maybe Podman; `reopen` connects to it once more, for another process."""

    def __init__(
        self,
        client: Any,
        url: str,
        reopen: Callable[[], Engine],
        warnings: tuple[str, ...] = (),
        is_podman: bool = False,
    ) -> None:
        # A `docker.APIClient`; untyped, because the stubs describe one SDK and this serves 5.0 to 7.x.
        self.client = client
        self.url = url
        self.reopen = reopen
        self.warnings = warnings
        self.is_podman = is_podman
        self._turn = threading.Lock()
        self._patient_calls = 0
        self._usual_timeout = 0.0

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

    @property
    def identity(self) -> str:
        """What tells this engine from others on its machine, for as long as it has its images."""
        if self.is_podman:
            # Which makes up another ID for each answer.
            return f"{self.description.get('Name')} {self.description.get('DockerRootDir')}"
        return str(self.description.get("ID"))

    # Images

    def find_image(self, reference: str) -> Image | None:
        """Return the image that a tag or ID names, or None."""
        with self.saying(f"Cannot inspect image {reference}"):
            try:
                answer = self.client.inspect_image(reference)
                if self.is_podman:
                    return Image.from_inspect(podman.image_answer(answer), podman.UNTOLD)
                return Image.from_inspect(answer)
            except NotFound:
                return None

    def images(self, repository: str | None = None, besides: str = "") -> tuple[ListedImage, ...]:
        """The images that the engine lists, all or those of one repository, newest first, each once.

        One that has no tag of the repository but `besides` may be left out, as the caller knows it already: the
        containerd store adds up the files of each image that it lists, which takes it longer than anything else here.
        """
        wanted = other_references(repository, besides) if repository and besides else repository
        if self.is_podman:  # which matches other patterns
            wanted = repository
        with self.saying("Cannot list the images"):
            found = self.client.images(filters={"reference": wanted} if wanted else None)
            if self.is_podman:
                found = map(podman.image_answer, found)
        listed = {
            image["Id"]: ListedImage(image["Id"], tuple(image.get("RepoTags") or ()), image.get("Labels") or {})
            for image in found
        }
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
            except NotFound:
                return

    def pull(self, reference: str) -> None:
        """Pull one image by tag (`latest` if none is given) or digest, as the user who is logged in on this machine."""
        remedy = "Check the name and tag, and this machine's way to the registry; for a private one, docker login"
        with self.saying(f"Cannot pull image {reference}", remedy=remedy), self._patient():
            for message in progress(self.client.pull(reference, stream=True, decode=True)):
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

    def load(self, tarball: Stream, what: str) -> None:
        """Stream a tarball to the engine, as `docker load` does; `what` names it in errors.

        `Refused` if the engine will not have it.
        """
        remedy = "Check the engine's disk and its log (journalctl -u docker), then try again"
        refusal = None
        with self.saying(f"The engine cannot load {what}", remedy=remedy), self._patient():
            try:
                for message in progress(self.client.load_image(_Body(tarball), quiet=True)):
                    # An answer with an error status has a message, and one that fails half way an error.
                    refusal = refusal or message.get("error") or message.get("message")
            except APIError as error:
                refusal = own_words(error)
        if refusal:
            cause = podman.load_refusal(refusal) if self.is_podman else refusal
            raise Refused(f"The engine cannot load {what}", where=self.url, cause=cause, remedy=remedy)

    # Containers

    def find_container(self, name: str, seconds: float | None = None) -> dict[str, Any] | None:
        """Return what `docker inspect` says of the container, or None; the engine may be silent for `seconds`."""
        with self.saying(f"Cannot inspect container {name}"):
            try:
                found: dict[str, Any] = self._inspect(name, seconds)
            except NotFound:
                return None
            return podman.container_answer(found) if self.is_podman else found

    def _inspect(self, name: str, seconds: float | None) -> Any:
        if seconds is None:
            return self.client.inspect_container(name)
        # The SDK's own call takes no time.
        address = self.client._url("/containers/{0}/json", name)
        answer = self.client._get(address, timeout=min(max(seconds, _LEAST_SECONDS), self.client.timeout))
        return self.client._result(answer, json=True)

    def run_configuration(self, answer: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """What an image made of a container has to say; `answer` inspects it, `base` is its image's configuration."""
        if self.is_podman:
            return podman.image_configuration(answer["Config"], base)
        return run_configuration(answer["Config"])

    def containers(
        self, labels: Mapping[str, str] | None = None, sizes: bool = False, images: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """All containers, stopped ones too, that carry the labels; as `docker ps --all` lists them.

        With `sizes` the engine also adds up each container's files, which takes it a while. Those that were not made
        from any of the `images`, given by ID, may be left out: for each that it lists, the containerd store looks for
        its image.
        """
        ancestors = [] if self.is_podman else sorted(images)
        filters = {"label": [f"{label}={value}" for label, value in (labels or {}).items()], "ancestor": ancestors}
        with self.saying("Cannot list the containers"), self._patient():
            found: list[dict[str, Any]] = self.client.containers(
                all=True, size=sizes, filters={name: values for name, values in filters.items() if values}
            )
            return list(map(podman.listed_container, found)) if self.is_podman else found

    def sharers(self, container_id: str) -> tuple[str, ...]:
        """The names of the containers that are in the network, PID or IPC namespace of this one."""
        mode = f"container:{container_id}"
        inspected = (self.find_container(entry["Id"]) for entry in self.containers())
        return tuple(
            there["Name"].lstrip("/")
            for there in inspected
            if there and mode in (there["HostConfig"].get(name) for name in ("NetworkMode", "PidMode", "IpcMode"))
        )

    def create_container(self, name: str, configuration: Mapping[str, Any]) -> str:
        """Create a container and return its ID. `configuration` is the body of `POST /containers/create`."""
        self._check_offers(f"Cannot create container {name}", configuration["HostConfig"])
        with self.saying(f"Cannot create container {name}"):
            container_id: str = self.client.create_container_from_config(dict(configuration), name)["Id"]
        return container_id

    def check_offers(self, what: str, limits: bool, gpus: bool) -> None:
        """Raise `EngineError`, which begins with `what`, for what the engine would leave out without a word."""
        if not (limits or gpus) or not self.is_podman:
            return
        if gpus:
            raise EngineError(
                what,
                where=self.url,
                cause="Podman has no GPUs to give by Docker's API: it cannot select a device driver",
                remedy="Leave gpus out, or use Docker",
            )
        if podman.limits_ignored(self.description):
            raise EngineError(
                what,
                where=self.url,
                cause="Podman without root can set no limits but by systemd and control groups of version 2",
                remedy="Leave cpus, memory and numa_node out, use Podman as root, or give it cgroup_manager systemd on "
                "a machine with cgroup2",
            )

    def _check_offers(self, what: str, host: Mapping[str, Any]) -> None:
        limits = any(host.get(limit) for limit in ("NanoCpus", "Memory", "CpusetCpus"))
        self.check_offers(what, limits, gpus=bool(host.get("DeviceRequests")))

    def update_container(self, container: str, changes: Mapping[str, Any]) -> None:
        """Change limits and restart policy in place. `changes` is the body of `POST /containers/{id}/update`."""
        remedy = "If the engine has no such call, like an older Podman, set this when the container is created"
        if self.is_podman:
            self._check_offers(f"Cannot update container {container}", changes)
            there = self.find_container(container) or {"HostConfig": {}}
            changes = podman.update(changes, there["HostConfig"].get("RestartPolicy"))
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
        if force and self.is_podman:
            # Or it would first ask the process to end, and wait for that.
            with suppress(EngineError):
                self.kill(container, "SIGKILL")
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
        remedy = "Check its command, mounts, network, ports and devices"
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
        # Its first line may be indented.
        return log.decode(errors="replace").rstrip().lstrip("\r\n")

    def changed_paths(self, container: str) -> tuple[str, ...]:
        """What differs from the container's image, as `docker diff` lists it: added, changed and deleted paths."""
        with self.saying(f"Cannot list the changes in container {container}"), self._patient():
            return tuple(change["Path"] for change in self.client.diff(container) or ())

    def read_files(self, container: str, path: str) -> dict[str, bytes] | None:
        """The files at a path inside a container, running or not, by their names from there on; None if none is there.

        The name of a file that is itself the path is empty. Links are left out, and so is what lies in subdirectories.
        """
        with self.saying(f"Cannot read {path} in container {container}"):
            try:
                chunks, _status = self.client.get_archive(container, path)
            except NotFound:
                return None
            content = bytearray()
            for chunk in chunks:
                content += chunk
                if len(content) > _FILES_BYTES_MAX:
                    raise EngineError(f"{path} in container {container} is larger than it may be", where=self.url)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # Looked for in here, the target of a link is not there.
            members = [member for member in archive if member.isfile() and member.name.count("/") <= 1]
            files = ((member.name.partition("/")[2], archive.extractfile(member)) for member in members)
            return {name: stream.read() for name, stream in files if stream}

    def write_files(self, container: str, entries: Iterable[Entry]) -> None:
        """Put files and directories of root into a container, running or not, at once and without any process in it."""
        content = io.BytesIO()
        now = int(time.time())
        with tarfile.open(fileobj=content, mode="w") as archive:
            for entry in entries:
                member = tarfile.TarInfo(entry.path.lstrip("/"))
                member.mode, member.mtime = entry.mode, now
                member.size = len(entry.content or b"")
                member.type = tarfile.REGTYPE if entry.content is not None else tarfile.DIRTYPE
                archive.addfile(member, io.BytesIO(entry.content or b""))
        with self.saying(f"Cannot put files into container {container}"):
            self.client.put_archive(container, "/", content.getvalue())

    def start(self, container: str) -> None:
        """Start a container; a running one stays as it is."""
        remedy = "Check its command, mounts, network, ports and devices"
        with self.saying(f"Cannot start container {container}", remedy=remedy):
            self.client.start(container)

    def stop(self, container: str, timeout_seconds: int) -> None:
        """Stop a container, by SIGKILL when `timeout_seconds` have passed."""
        if self.is_podman:
            # Which takes one that has just ended, and is about to be started again, for one that is stopped already.
            self.end_restarts(container)
        with self.saying(f"Cannot stop container {container}"), self._patient():
            self.client.stop(container, timeout=timeout_seconds)
        if self.is_podman:
            self._await_rest(container)

    def end_restarts(self, container: str) -> None:
        """Have a container go on, but no restart policy start it again when it ends.

        Engines take any signal for that wish, also one that does nothing; Podman only while the process runs. One that
        ends again and again is asked again and again, and comes to rest here if it ends too soon to be met.
        """
        found = self.find_container(container)
        if not found or not podman.has_restart_policy(found):
            return
        given_up = time.monotonic() + _MEET_SECONDS
        while not self.kill(container, "SIGCONT") and self.is_podman:
            if not self._restarts(container):
                return
            if time.monotonic() >= given_up:
                self._rest(container, found["HostConfig"]["RestartPolicy"])
                return

    def _rest(self, container: str, policy: Mapping[str, Any]) -> None:
        """Take the restart policy away until the container of Podman has ended."""
        try:
            self.update_container(container, {"RestartPolicy": {"Name": "no"}})
        except EngineError:
            return  # an older one has no such call
        try:
            self._await_rest(container)
        finally:
            self.update_container(container, {"RestartPolicy": dict(policy)})

    def _await_rest(self, container: str) -> None:
        """Return when Podman has cleaned up behind a container that ends, and so decided what becomes of it."""
        given_up = time.monotonic() + _REST_SECONDS
        while self._restarts(container) and time.monotonic() < given_up:
            time.sleep(_POLL_SECONDS)

    def _restarts(self, container: str) -> bool:
        """Whether a container of Podman runs, or has ended and may be started again yet."""
        with self.saying(f"Cannot inspect container {container}"):
            try:
                return self.client.inspect_container(container)["State"]["Status"] in ("running", "stopping", "stopped")
            except NotFound:
                return False

    def kill(self, container: str, signal: str) -> bool:
        """Send a signal to the container's main process; False if that has ended, or is gone, already."""
        with self.saying(f"Cannot send {signal} to container {container}"):
            try:
                self.client.kill(container, signal)
            except APIError as error:
                # 409, or 500 from older ones, is what they say of a container that does not run.
                there_is_none = error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
                if not (there_is_none or "is not running" in own_words(error)):
                    raise
                return False
        return True

    def follow(self, container: str) -> tuple[ContainerOutput, ContainerExit]:
        """Open the streams that tell what a container that is yet to be started will write, and when it has ended."""
        with self.saying(f"Cannot attach to container {container}"):
            output = ContainerOutput(self.client.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1}))
            # The SDK's own `wait` does not return before the end; the engine answers twice, and first at once.
            address = self.client._url("/containers/{0}/wait", container)
            answer = self.client._post(address, params={"condition": "next-exit"}, stream=True, timeout=None)
            self.client._raise_for_status(answer)
            return output, ContainerExit(answer, self.client._get_raw_response_socket(answer))

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
        """Wait long for the calls inside; meanwhile those of other threads are waited for as long."""
        with self._turn:
            if not self._patient_calls:
                self._usual_timeout = self.client.timeout
                self.client.timeout = _LONG_CALL_SECONDS
            self._patient_calls += 1
        try:
            yield
        finally:
            with self._turn:
                self._patient_calls -= 1
                if not self._patient_calls:
                    self.client.timeout = self._usual_timeout


class _Body:
    """A request's body whose length is known. Without it, HTTP's chunked coding would have each chunk copied again.

    The SDK's HTTP library looks for the attribute `len`: https://github.com/psf/requests/blob/main/src/requests/utils.py
    """

    def __init__(self, tarball: Stream) -> None:
        self.len = tarball.size_bytes
        self._chunks = tarball.chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)
