#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_vps_info
version_added: 0.2.0
short_description: List the VPS on this Runner, and their snapshots
description:
  - Lists the SSH machines that M(haku.river.haku_vps) has made on this machine, running or not, and the snapshots that
    there are, also those of machines that were removed.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.attributes
  - haku.river.attributes.info
options:
  vps:
    description:
      - List this VPS and its snapshots only. One that does not exist is not listed, and not an error.
    type: str
  name:
    description:
      - List the VPS of this environment only.
    type: str
seealso:
  - module: haku.river.haku_vps
"""

EXAMPLES = r"""
- name: List the machines on each Runner
  haku.river.haku_vps_info:
  register: runner

- name: Show them
  ansible.builtin.debug:
    msg: "{{ item.name }} ({{ item.environment }}) at port {{ item.port }}: {{ item.status }}"
  loop: "{{ runner.machines }}"
  loop_control:
    label: "{{ item.name }}"

- name: List the snapshots of one
  haku.river.haku_vps_info:
    vps: alice
  register: runner

- name: Go back to the oldest of them
  haku.river.haku_vps:
    vps: alice
    state: restored
    snapshot: "{{ (runner.snapshots | last).timestamp }}"
"""

RETURN = r"""
machines:
  description: The VPS, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: alice
    environment:
      description: The environment that it was made of.
      type: str
      sample: python-data-science
    version:
      description: The version of the environment that it was made of.
      type: int
      sample: 1767225600
    id:
      description: The container's ID.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    image:
      description: The tag of the environment's image.
      type: str
      sample: hakuriver/python-data-science:base
    state:
      description: The engine's word for what the container does.
      type: str
      sample: running
    status:
      description: The same for people, as C(docker ps) has it.
      type: str
      sample: Up 3 minutes
    created:
      description: When the machine was made.
      type: str
      sample: "2026-01-01T00:00:00Z"
    port:
      description: The port at which it is reached.
      type: int
      sample: 22000
    address:
      description: The address that the port is published on. V(0.0.0.0) is every one, also those of IPv6.
      type: str
      sample: 0.0.0.0
    user:
      description: Who logs in.
      type: str
      sample: root
    host_key_fingerprint:
      description: The fingerprint of its host key, as C(ssh) shows it. Null before its first start.
      type: str
      sample: SHA256:R/4ZcC3MYmZ1bWz3WVmiaHCYXGl2T1ecBPuB9zJoUYc
    authorized_keys:
      description: The keys that may log in, by fingerprint and name.
      type: list
      elements: str
      sample: ["SHA256:3PsgzHXrMyNtyE6NRwGxlOoRrjSbYfS9ioR6HzHKtQE alice@laptop"]
snapshots:
  description: The snapshots, by VPS, then newest first.
  returned: success
  type: list
  elements: dict
  contains:
    vps:
      description: The VPS that it was taken of.
      type: str
      sample: alice
    timestamp:
      description: When it was taken, in Unix seconds.
      type: int
      sample: 1767232800
    taken:
      description: The same for people.
      type: str
      sample: "2026-01-01T02:00:00Z"
    image:
      description: The image's tag on this machine.
      type: str
      sample: hakuriver/python-data-science:vps-alice-1767232800
    size_bytes:
      description: The size of the image, with all that it shares with the environment's.
      type: int
      sample: 741343232
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import check_environment_name, check_vps_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.vps_info import described_machines, described_snapshots


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, "vps": {"type": "str"}, "name": {"type": "str"}},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        vps = check_vps_name(asked["vps"]) if asked["vps"] is not None else None
        environment = check_environment_name(asked["name"]) if asked["name"] is not None else None
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        machines = described_machines(engine, vps, environment)
        facts = {"machines": machines, "snapshots": described_snapshots(engine, vps, environment)}
        return Outcome(changed=False, facts=facts, warnings=engine.warnings)

    report(module, work)


if __name__ == "__main__":
    main()
