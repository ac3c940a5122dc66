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
  - Only layers that no image on this machine has are read and loaded, so that a sync costs what has changed. An image
    that is here under its version's tag only gets the current tag, and nothing is read.
  - Every layer is proven by its digest on its way to the engine, and the loaded image by its layers and
    configuration. Only then the tag moves, so that the former image stays in use if anything is wrong.
  - The former image is removed, unless O(keep_images) asks to keep it, or a container or another tag uses it. One
    that a container uses gets the tag of its version, and is removed by a later synchronisation that finds it unused.
  - Nothing is ever pulled from a registry.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue
  - haku.river.catalogue.web
  - haku.river.catalogue.image
  - haku.river.attributes.river_and_shared
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
      - V(absent) removes the image from this machine, and those of former versions that no container uses. Tarballs
        stay. With O(version), it removes only the image that was kept of that former version.
    type: str
    choices: [present, absent]
    default: present
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount.
      - O(state=present) needs either this or O(source).
    type: path
    required: false
  version:
    description:
      - The timestamp of the version to have. The newest one if this is not set.
      - A version whose image is here needs neither a tarball nor the directory.
    type: int
  delta:
    description:
      - Whether layers that this machine has are left out of what is read and loaded.
      - V(auto) leaves them out, and loads all of them if the engine turns out to need them, with a warning.
      - V(always) leaves them out, and fails if the engine needs them.
      - V(never) loads all layers.
    type: str
    choices: [auto, always, never]
    default: auto
  keep_images:
    description:
      - How many former images stay on this machine, tagged with their version, so that going back to them reads nothing
        and needs no tarball. Older ones are removed whenever the image changes.
      - With O(state=absent), how many of them stay without a current image beside them.
    type: int
    default: 0
  lock_timeout:
    description:
      - How long to wait, in seconds, for another synchronisation of the same environment on this machine.
    type: int
    default: 3600
seealso:
  - module: haku.river.haku_sync_info
  - module: haku.river.haku_tar
  - module: haku.river.haku_tar_info
"""

EXAMPLES = r"""
- name: Have the newest version
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared

- name: Have the newest version, and keep two former ones to go back to at once
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared
    keep_images: 2

- name: Have the newest version on a machine without the shared directory
  haku.river.haku_sync:
    name: python-data-science
    source: https://storage.example.org/hakuriver-containers/
    source_ca_path: /etc/ssl/certs/lab-ca.pem
    source_username: runner
    source_password: "{{ vault_storage_password }}"

- name: Go back to an older version
  haku.river.haku_sync:
    name: python-data-science
    shared_dir: /shared
    version: 1764547200

- name: Remove the image from this machine
  haku.river.haku_sync:
    name: python-data-science
    state: absent

- name: Remove only the image that was kept of a former version
  haku.river.haku_sync:
    name: python-data-science
    version: 1764547200
    state: absent
"""

RETURN = r"""
image:
  description: The image's tag on this machine.
  returned: success
  type: str
  sample: hakuriver/python-data-science:base
image_id:
  description: The ID of the image that has this tag now. Null in check mode if it would be loaded.
  returned: when O(state=present)
  type: str
  sample: sha256:7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
action:
  description:
    - What was done, or in check mode would be.
    - V(none); V(load), the image was loaded; V(tag), it was here, and only its tag moved; or V(remove).
  returned: success
  type: str
  sample: load
version:
  description: The version that this machine has now, in Unix seconds.
  returned: when O(state=present)
  type: int
  sample: 1767225600
former_versions:
  description:
    - The former versions whose images stay on this machine, newest first. Null if nothing was done, as nobody looked.
  returned: when O(state=present)
  type: list
  elements: int
  sample: [1767139200]
tarball:
  description: The path or address of the tarball whose index was read to change the image. Null if none was.
  returned: when O(state=present)
  type: str
  sample: /shared/hakuriver-containers/python-data-science-1767225600.tar
bytes_read:
  description: How much was read of the tarball, or in check mode would be.
  returned: when O(state=present)
  type: int
  sample: 3155425
bytes_total:
  description: The size of the tarball. Null if there is none.
  returned: when O(state=present)
  type: int
  sample: 741343232
layers_loaded:
  description: How many layers were loaded.
  returned: when O(state=present)
  type: int
  sample: 1
layers_reused:
  description: How many layers were not loaded, because this machine had them.
  returned: when O(state=present)
  type: int
  sample: 4
fallback:
  description:
    - Why all layers were loaded although this machine has some of them, in the engine's words. Null if that was not so,
      and in check mode, as it cannot be foretold.
  returned: when O(state=present)
  type: str
  sample: null
seconds:
  description: How long it took. Null in check mode.
  returned: when O(state=present)
  type: float
  sample: 14.2
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import (
    IMAGE_OPTIONS,
    check_environment_name,
    image_reference,
)
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.source import ONE_SOURCE, SOURCE_OPTIONS, chosen_source
from ansible_collections.haku.river.plugins.module_utils.sync import remove, synchronise
from ansible_collections.haku.river.plugins.module_utils.sync_view import Delta, Synchronising


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
        argument_spec={**ENGINE_OPTIONS, **SOURCE_OPTIONS, **IMAGE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        required_if=[("state", "present", ("shared_dir", "source"), True)],
        mutually_exclusive=ONE_SOURCE,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        name = check_environment_name(asked["name"])
        reference = image_reference(asked["image_prefix"], name, asked["image_tag"])
        wish = Synchronising(
            name, reference, asked["version"], Delta(asked["delta"]), asked["keep_images"], asked["lock_timeout"]
        )
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        if asked["state"] == "absent":
            return remove(engine, wish, module.check_mode)
        source = chosen_source(pick(asked, SOURCE_OPTIONS), module.no_log_values.update)
        return synchronise(engine, source, wish, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
