#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_sync_info
version_added: 0.2.0
short_description: Tell which version of which environment this machine has
description:
  - Lists the environments of which this machine has an image, with their versions, and tells about its engine and disk.
  - Where O(shared_dir) or O(source) is given, it also lists the environments that have a version there, and tells which
    images are not the newest version. The newest tarball is looked into (a few KiB) only where the image's time of
    creation is another than the version.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue
  - haku.river.catalogue.web
  - haku.river.catalogue.image
  - haku.river.attributes.river_and_shared
  - haku.river.attributes.info
options:
  name:
    description:
      - Tell about this environment only. One that is neither here nor published is not listed, and not an error.
    type: str
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount.
      - Without this and O(source), nothing is said of what is the newest.
    type: path
    required: false
seealso:
  - module: haku.river.haku_sync
  - module: haku.river.haku_tar_info
"""

EXAMPLES = r"""
- name: Look which versions this machine has
  haku.river.haku_sync_info:
  register: machine

- name: Look which of them are not the newest
  haku.river.haku_sync_info:
    shared_dir: /shared
  register: machine

- name: Show those
  ansible.builtin.debug:
    msg: "{{ item.key }} has {{ item.value.version }}, and there is {{ item.value.newest_version }}"
  loop: "{{ machine.environments | dict2items | selectattr('value.stale') }}"
  loop_control:
    label: "{{ item.key }}"
"""

RETURN = r"""
environments:
  description:
    - By name, the environments of which there is an image here, be it a former version, and those that have a version
      in O(shared_dir) or at O(source).
  returned: success
  type: dict
  contains:
    version:
      description:
        - The version of the current image, in Unix seconds. Null if there is no such image, or if it has no time of
          creation.
        - It is the image's time of creation, or the version of the tarball that has the same layers and configuration.
      type: int
      sample: 1767139200
    image:
      description: The current image's tag, whether it is there or not.
      type: str
      sample: hakuriver/python-data-science:base
    image_id:
      description: The current image's ID. Null if there is none.
      type: str
      sample: sha256:7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    created:
      description: When the current image was created. Null if there is none, or if it does not tell.
      type: str
      sample: "2025-12-31T00:00:00Z"
    size:
      description: The current image's size in bytes, in the engine's own reckoning. Null if there is none.
      type: int
      sample: 741343232
    former_versions:
      description: The versions that stay here beside the current one, newest first.
      type: list
      elements: int
      sample: [1767052800]
    newest_version:
      description: The newest version that is published. Null if there is none, or without O(shared_dir) and O(source).
      type: int
      sample: 1767225600
    published_versions:
      description: All versions that are published, newest first. Null without O(shared_dir) and O(source).
      type: list
      elements: int
      sample: [1767225600, 1767139200]
    stale:
      description:
        - Whether M(haku.river.haku_sync) would bring another version, or the first one. Null without O(shared_dir) and
          O(source).
      type: bool
      sample: true
  sample:
    python-data-science:
      version: 1767139200
      image: hakuriver/python-data-science:base
      image_id: sha256:7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
      created: "2025-12-31T00:00:00Z"
      size: 741343232
      former_versions: [1767052800]
      newest_version: 1767225600
      published_versions: [1767225600, 1767139200]
      stale: true
directory:
  description: The directory of tarballs. Null without O(shared_dir) and O(source).
  returned: success
  type: dict
  contains:
    location:
      description: Its path or address.
      type: str
    id:
      description:
        - The identity by which the role P(haku.river.host#role) has marked it, so that it can be told from another one.
          Null if it is not marked, or at O(source).
      type: str
  sample: {location: /shared/hakuriver-containers, id: 5f0c2b9e-8a43-4f5e-9d0b-6c1f7d7b2a11}
disk:
  description:
    - The file system on which the engine keeps images. Null if the engine is reached over a network or is another
      machine's, or if the file system cannot be read.
  returned: success
  type: dict
  contains:
    path:
      description: The engine's data directory.
      type: str
    total:
      description: The file system's size in bytes.
      type: int
    free:
      description: How many bytes of it are free for ordinary users.
      type: int
  sample: {path: /var/lib/docker, total: 499963174912, free: 212366778368}
engine:
  description: The engine.
  returned: success
  type: dict
  contains:
    version:
      description: Its version.
      type: str
    storage:
      description: How it keeps images, V(containerd) or the name of a storage driver.
      type: str
  sample: {version: 28.5.2, storage: overlay2}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import IMAGE_OPTIONS, check_environment_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.source import ONE_SOURCE, SOURCE_OPTIONS, chosen_source
from ansible_collections.haku.river.plugins.module_utils.sync_info import described_machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **SOURCE_OPTIONS, **IMAGE_OPTIONS, "name": {"type": "str"}},
        required_together=ENGINE_REQUIRED_TOGETHER,
        mutually_exclusive=ONE_SOURCE,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        name = check_environment_name(asked["name"]) if asked["name"] is not None else None
        options = pick(asked, SOURCE_OPTIONS)
        has_source = asked["shared_dir"] is not None or asked["source"] is not None
        source = chosen_source(options, module.no_log_values.update) if has_source else None
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        return described_machine(engine, source, asked["image_prefix"], asked["image_tag"], name)

    report(module, work)


if __name__ == "__main__":
    main()
