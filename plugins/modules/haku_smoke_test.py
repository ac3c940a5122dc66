#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_smoke_test
version_added: 0.2.0
short_description: Try this machine's image of an environment by running a command in it
description:
  - Runs a command in a fresh container of the environment's image, and removes the container.
  - The module fails if the command does not end with 0, or not in time. Then RV(passed) is V(false). Where the machine
    could not run the test at all, the module fails without RV(passed).
  - C(haku.river.distribute) runs it after each load.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue.image
  - haku.river.attributes
  - haku.river.attributes.info
options:
  name:
    description:
      - The environment.
    type: str
    required: true
  command:
    description:
      - What to run. A list of arguments is run as it is, a string by the image's C(sh). The image's entry point is not
        used.
    type: raw
    required: true
  test_timeout:
    description:
      - How long the command may take, in seconds. Then it is killed, and has failed.
    type: int
    default: 60
  network:
    description:
      - The network of the container.
    type: str
    default: none
  volumes:
    description:
      - What to mount, as C(SOURCE:TARGET) or C(SOURCE:TARGET:MODE).
    type: list
    elements: str
    default: []
  gpus:
    description:
      - The GPUs that the container gets. V(all), a number, or a list of IDs.
    type: raw
    default: 0
seealso:
  - module: haku.river.haku_sync
"""

EXAMPLES = r"""
- name: Try whether the libraries can be imported
  haku.river.haku_smoke_test:
    name: python-data-science
    command: python -c 'import pandas, matplotlib'

- name: Try whether the environment finds a GPU
  haku.river.haku_smoke_test:
    name: cuda-training
    command: [/opt/venv/bin/python, -c, "import torch; assert torch.cuda.is_available()"]
    gpus: all
    test_timeout: 120
"""

RETURN = r"""
image:
  description: The image that was tried.
  returned: success
  type: str
  sample: hakuriver/python-data-science:base
passed:
  description: Whether the command ended with 0 in time. Null in check mode, which runs nothing.
  returned: unless the machine could not run the test
  type: bool
  sample: true
rc:
  description: The command's exit code. Null if it did not end in time, and in check mode.
  returned: unless the machine could not run the test
  type: int
  sample: 0
output:
  description: The end of what the command wrote to standard output and standard error. Null in check mode.
  returned: unless the machine could not run the test
  type: str
  sample: "ModuleNotFoundError: No module named 'pandas'"
seconds:
  description: How long it took. Null in check mode.
  returned: unless the machine could not run the test
  type: float
  sample: 1.4
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import IMAGE_OPTIONS, image_reference
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.settings import parse_gpus, parse_volumes
from ansible_collections.haku.river.plugins.module_utils.smoke_test import (
    SmokeTest,
    parse_test_command,
    run_smoke_test,
)


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "command": {"type": "raw", "required": True},
        "test_timeout": {"type": "int", "default": 60},
        "network": {"type": "str", "default": "none"},
        "volumes": {"type": "list", "elements": "str", "default": []},
        "gpus": {"type": "raw", "default": 0},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **IMAGE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        test = SmokeTest(
            asked["name"],
            image_reference(asked["image_prefix"], asked["name"], asked["image_tag"]),
            parse_test_command(asked["command"]),
            asked["test_timeout"],
            asked["network"],
            parse_volumes(asked["volumes"]),
            parse_gpus(asked["gpus"]),
        )
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        return run_smoke_test(engine, test, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
