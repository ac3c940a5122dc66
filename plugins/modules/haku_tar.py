#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_tar
version_added: 0.1.0
short_description: Package an environment's container into a tarball on a shared directory
description:
  - Commits the container of an environment and publishes it as the newest version, C(<name>-<timestamp>.tar).
  - The environment is away for the commit only. It runs again before the tarball is written.
  - A tarball gets its name only when it is whole and proven by the digests of its layers.
  - If nothing changed since the newest version, nothing is published.
  - A package costs what changed. The layers that the newest tarball has already are cloned from it inside the kernel,
    which takes neither time nor space on XFS, Btrfs and NFS 4.2 over them. New layers are made from the engine's own
    storage, bit for bit, and proven by their digests. Where that cannot be read, for example because the engine is on
    another machine, C(docker save) serves, and RV(layers_from) and a warning say so.
  - The tarball has an OCI layout with a C(manifest.json), which C(docker load), Podman, Skopeo and HakuRiver read.
  - The image's command and entry point are those of the image that the container was created from. Labels that begin
    with C(haku.river.) stay out of it, so that a container of the image is not taken for a managed one.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue
  - haku.river.catalogue.image
  - haku.river.attributes.river_and_shared
  - haku.river.attributes.state
attributes:
  check_mode:
    details:
      - To see whether anything changed, check mode commits the container as it runs, without stopping or pausing it,
        and removes that image again.
      - What cannot be foretold of a tarball that is not written yet is null.
options:
  name:
    description:
      - The environment, and so the name of its container.
      - Lower-case letters and digits, parted by single dots, one or two underscores, or hyphens.
    type: str
    required: true
  state:
    description:
      - V(present) packages the container.
      - V(absent) removes tarballs, the one that O(version) names or all of the environment. No container and no image
        is touched.
    type: str
    choices: [present, absent]
    default: present
  version:
    description:
      - With O(state=absent), the timestamp of the version to remove. All versions are removed if this is not set.
    type: int
  keep:
    description:
      - How many versions to keep, the newest ones. Older ones are removed after the new one is published.
    type: int
    default: 1
  prune_grace:
    description:
      - Versions younger than this many seconds stay although O(keep) would have them removed.
      - A Runner that reads a version while it is removed takes the newest one instead, so this is not needed for
        safety, but spares it the second start where packages follow each other closely.
    type: int
    default: 0
  consistency:
    description:
      - V(stop) stops the container for the commit, so that programs write out what they hold in memory.
      - V(pause) only freezes it, which takes less time and keeps its processes.
      - A container that does not run is committed as it is.
    type: str
    choices: [stop, pause]
    default: stop
  stop_timeout:
    description:
      - How long the container may take to stop, in seconds, before it is killed.
    type: int
    default: 10
  lock_timeout:
    description:
      - How long to wait, in seconds, for another packager of the same environment. V(0) refuses at once.
    type: int
    default: 600
  rebase:
    description:
      - Let the container continue on the image that was made of it, so that the next package has only what changes from
        now on, as one more layer. Another container takes its place, with the same name, settings, labels, mounts,
        volumes and networks. It has a new ID, and its log begins anew.
      - The image stays on this machine as C(<image_prefix>/<name>:host-<version>) while the container needs it.
      - It needs the engine's storage to be readable, and a container that is stopped for the commit. A paused one, or
        one that is packaged with O(consistency=pause), keeps its processes and so continues as it is. So does one
        in whose network, PID or IPC namespace others are, as they know it by its ID; a warning says so.
      - Layers have no ACLs and, but for file capabilities, no extended attributes. Files that were changed lose theirs.
      - If V(false), each package has all that was changed since the container was created, as one layer.
    type: bool
    default: true
    version_added: 0.2.0
  max_layers:
    description:
      - How many layers packages may put on the base image. When there would be more, those that are there are made one
        before the package, while the container runs. So they are when most of their weight is dead, that is, files
        that later layers replaced or deleted.
      - The layers of the base image stay as they are, still shared with whatever else has them. Runners
        load the new layer once, whole.
      - V(2) is the least, and makes one of them with this change. Without a change nothing is published.
    type: int
    default: 32
    version_added: 0.2.0
  adopt:
    description:
      - Package a container although it has no label C(haku.river.managed=true).
    type: bool
    default: false
seealso:
  - module: haku.river.haku_container
  - module: haku.river.haku_tar_info
  - module: haku.river.haku_sync
"""

EXAMPLES = r"""
- name: Package an environment
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared

- name: Package it and keep the three newest versions
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    keep: 3

- name: Package it without stopping what runs in it
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    consistency: pause

- name: Package it as it is, without another container in its place
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    rebase: false

- name: Package what has changed, and get rid of what earlier versions had and this one has not
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    max_layers: 2

- name: Remove one version
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    state: absent
    version: 1767225600

- name: Remove every version
  haku.river.haku_tar:
    name: python-data-science
    shared_dir: /shared
    state: absent
"""

RETURN = r"""
published:
  description: Whether a new version was published, or in check mode would be.
  returned: when O(state=present)
  type: bool
  sample: true
version:
  description: The newest version, in Unix seconds. Null in check mode if it would be published.
  returned: when O(state=present)
  type: int
  sample: 1767225600
tarball:
  description: The path of the newest version. Null in check mode if it would be published.
  returned: when O(state=present)
  type: str
  sample: /shared/hakuriver-containers/python-data-science-1767225600.tar
size_bytes:
  description: The size of the newest version. Null in check mode if it would be published.
  returned: when O(state=present)
  type: int
  sample: 741343232
removed:
  description: The versions that were removed, newest first.
  returned: success
  type: list
  elements: int
  sample: [1764547200]
versions:
  description: The versions that there are now, newest first. One that check mode would publish is null.
  returned: success
  type: list
  elements: int
  sample: [1767225600]
rebased:
  description: Whether the container continues on the image of the new version, or in check mode would.
  returned: when O(state=present)
  type: bool
  sample: true
  version_added: 0.2.0
compacted:
  description: Whether the layers of earlier packages were made one, or in check mode would be.
  returned: when O(state=present)
  type: bool
  sample: false
  version_added: 0.2.0
layers_from:
  description:
    - Where the layers that were written came from, V(overlay2), V(containerd content store) or V(containers storage),
      which are the engine's storage, or V(docker save). Null if no version was published, and in check mode.
  returned: when O(state=present)
  type: str
  sample: overlay2
layers_written:
  description: How many layers were written. Null in check mode if a version would be published.
  returned: when O(state=present)
  type: int
  sample: 1
  version_added: 0.2.0
layers_cloned:
  description: How many layers were cloned from the version before. Null in check mode if a version would be published.
  returned: when O(state=present)
  type: int
  sample: 4
  version_added: 0.2.0
bytes_written:
  description: How much was written and not cloned. Null in check mode if a version would be published.
  returned: when O(state=present)
  type: int
  sample: 3154944
  version_added: 0.2.0
away_seconds:
  description: How long the environment was stopped. 0 if it was not stopped, null in check mode.
  returned: when O(state=present)
  type: float
  sample: 0.42
seconds:
  description: How long all of it took. Null in check mode.
  returned: when O(state=present)
  type: float
  sample: 12.3
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS, Catalogue
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    IMAGE_OPTIONS,
    check_environment_name,
    image_reference,
)
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.package import package, remove
from ansible_collections.haku.river.plugins.module_utils.package_plan import Packaging


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "version": {"type": "int"},
        "keep": {"type": "int", "default": 1},
        "prune_grace": {"type": "int", "default": 0},
        "consistency": {"type": "str", "choices": ["stop", "pause"], "default": "stop"},
        "stop_timeout": {"type": "int", "default": 10},
        "lock_timeout": {"type": "int", "default": 600},
        "rebase": {"type": "bool", "default": True},
        "max_layers": {"type": "int", "default": 32},
        "adopt": {"type": "bool", "default": False},
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
        if asked["state"] == "present" and asked["version"] is not None:
            raise HakuError("A new version is named by its time", remedy="Use version only with state: absent")
        if asked["state"] == "absent":
            return remove(catalogue, name, asked["version"], asked["lock_timeout"], module.check_mode)
        wish = Packaging(
            environment=name,
            reference=image_reference(asked["image_prefix"], name, asked["image_tag"]),
            keep=asked["keep"],
            stop=asked["consistency"] == "stop",
            stop_timeout_seconds=asked["stop_timeout"],
            lock_timeout_seconds=asked["lock_timeout"],
            prune_grace_seconds=asked["prune_grace"],
            rebase=asked["rebase"],
            max_layers=asked["max_layers"],
            adopt=asked["adopt"],
        )
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        return package(engine, catalogue, wish, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
