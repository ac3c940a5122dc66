# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VPS of this machine, and their snapshots."""

from __future__ import annotations

from typing import Any

from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, LABEL_VPS
from ansible_collections.haku.river.plugins.module_utils.vps import described_machine, find_machine
from ansible_collections.haku.river.plugins.module_utils.vps_keys import described_key
from ansible_collections.haku.river.plugins.module_utils.vps_snapshots import all_snapshots
from ansible_collections.haku.river.plugins.module_utils.vps_steps import container_name

# How the machine is reached, only whoever reaches it knows.
_OF_THE_WAY = ("host", "known_hosts")


def described_machines(engine: Engine, vps: str | None, environment: str | None) -> list[dict[str, Any]]:
    """Describe the VPS, or that one, or those of that environment, sorted by name; see the module's `RETURN`."""
    described = []
    for entry in engine.containers({LABEL_MANAGED: "true"}):
        name = entry["Labels"].get(LABEL_VPS)
        if name is None or vps not in (None, name) or f"/{container_name(name)}" not in entry["Names"]:
            continue
        machine = find_machine(engine, name, container_name(name))
        if machine is None or environment not in (None, machine.environment):
            continue
        facts = described_machine(name, machine, None)
        keys = list(map(described_key, machine.keys))
        told = {key: value for key, value in facts.items() if key not in _OF_THE_WAY}
        described.append({**told, "status": entry["Status"], "authorized_keys": keys})
    return sorted(described, key=lambda each: str(each["name"]))


def described_snapshots(engine: Engine, vps: str | None, environment: str | None) -> list[dict[str, Any]]:
    """Describe the snapshots, by VPS, then newest first."""
    found = all_snapshots(engine.images())
    return [
        {"vps": name, **each.as_facts(), "size_bytes": image.size_bytes}
        for name in sorted(found)
        if vps in (None, name)
        for each in found[name]
        for image in [engine.find_image(each.image)]
        if image and environment in (None, each.environment)
    ]
