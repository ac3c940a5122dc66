#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_tar_info
version_added: 0.1.0
short_description: List the packaged versions of environments
description:
  - Lists the tarballs in a shared directory by environment, newest first.
  - Needs no container engine, so it answers on every machine that has the shared directory.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.catalogue
  - haku.river.attributes
  - haku.river.attributes.info
options:
  name:
    description:
      - List this environment only. One without a version is not listed, and not an error.
    type: str
seealso:
  - module: haku.river.haku_tar
  - module: haku.river.haku_sync
"""

EXAMPLES = r"""
- name: List all versions of all environments
  haku.river.haku_tar_info:
    shared_dir: /shared
  register: tarballs

- name: Show the newest version of each
  ansible.builtin.debug:
    msg: "{{ item.key }}: {{ item.value.latest_tarball }}"
  loop: "{{ tarballs.environments | dict2items }}"
"""

RETURN = r"""
environments:
  description: The environments that have a version, by name.
  returned: success
  type: dict
  sample:
    python-data-science:
      latest_timestamp: 1767225600
      latest_tarball: /shared/hakuriver-containers/python-data-science-1767225600.tar
      all_versions:
        - timestamp: 1767225600
          tarball: /shared/hakuriver-containers/python-data-science-1767225600.tar
          size: 741343232
          created: "2026-01-01T00:00:00Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS, Catalogue
from ansible_collections.haku.river.plugins.module_utils.names import check_environment_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report


def main() -> None:
    module = AnsibleModule(
        argument_spec={**CATALOGUE_OPTIONS, "name": {"type": "str"}},
        supports_check_mode=True,
    )
    name = module.params["name"]

    def work() -> Outcome:
        wanted = check_environment_name(name) if name is not None else None
        catalogue = Catalogue(**pick(module.params, CATALOGUE_OPTIONS))
        return Outcome(changed=False, facts={"environments": catalogue.described(wanted)})

    report(module, work)


if __name__ == "__main__":
    main()
