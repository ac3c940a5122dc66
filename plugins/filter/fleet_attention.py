# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines of a fleet that are not as they should be."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: fleet_attention
short_description: Name the machines that are not as they should be
version_added: 0.2.0
description:
  - Returns the names of those machines of a fleet that have a problem, an image that is not the newest version, or, if
    they are Runners, no image of an environment that is published.
positional: _input
options:
  _input:
    description:
      - What is known of the fleet, as P(haku.river.fleet_table#filter) takes it.
    type: dict
    required: true
seealso:
  - plugin: haku.river.fleet_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Fail unless every machine has the newest versions
  ansible.builtin.assert:
    that: fleet | haku.river.fleet_attention | length == 0
"""

RETURN = r"""
_value:
  description:
    - The names, in order.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.fleet import Condition
from ansible_collections.haku.river.plugins.plugin_utils.fleet_input import read_fleet


def fleet_attention(data: Mapping[str, Any]) -> list[str]:
    """The names of the machines that need attention."""
    fleet = read_fleet(data, "fleet_attention")
    return [machine.name for machine in fleet.machines if fleet.condition(machine) is not Condition.CURRENT]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"fleet_attention": fleet_attention}
