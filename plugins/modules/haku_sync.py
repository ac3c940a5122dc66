#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_sync
version_added: 0.1.0
short_description: Bring this machine's image of an environment to the newest or a pinned version
description:
  - Compares the image of an environment on this machine with the newest tarball in the shared directory, or with
    the one that O(version) pins, and loads the tarball if they differ. Pinning an older version goes back to it.
  - The image is current if its time of creation is the version, or if its layers (diff IDs) and configuration are
    those of the tarball. So the usual case, nothing to do, is one inspect and one listing of the directory.
  - Every layer is proven by its digest on its way to the engine, and the loaded image by its layers and
    configuration. Only then the tag moves, so that the former image stays in use if anything is wrong.
  - The former image is removed when no container and no other tag uses it.
  - Nothing is ever pulled from a registry.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue
  - haku.river.catalogue.image
  - haku.river.attributes
  - haku.river.attributes.state
options:
  name:
    description:
      - The environment.
      - Lower-case letters and digits, parted by single dots, one or two underscores, or hyphens.
    type: str
    required: true
  state:
    description:
      - V(present) loads the wanted version unless it is there.
      - V(absent) removes the image from this machine. Tarballs stay.
    type: str
    choices: [present, absent]
    default: present
  version:
    description:
      - The timestamp of the version to have. The newest one if this is not set.
    type: int
  lock_timeout:
    description:
      - How long to wait, in seconds, for another synchronisation of the same image on this machine.
    type: int
    default: 3600
seealso:
  - module: haku.river.haku_tar
  - module: haku.river.haku_tar_info
"""

EXAMPLES = r"""
- name: Have the newest version
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared

- name: Go back to an older version
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared
    version: 1764547200

- name: Remove the image from this machine
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared
    state: absent
"""

RETURN = r"""
image:
  description: The image's tag on this machine.
  returned: success
  type: str
  sample: hakuriver/python-data-science:base
action:
  description: What was done, or in check mode would be, V(none), V(load) or V(remove).
  returned: success
  type: str
  sample: load
version:
  description: The version that this machine has now, in Unix seconds.
  returned: when O(state=present)
  type: int
  sample: 1767225600
tarball:
  description: The tarball that was loaded. Null if none was.
  returned: when O(state=present)
  type: str
  sample: /shared/hakuriver-containers/python-data-science-1767225600.tar
bytes_read:
  description: How much was read from the shared directory, or in check mode would be.
  returned: when O(state=present)
  type: int
  sample: 741338112
bytes_total:
  description: The size of the tarball that was loaded. Null if none was.
  returned: when O(state=present)
  type: int
  sample: 741343232
layers_loaded:
  description: How many layers were loaded.
  returned: when O(state=present)
  type: int
  sample: 5
layers_reused:
  description: How many layers were not loaded, because this machine had them.
  returned: when O(state=present)
  type: int
  sample: 0
seconds:
  description: How long it took. Null in check mode.
  returned: when O(state=present)
  type: float
  sample: 14.2
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS, Catalogue
from ansible_collections.haku.river.plugins.module_utils.connect import (
    ENGINE_OPTIONS,
    ENGINE_REQUIRED_TOGETHER,
    EngineSettings,
    connect,
)
from ansible_collections.haku.river.plugins.module_utils.delta import Delta
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    IMAGE_OPTIONS,
    check_environment_name,
    image_reference,
)
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.sync import Synchronising, remove, synchronise


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "version": {"type": "int"},
        "delta": {"type": "str", "choices": [delta.value for delta in Delta], "default": "auto"},
        "keep_images": {"type": "int", "default": 0},
        "lock_timeout": {"type": "int", "default": 3600},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **CATALOGUE_OPTIONS, **IMAGE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        name = check_environment_name(asked["name"])
        catalogue = Catalogue(**pick(asked, CATALOGUE_OPTIONS))
        reference = image_reference(asked["image_prefix"], name, asked["image_tag"])
        wish = Synchronising(
            name, reference, asked["version"], Delta(asked["delta"]), asked["keep_images"], asked["lock_timeout"]
        )
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        if asked["state"] == "absent" and asked["version"] is not None:
            raise HakuError("state: absent removes whatever version there is", remedy="Leave version out")
        if asked["state"] == "absent":
            return remove(engine, wish, module.check_mode)
        return synchronise(engine, catalogue, wish, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
