# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One console command as a module runs it: until its answer is the expected one, and with its answer as data."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.console_answers import parse_answer
from ansible_collections.haku.river.plugins.module_utils.console_commands import check_command, is_query
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome


@dataclass(frozen=True)
class Asking:
    """What to type, and what to expect: a regular expression that has to be found in the answer."""

    name: str
    command: str
    raw: bool = False
    timeout_seconds: float = 10
    expect: str | None = None
    retries: int = 0
    delay_seconds: float = 1

    def __post_init__(self) -> None:
        """Raise `HakuError` for what cannot be typed, or expected."""
        check_command(self.command, self.raw)
        if self.retries < 0 or self.delay_seconds < 0:
            raise HakuError("retries and delay cannot be below 0")
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
        return self.raw or not is_query(self.command)


def run_console_command(interface: EngineInterface, asking: Asking, check_mode: bool) -> Outcome:
    """Type the command, again and again if it has to be; in check mode only if it changes nothing."""
    if check_mode and asking.changes:
        answer, attempts = None, None
        interface.existing(asking.name)
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
    for attempt in range(1, asking.retries + 2):
        if attempt > 1:
            time.sleep(asking.delay_seconds)
        try:
            answer = interface.execute_command(asking.name, asking.command, asking.timeout_seconds, asking.raw)
        except HakuError as error:
            failure = error
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
