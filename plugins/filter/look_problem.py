# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a machine that was looked at."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: look_problem
short_description: Tell what is wrong with a machine that was looked at
version_added: 0.2.0
description:
  - Makes a sentence of what M(haku.river.haku_sync_info) returned on a machine, or of why it returned nothing, without
    what Ansible puts before the words of others.
positional: _input
options:
  _input:
    description: What was registered of the task.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Look which versions are here
  haku.river.haku_sync_info:
    shared_dir: /shared
  register: look
  ignore_unreachable: true

- name: Tell what is wrong
  ansible.builtin.debug:
    msg: "{{ look | haku.river.look_problem }}"
"""

RETURN = r"""
_value:
  description:
    - The sentence. Empty if nothing is wrong.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.look import failure


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"look_problem": failure}
