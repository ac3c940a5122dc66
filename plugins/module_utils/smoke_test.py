# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Smoke tests: a command in a fresh container of an environment's image says whether the image is of any use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, LABEL_SMOKE_TEST
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.settings import Gpus, Settings, parse_command

_LOOK_EVERY_SECONDS = 0.1
_LAST_LINES = 50
_LAST_CHARACTERS = 10_000
# Whatever the engine's own log driver is, this one can be read.
_LOG = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}}
# A test that outlived its module, because its connection broke, is removed by the next one after this much longer.
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class SmokeTest:
    """What is run in the image `reference` of an environment, and with what around it."""

    environment: str
    reference: str
    command: tuple[str, ...]
    timeout_seconds: int
    network: str
    volumes: tuple[str, ...]
    gpus: Gpus

    def as_creation(self, image_id: str, now: int) -> dict[str, Any]:
        """The body of `POST /containers/create`."""
        settings = Settings(
            image=image_id,
            command=self.command,
            # Started by an init, what the image lacks ends with 126 or 127, and is not an error of the engine.
            init=True,
            network=self.network,
            volumes=self.volumes,
            gpus=self.gpus,
            restart_policy="no",
        )
        overdue = now + self.timeout_seconds + _GRACE_SECONDS
        body = settings.as_creation({LABEL_MANAGED: "true", LABEL_SMOKE_TEST: str(overdue)})
        body["HostConfig"]["LogConfig"] = _LOG
        return body


class SmokeTestFailed(HakuError):
    """The image failed its test; every other error says that the machine could not test it."""

    def __init__(self, test: SmokeTest, how: str, *, where: str, cause: str, facts: Mapping[str, Any]) -> None:
        super().__init__(
            f"The smoke test of {test.environment} failed in {test.reference}, as it {how}", where=where, cause=cause
        )
        self.facts = facts

    def as_result(self) -> dict[str, object]:
        """The keys of `fail_json`: those of every error, and what the test itself said."""
        return {**super().as_result(), **self.facts}


def parse_test_command(command: object) -> tuple[str, ...]:
    """Take a list of arguments as it is, and a string as a line for the image's own shell."""
    if isinstance(command, str) and command.strip():
        return ("sh", "-c", command)
    return parse_command(command)


def run_smoke_test(engine: Engine, test: SmokeTest, check_mode: bool) -> Outcome:
    """Run the test and remove its container; `SmokeTestFailed` if the image is of no use.

    A check runs nothing, as the image that it would test may not be there yet.
    """
    if check_mode:
        return _passed(engine, test, _facts(passed=None))
    image = engine.find_image(test.reference)
    if image is None:
        raise HakuError(
            f"There is no image {test.reference} to test", where=engine.url, remedy="Load it with haku_sync first"
        )
    _remove_overdue(engine)
    began = time.monotonic()
    with _fresh_container(engine, test, image.id) as container:
        engine.start(container)
        code = _exit_code(engine, container, began + test.timeout_seconds)
        output = engine.last_words(container, _LAST_LINES)[-_LAST_CHARACTERS:]
    seconds = round(time.monotonic() - began, 3)
    facts = _facts(passed=code == 0, rc=code, output=output, seconds=seconds)
    if code == 0:
        return _passed(engine, test, facts)
    how = f"did not end within {test.timeout_seconds} s" if code is None else f"ended with {code}"
    raise SmokeTestFailed(test, how, where=engine.url, cause=output.rpartition("\n")[2], facts=facts)


@contextmanager
def _fresh_container(engine: Engine, test: SmokeTest, image_id: str) -> Iterator[str]:
    """Create a container that is gone at the end of the block."""
    name = f"{test.environment}.smoke-test-{secrets.token_hex(4)}"
    container = engine.create_container(name, test.as_creation(image_id, int(time.time())))
    try:
        yield container
    finally:
        engine.remove_container(container, force=True)


def _exit_code(engine: Engine, container: str, deadline: float) -> int | None:
    """Wait for the end of the test; None if it does not end before the deadline."""
    while True:
        state = _state(engine, container)
        if not state["Running"]:
            return int(state["ExitCode"])
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_EVERY_SECONDS)


def _state(engine: Engine, container: str) -> Mapping[str, Any]:
    found = engine.find_container(container)
    if found is None:
        raise EngineError("Somebody removed the container of the smoke test while it ran", where=engine.url)
    state: Mapping[str, Any] = found["State"]
    return state


def _remove_overdue(engine: Engine) -> None:
    for entry in engine.containers({LABEL_MANAGED: "true"}):
        overdue = entry["Labels"].get(LABEL_SMOKE_TEST, "")
        if overdue.isdecimal() and int(overdue) < time.time():
            engine.remove_container(entry["Id"], force=True)


def _facts(
    passed: bool | None, rc: int | None = None, output: str | None = None, seconds: float | None = None
) -> dict[str, Any]:
    return {"passed": passed, "rc": rc, "output": output, "seconds": seconds}


def _passed(engine: Engine, test: SmokeTest, facts: Mapping[str, Any]) -> Outcome:
    return Outcome(changed=False, facts={"image": test.reference, **facts}, warnings=engine.warnings)
