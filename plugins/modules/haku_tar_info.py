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
  - Lists the tarballs in a shared directory, or on a web server, by environment, newest first.
  - Needs no container engine, so it answers on every machine that has the shared directory or reaches the server.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.catalogue
  - haku.river.catalogue.web
  - haku.river.attributes.shared
  - haku.river.attributes.info
options:
  name:
    description:
      - List this environment only. One without a version is not listed, and not an error.
    type: str
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount.
      - Either this or O(source) is needed.
    type: path
    required: false
requirements:
  - For O(source), the Python library requests (C(python3-requests), which comes with the Docker SDK)
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

- name: List those of a web server
  haku.river.haku_tar_info:
    source: https://storage.example.org/hakuriver-containers/
"""

RETURN = r"""
environments:
  description:
    - The environments that have a version, by name.
    - With O(source), C(latest_tarball) and C(tarball) are addresses, and C(size) is null where the server has no
      C(catalogue.json).
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
from ansible_collections.haku.river.plugins.module_utils.names import check_environment_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.published import described_versions
from ansible_collections.haku.river.plugins.module_utils.source import ONE_SOURCE, SOURCE_OPTIONS, chosen_source


def main() -> None:
    module = AnsibleModule(
        argument_spec={**SOURCE_OPTIONS, "name": {"type": "str"}},
        required_one_of=ONE_SOURCE,
        mutually_exclusive=ONE_SOURCE,
        supports_check_mode=True,
    )
    name = module.params["name"]

    def work() -> Outcome:
        wanted = check_environment_name(name) if name is not None else None
        source = chosen_source(pick(module.params, SOURCE_OPTIONS), module.no_log_values.update)
        described = described_versions(source, wanted)
        return Outcome(changed=False, facts={"environments": described}, warnings=source.warnings)

    report(module, work)


if __name__ == "__main__":
    main()
