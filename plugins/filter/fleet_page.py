# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as a web page."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: fleet_page
short_description: Show which machine has which version of which environment as a web page
version_added: 0.2.0
description:
  - Returns one HTML page that is complete in itself. It has no script and fetches nothing, so that it can be opened as
    a file, sent by mail, or put on any web server.
  - It shows problems with their causes, the versions of each environment over time, who has which, sizes and disks, in
    light and dark, on any screen and on paper.
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
- name: Write the page
  ansible.builtin.copy:
    content: "{{ fleet | haku.river.fleet_page }}"
    dest: /srv/www/status.html
    mode: "0644"
"""

RETURN = r"""
_value:
  description:
    - The page.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.fleet_input import read_fleet
from ansible_collections.haku.river.plugins.plugin_utils.fleet_page import page


def fleet_page(data: Mapping[str, Any]) -> str:
    """Write fleet data as a page."""
    return page(read_fleet(data, "fleet_page"))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"fleet_page": fleet_page}
