#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_instance_info
version_added: 0.2.0
short_description: List containers that run servers, with their logs
description:
  - Lists all containers of an engine, or looks for one, running or not.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.engine.kind
  - haku.river.attributes
  - haku.river.attributes.info
options:
  name:
    description:
      - Look for the container of this name or ID only. One that does not exist is not listed, and not an error.
    type: str
  tail:
    description:
      - How many of the last lines that each server wrote to return. V(0) is none.
    type: int
    default: 0
seealso:
  - module: haku.river.haku_instance
  - module: haku.river.haku_console
  - module: haku.river.haku_container_info
    description: Lists the containers of environments.
"""

EXAMPLES = r"""
- name: List all instances of the user's Podman
  haku.river.haku_instance_info:
    engine: podman
  register: all_of_them

- name: See what a server last wrote
  haku.river.haku_instance_info:
    name: resonite
    tail: 50
  register: server

- name: Show it
  ansible.builtin.debug:
    var: server.instances[0].logs
"""

RETURN = r"""
instances:
  description: The instances, by name.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The container's ID.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    name:
      description: The container's name.
      type: str
      sample: resonite
    image:
      description: The image that the container was created from.
      type: str
      sample: example/resonite-headless:latest
    status:
      description: The engine's word for what the container does.
      type: str
      sample: running
    logs:
      description:
        - The last lines that the server wrote, with the colours it gave them. Null if O(tail=0).
        - Without O(name), also null for containers whose log cannot be read, such as those with the log driver C(none).
      type: str
      sample: "World running..."
attempts:
  description: Where an engine was looked for, in order; the last one is where it was found.
  returned: success
  type: list
  elements: dict
  contains:
    url:
      description: The address.
      type: str
      sample: unix:///var/run/docker.sock
    origin:
      description: Why it was tried.
      type: str
      sample: the default socket
    failure:
      description: Why no engine answered there. Null if one did.
      type: str
      sample: null
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.instance import INTERFACE_OPTIONS, open_interface
from ansible_collections.haku.river.plugins.module_utils.instance_info import described_instances
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report


def main() -> None:
    options = {"name": {"type": "str"}, "tail": {"type": "int", "default": 0}}
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **INTERFACE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        with open_interface(asked["engine"], pick(asked, ENGINE_OPTIONS)) as interface:
            found = described_instances(interface, asked["name"], asked["tail"])
            facts = {"instances": found, "attempts": [asdict(attempt) for attempt in interface.attempts]}
            return Outcome(changed=False, facts=facts, warnings=interface.warnings)

    report(module, work)


if __name__ == "__main__":
    main()
