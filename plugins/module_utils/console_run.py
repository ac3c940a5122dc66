# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One console command as a module runs it: until its answer is the expected one, and with its answer as data."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.console_answers import parse_answer
from ansible_collections.haku.river.plugins.module_utils.console_commands import check_command, ends_server, is_query
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError, NoConsole, NoInstance
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.ranges import check_from_zero

# A server may end once to update itself, and be started again by the engine.
_RESTARTS_MAX = 2


@dataclass(frozen=True)
class Asking:
    """What to type, and what to expect: a regular expression that has to be found in the answer.

    `ends_server` says of a command that is not known as such that the server ends by it.
    """

    name: str
    command: str
    raw: bool = False
    ends_server: bool = False
    timeout_seconds: float = 10
    expect: str | None = None
    retries: int = 0
    delay_seconds: float = 1

    def __post_init__(self) -> None:
        """Raise `HakuError` for what cannot be typed, or expected."""
        check_command(self.command, self.raw)
        check_from_zero(answer_timeout=self.timeout_seconds, retries=self.retries, delay=self.delay_seconds)
        try:
            re.compile(self.expect or "")
        except re.error as error:
            raise HakuError(
                f"expect is not a regular expression: {self.expect}",
                cause=str(error),
                remedy="Put a backslash before characters that have a meaning there, such as ( and [",
            ) from error

    @property
    def changes(self) -> bool:
        """Whether the command may change something; of a raw one nobody knows."""
        return self.raw or self.ends_server or not is_query(self.command)


def run_console_command(interface: EngineInterface, asking: Asking, check_mode: bool) -> Outcome:
    """Type the command, again and again if it has to be; in check mode only if it changes nothing."""
    if check_mode and asking.changes:
        answer, attempts = None, None
        interface.check_console(asking.name, asking.ends_server or ends_server(asking.command))
    else:
        answer, attempts = _ask(interface, asking)
    return Outcome(
        changed=asking.changes,
        facts={
            "answer": answer,
            "answer_lines": None if answer is None else answer.splitlines(),
            "parsed": None if answer is None else parse_answer(asking.command, answer),
            "attempts": attempts,
        },
        warnings=interface.warnings,
    )


def _ask(interface: EngineInterface, asking: Asking) -> tuple[str, int]:
    failure = HakuError("")
    restarts: int | None = None
    for attempt in range(1, asking.retries + 2):
        if attempt > 1:
            time.sleep(asking.delay_seconds)
        try:
            answer = _type(interface, asking)
        except (NoInstance, NoConsole):
            raise
        except HakuError as error:
            failure = error
            now = _restarts(interface, asking)
            restarts = now if restarts is None else restarts
            if now is not None and restarts is not None and now - restarts >= _RESTARTS_MAX:
                raise HakuError(
                    f"{asking.name} ends again and again, and does not answer {asking.command.split()[0]!r}",
                    where=interface.engine.url,
                    cause=f"the engine had to start it {now - restarts} times in the meantime. {error.what}",
                    remedy=f"See its log: docker logs {asking.name}",
                ) from error
            continue
        if asking.expect is None or re.search(asking.expect, answer, re.MULTILINE):
            return answer, attempt
        failure = HakuError(
            f"The answer of {asking.name} to {asking.command.split()[0]!r} is not as expected",
            where=interface.engine.url,
            cause=f"nothing in it matches {asking.expect!r}: {answer[-500:]}",
            remedy="Give it more time with retries and delay, or expect something else",
        )
    raise failure


def _type(interface: EngineInterface, asking: Asking) -> str:
    if asking.ends_server:
        return interface.shut_down(asking.name, asking.command, asking.timeout_seconds)
    return interface.execute_command(asking.name, asking.command, asking.timeout_seconds, asking.raw)


def _restarts(interface: EngineInterface, asking: Asking) -> int | None:
    """How often the engine has had to start it again; None if it cannot be asked just now."""
    try:
        found = interface.find(asking.name, asking.timeout_seconds)
    except EngineError:
        return None
    return None if found is None else found.get("RestartCount") or 0
