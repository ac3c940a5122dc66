# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as a table for the terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: fleet_table
short_description: Show which machine has which version of which environment as a table
version_added: 0.2.0
description:
  - Returns text for a terminal, a row for each machine and a column for each environment, with versions as times in
    UTC. Below the table stands what is wrong with which machine, and a summary.
  - Environments that do not fit beside each other follow below.
positional: _input
options:
  _input:
    description:
      - What is known of the fleet.
      - C(generated) is the time of it, in Unix seconds, and C(shared_dir) the directory of tarballs.
      - C(environments) is what is published, as M(haku.river.haku_tar_info) returns it. Of each environment
        C(versions), or C(all_versions), is used, a list of dictionaries with C(timestamp) and C(size).
      - C(machines) is a dictionary of machines, by name. Each has its C(role) (V(host), V(runner), V(host and runner)),
        C(problem) (a sentence, or null), C(note) (what has just happened on it, may be left out), and C(environments),
        C(disk) and C(engine) as M(haku.river.haku_sync_info) returns them, or null where the machine did not tell.
    type: dict
    required: true
  width:
    description:
      - How many characters a line may have. The default is the terminal's width, or 79 where there is none, less what
        Ansible puts around a message.
    type: int
"""

EXAMPLES = r"""
- name: Show the fleet
  ansible.builtin.debug:
    msg: "{{ (fleet | haku.river.fleet_table).splitlines() }}"
"""

RETURN = r"""
_value:
  description:
    - The table, in lines.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.haku.river.plugins.plugin_utils.fleet_input import read_fleet
from ansible_collections.haku.river.plugins.plugin_utils.fleet_table import table

# A line of a list in a message of `ansible.builtin.debug` is indented, quoted, and followed by a comma.
_AROUND = 12


def fleet_table(data: Mapping[str, Any], width: int | None = None) -> str:
    """Write fleet data as a table."""
    return table(read_fleet(data, "fleet_table"), width or Display().columns - _AROUND)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"fleet_table": fleet_table}
