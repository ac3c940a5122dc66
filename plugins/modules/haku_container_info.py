#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_container_info
version_added: 0.1.0
short_description: List the containers of environments
description:
  - Lists the managed containers of environments, running or not. These have the label C(haku.river.managed=true), and
    C(haku.river.env) with their own name.
  - Tasks, VPS and other containers are not listed.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.attributes.river_and_shared
  - haku.river.attributes.info
options:
  name:
    description:
      - List the container of this environment only. One that does not exist is not listed, and not an error.
    type: str
  size:
    description:
      - Also tell how much each container adds to its image. The engine adds up all files for that, which takes a while.
    type: bool
    default: false
  shared_dir:
    description:
      - The directory that Host and Runners share. If it is set, RV(containers[].changed_since_packaged) tells how each
        container compares with its newest version there.
    type: path
  container_dir:
    description:
      - The directory of the tarballs, below O(shared_dir).
    type: str
    default: hakuriver-containers
seealso:
  - module: haku.river.haku_container
  - module: haku.river.haku_tar_info
"""

EXAMPLES = r"""
- name: List the environments on the Host
  haku.river.haku_container_info:
  register: host

- name: Show them
  ansible.builtin.debug:
    msg: "{{ item.name }} ({{ item.image }}): {{ item.status }}"
  loop: "{{ host.containers }}"
  loop_control:
    label: "{{ item.name }}"

- name: Find out which environments have changes that no Runner has yet
  haku.river.haku_container_info:
    shared_dir: /shared
  register: host

- name: Package those, and those of which it cannot be told
  haku.river.haku_tar:
    name: "{{ item }}"
    shared_dir: /shared
  loop: "{{ host.containers | rejectattr('changed_since_packaged', 'eq', false) | map(attribute='name') }}"
"""

RETURN = r"""
containers:
  description: The containers, by name.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The container's ID.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    name:
      description: The container's name, which is the environment's.
      type: str
      sample: python-data-science
    image:
      description: The image that was asked for when the container was created.
      type: str
      sample: python:3.9-slim
    state:
      description: The engine's word for what the container does.
      type: str
      sample: running
    status:
      description: The same for people, as C(docker ps) has it.
      type: str
      sample: Up 3 minutes
    created:
      description: When the container was created. Packaging may create it anew on top of what was packaged.
      type: str
      sample: "2026-01-01T00:00:00Z"
    size_bytes:
      description: How much the container adds to its image. Null unless O(size=true).
      type: int
      sample: 24117248
    changed_since_packaged:
      description:
        - Whether the container holds something that the newest version in O(shared_dir) does not.
        - V(true) if there is no version, if the container continues on the newest version and files in it have changed
          since, or if it was created anew from another image since.
        - V(false) if it continues on the newest version and no file in it has changed, or if it is older than that
          version and no file in it has ever changed.
        - V(null) if O(shared_dir) is not set, or if it cannot be told, because the container does not continue on the
          newest version and has changed files. They may have been packaged or not, as an engine does not say when a
          file changed. M(haku.river.haku_tar) in check mode finds out.
        - Files in mounts do not count.
      type: bool
      sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS, Catalogue
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.container_info import described_containers
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import check_environment_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report


def main() -> None:
    options = {
        "name": {"type": "str"},
        "size": {"type": "bool", "default": False},
        "shared_dir": {"type": "path"},
        "container_dir": CATALOGUE_OPTIONS["container_dir"],
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        name = check_environment_name(asked["name"]) if asked["name"] is not None else None
        catalogue = Catalogue(**pick(asked, CATALOGUE_OPTIONS)) if asked["shared_dir"] else None
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        found = described_containers(engine, catalogue, name, asked["size"])
        return Outcome(changed=False, facts={"containers": found}, warnings=engine.warnings)

    report(module, work)


if __name__ == "__main__":
    main()
