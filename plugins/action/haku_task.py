# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of `haku_task`: to let go of a task when the Ansible run is gone.

Everything else is the module's. Ansible waits for a module in a worker process, which lives on when the run itself is
killed by SIGKILL, and holds the connection until the module ends: for a task, possibly days.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction

_POLL_SECONDS = 1.0


class ActionModule(NormalAction):  # type: ignore[misc]  # ansible-core has no types
    """Runs the module as usual, and ends this worker when its parent is gone."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; see `ansible.plugins.action.ActionBase.run`."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result


def _end_with(parent_pid: int | None) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_SECONDS)
    # What the worker has started loses the reader of its output, and ends too.
    os.kill(os.getpid(), signal.SIGTERM)
