# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be done to an env container: each step says in words what it does, and leaves no half of it."""

from __future__ import annotations

import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.host_image import remove_unused_image
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_ENVIRONMENT, LABEL_IMAGE, LABEL_MANAGED
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE, keeps_running
from ansible_collections.haku.river.plugins.module_utils.settings import Settings, inherited_volumes

# In upper case, so that no environment can be called so.
_ASIDE_SUFFIX = ".FORMER"
_POLL_SECONDS = 0.1
# Between two attempts the engine waits longer each time, so a container that keeps failing is soon seen at rest.
_EXIT_SECONDS = 5.0
_INSIST_SECONDS = 5.0
_LAST_LINES = 10

Ready = Callable[[Engine, str], None]
"""Returns when a container that was just started, given by its name, does what it is for; raises `HakuError` if not."""


def aside_name(name: str) -> str:
    """What a container is called while another takes its place."""
    return name + _ASIDE_SUFFIX


class Step(ABC):
    """One thing to do, with the engine, and in words."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What is done, as the module reports it in `actions`."""

    @abstractmethod
    def run(self, engine: Engine) -> None:
        """Do it; raises `HakuError`, and then leaves the container as it was."""


@dataclass(frozen=True)
class PutBack(Step):
    """Give a container that an interrupted re-creation left aside its name again."""

    name: str

    @property
    def words(self) -> str:
        return f"put back container {self.name}, which an interrupted re-creation had set aside"

    def run(self, engine: Engine) -> None:
        engine.rename_container(aside_name(self.name), self.name)


@dataclass(frozen=True)
class Pull(Step):
    """Pull an image from its registry."""

    image: str

    @property
    def words(self) -> str:
        return f"pull image {self.image}"

    def run(self, engine: Engine) -> None:
        engine.pull(self.image)


@dataclass(frozen=True)
class Create(Step):
    """Create a container where there is none; one that does not run as it should is removed again."""

    name: str
    settings: Settings
    runs: bool

    @property
    def words(self) -> str:
        return f"create {'and start ' if self.runs else ''}container {self.name} from image {self.settings.image}"

    def run(self, engine: Engine) -> None:
        container_id = _create(engine, self.name, self.settings)
        if self.runs:
            with on_failure(lambda: discard(engine, container_id)):
                _start(engine, self.name)


@dataclass(frozen=True)
class Replace(Step):
    """Put a new container into the place of one that was in `former_state`; if that fails, the former is back."""

    name: str
    settings: Settings
    runs: bool
    former_state: str
    stop_timeout_seconds: int

    @property
    def words(self) -> str:
        return f"re-create {'and start ' if self.runs else ''}container {self.name} from image {self.settings.image}"

    def run(self, engine: Engine) -> None:
        former = aside_name(self.name)
        engine.rename_container(self.name, former)
        with on_failure(lambda: self._restore(engine, former)):
            # While the former one still runs: an engine that refuses the settings interrupts nothing.
            container_id = _create(engine, self.name, self.settings)
            with on_failure(lambda: discard(engine, container_id)):
                if self.former_state in ALIVE:
                    stop_alive(engine, former, self.former_state, self.stop_timeout_seconds)
                if self.runs:
                    _start(engine, self.name)
        remove_with_volumes(engine, former)

    def _restore(self, engine: Engine, former: str) -> None:
        engine.rename_container(former, self.name)
        if self.former_state in ALIVE:
            engine.start(self.name)


@dataclass(frozen=True)
class Update(Step):
    """Change limits and restart policy in place."""

    name: str
    settings: Settings

    @property
    def words(self) -> str:
        return f"update {', '.join(self.settings.as_options())} of container {self.name}"

    def run(self, engine: Engine) -> None:
        engine.update_container(self.name, self.settings.as_update())


@dataclass(frozen=True)
class Start(Step):
    """Start a container that is stopped; one that is not `ready` (usually: does not keep running) is stopped again."""

    name: str
    ready: Ready | None = None

    @property
    def words(self) -> str:
        return f"start container {self.name}"

    def run(self, engine: Engine) -> None:
        with on_failure(lambda: insist(lambda: engine.stop(self.name, 0))):
            _start(engine, self.name, self.ready)


@dataclass(frozen=True)
class Restart(Step):
    """Stop a container and start it again."""

    name: str
    stop_timeout_seconds: int
    ready: Ready | None = None

    @property
    def words(self) -> str:
        return f"restart container {self.name}"

    def run(self, engine: Engine) -> None:
        engine.restart(self.name, self.stop_timeout_seconds)
        (self.ready or await_running)(engine, self.name)


@dataclass(frozen=True)
class Unpause(Step):
    """Let a paused container go on."""

    name: str

    @property
    def words(self) -> str:
        return f"unpause container {self.name}"

    def run(self, engine: Engine) -> None:
        engine.unpause(self.name)


@dataclass(frozen=True)
class Stop(Step):
    """Stop a container."""

    name: str
    stop_timeout_seconds: int

    @property
    def words(self) -> str:
        return f"stop container {self.name}"

    def run(self, engine: Engine) -> None:
        engine.stop(self.name, self.stop_timeout_seconds)


@dataclass(frozen=True)
class Remove(Step):
    """Remove a container, stopped first if it runs, so that its process may end in order."""

    name: str
    state: str
    stop_timeout_seconds: int

    @property
    def words(self) -> str:
        return f"{'stop and ' if self.state in ALIVE else ''}remove container {self.name}"

    def run(self, engine: Engine) -> None:
        if self.state in ALIVE:
            stop_alive(engine, self.name, self.state, self.stop_timeout_seconds)
        remove_with_volumes(engine, self.name)


def steps_of_life(
    name: str, state: str, wanted: str, stop_timeout_seconds: int, ready: Ready | None = None
) -> tuple[tuple[Step, ...], str]:
    """The steps from a container's state to the wanted one, and the state that is reached.

    `wanted` is `started`, `stopped`, `restarted`, or `present` for a container that only has to be there.
    """
    alive = state in ALIVE
    # A frozen process cannot heed the signal to stop.
    thaw: tuple[Step, ...] = (Unpause(name),) if state == "paused" else ()
    restart = Restart(name, stop_timeout_seconds, ready)
    if wanted == "stopped":
        return ((*thaw, Stop(name, stop_timeout_seconds)), "exited") if alive else ((), state)
    if wanted == "restarted":
        return ((*thaw, restart) if alive else (Start(name, ready),)), "running"
    if wanted == "present" or state == "running":
        return (), state
    if state == "paused":
        return thaw, "running"
    return (restart if state == "restarting" else Start(name, ready),), "running"


def await_running(engine: Engine, name: str) -> None:
    """Return when a container that was just started has kept running for a moment.

    Raises `HakuError` with the exit code and the last lines of the log when it has not, whatever its restart policy
    makes of that.
    """
    if not keeps_running(engine, name):
        raise _not_running(engine, name)


def _start(engine: Engine, name: str, ready: Ready | None = None) -> None:
    engine.start(name)
    (ready or await_running)(engine, name)


def stop_alive(engine: Engine, name: str, state: str, timeout_seconds: int) -> None:
    """Stop a container that is in one of the states `ALIVE`."""
    if state == "paused":
        engine.unpause(name)
    engine.stop(name, timeout_seconds)


def remove_with_volumes(engine: Engine, name: str) -> None:
    """Remove a container with what is its alone: anonymous volumes, and the image that it continues on after a package.

    Its volumes are those also that it has taken over from the container before.
    """
    answer = engine.find_container(name)
    engine.remove_container(name, force=True)
    if answer:
        for volume in inherited_volumes(answer):
            engine.remove_volume(volume)
        remove_unused_image(engine, answer["Image"])


def _create(engine: Engine, name: str, settings: Settings) -> str:
    labels = {LABEL_MANAGED: "true", LABEL_ENVIRONMENT: name, LABEL_IMAGE: settings.image or ""}
    return engine.create_container(name, settings.as_creation(labels))


def discard(engine: Engine, container_id: str) -> None:
    """Remove a new container that does not do, even while its restart policy starts it over and over."""

    def attempt() -> None:
        with suppress(EngineError):  # what cannot be stopped now may well be removed
            engine.stop(container_id, 0)
        engine.remove_container(container_id, force=True)

    insist(attempt)


def insist(attempt: Callable[[], object]) -> None:
    """Try again for a while: a container that keeps failing has moments in which an engine refuses to act on it.

    So has one that the engine is still busy with for somebody who is gone.
    """
    deadline = time.monotonic() + _INSIST_SECONDS
    while True:
        try:
            attempt()
        except EngineError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_POLL_SECONDS)


@contextmanager
def on_failure(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` if the block fails or is interrupted; when that fails too, say both."""
    try:
        yield
    except BaseException as failure:
        try:
            undo()
        except HakuError as second:
            raise HakuError(
                str(failure).rstrip("."),
                cause=f"and then, on the way back: {second}",
                remedy="See what there is with docker ps --all; a container named *.FORMER is the one from before",
            ) from failure
        raise


def _not_running(engine: Engine, name: str) -> HakuError:
    command, exit_code = exit_of(engine, name)
    try:
        log = engine.last_words(name, _LAST_LINES)
    except EngineError:
        # Some logging drivers cannot be read; the exit code says enough.
        log = ""
    return HakuError(
        f"Container {name} does not keep running",
        where=engine.url,
        cause=f"`{command}` ended with exit code {exit_code}" + (f" and last wrote: {log}" if log else ""),
        remedy="Give it a command that its image has and that does not end, such as the default: sleep infinity",
    )


def exit_of(engine: Engine, name: str) -> tuple[str, int]:
    """The command of a container that does not keep running, and its exit code once it is seen at rest."""
    deadline = time.monotonic() + _EXIT_SECONDS
    while True:
        answer = engine.find_container(name)
        if answer is None:
            return name, -1
        state = answer["State"]
        if not state["Running"] or state.get("Restarting") or time.monotonic() > deadline:
            return shlex.join(Settings.from_inspect(answer).command or ()), state["ExitCode"]
        time.sleep(_POLL_SECONDS / 2)
