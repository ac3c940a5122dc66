# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The instances of an engine, as a module lists them."""

from __future__ import annotations

from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.ranges import check_from_zero


def described_instances(interface: EngineInterface, name: str | None, tail: int) -> list[dict[str, Any]]:
    """Describe all instances, or the one of that name if there is one, with the last `tail` lines of their logs.

    Of all, a log that cannot be read is None; of one, raises `HakuError`.
    """
    check_from_zero(tail=tail)
    if name is None:
        return [{**each, "logs": _readable_logs(interface, each["id"], tail)} for each in interface.list_instances()]
    listed = [interface.get_instance_status(name)] if interface.instance_exists(name) else []
    return [{**each, "logs": _logs(interface, each["id"], tail)} for each in listed]


def _logs(interface: EngineInterface, container_id: str, tail: int) -> str | None:
    return interface.get_instance_logs(container_id, tail) if tail else None


def _readable_logs(interface: EngineInterface, container_id: str, tail: int) -> str | None:
    """None for a container whose log driver keeps nothing to read, or that is gone since it was listed."""
    try:
        return _logs(interface, container_id, tail)
    except HakuError:
        return None
