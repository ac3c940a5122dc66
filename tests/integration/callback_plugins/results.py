# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print what each task returned, as one JSON list: other callbacks put the name of the module over a key `action`."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: stdout
short_description: the results of all tasks as one JSON list
description: For tests.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core is untyped for users
    """Collect results as they come, and print them when the run is over."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def __init__(self) -> None:
        super().__init__()
        self._results: list[Any] = []

    def v2_runner_on_ok(self, result: Any) -> None:
        """Collect a result."""
        self._results.append(result._result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Collect a failure; the test says whether it was to be."""
        self._results.append({**result._result, "failed": True})

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print what was collected."""
        print(json.dumps(self._results, default=str))
