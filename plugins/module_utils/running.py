# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a container runs, which is more than the engine's word at one moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine

# A program that is not there, or that gives up as it reads its configuration, is gone within this time.
_SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.1
# Paused processes exist; those of a restarting container will in a moment.
ALIVE = ("running", "paused", "restarting")


def is_steady(answer: Mapping[str, Any]) -> bool:
    """Whether a container runs without the engine having had to start it again; `answer` inspects it.

    One that ends again and again is, to the engine, running in between and while it waits.
    """
    state = answer["State"]
    return bool(state["Running"] and not state.get("Restarting") and not answer.get("RestartCount"))


def keeps_running(engine: Engine, name: str) -> bool:
    """Whether a container that runs still does after a moment, without a restart in between."""
    settled = time.monotonic() + _SETTLE_SECONDS
    began = None
    while True:
        state = (engine.find_container(name) or {"State": {"Running": False}})["State"]
        if not state["Running"] or state.get("Restarting") or began not in (None, state["StartedAt"]):
            return False
        if time.monotonic() >= settled:
            return True
        began = state["StartedAt"]
        time.sleep(_POLL_SECONDS)
