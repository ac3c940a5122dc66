# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a machine of the inventory is reached."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: connection_variables
short_description: Take the connection variables out of a host's variables
version_added: 0.1.0
description:
  - Returns those variables of a host that its connection plugin and its become plugin read, whatever these plugins are.
  - It makes O(haku.river.env#connection:via) from a host of the inventory.
positional: _input
options:
  _input:
    description:
      - The variables of a host, C(hostvars[NAME]).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how the Host is reached
  ansible.builtin.debug:
    msg: "{{ hostvars[groups['haku_host'][0]] | haku.river.connection_variables }}"
  no_log: true # the Host's password may be among them
"""

RETURN = r"""
_value:
  description:
    - The variables, templated. Passwords are among them, if the host has any.
  type: dict
  sample:
    ansible_connection: ssh
    ansible_host: 192.0.2.10
    ansible_user: admin
    inventory_hostname: host1
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleFilterError
from ansible.plugins.loader import become_loader, connection_loader

ALWAYS = (
    *("inventory_hostname", "ansible_connection", "ansible_host", "ansible_port", "ansible_user"),
    *("ansible_become", "ansible_become_method"),
)


def connection_variables(host: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a host's variables that say how it is reached."""
    if not isinstance(host, Mapping):
        raise AnsibleFilterError("haku.river.connection_variables takes the variables of a host, hostvars[NAME].")
    connection = host.get("ansible_connection") or context.CLIARGS.get("connection") or constants.DEFAULT_TRANSPORT
    connection = "ssh" if connection == "smart" else connection
    method = host.get("ansible_become_method") or constants.DEFAULT_BECOME_METHOD
    # Loading a plugin is what makes its options known to the configuration.
    connection_loader.get(connection, class_only=True)
    become_loader.get(method, class_only=True)
    plugins = ("connection", connection), ("become", method)
    read = [name for kind, plugin in plugins for name in constants.config.get_plugin_vars(kind, plugin)]
    names = dict.fromkeys([*ALWAYS, *read])
    return {name: host[name] for name in names if name in host}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"connection_variables": connection_variables}
