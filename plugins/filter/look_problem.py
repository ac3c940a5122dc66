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
  - A machine whose directory of tarballs is marked otherwise than the Host's is out of order as well.
positional: _input, host
options:
  _input:
    description: What was registered of the task.
    type: dict
    required: true
  host:
    description: What was registered of it on the Host, whose directory is the right one.
    type: dict
    default: {}
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

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils import look as _look


def look_problem(look: Mapping[str, Any], host: Mapping[str, Any] | None = None) -> str:
    """Tell what is wrong with a machine."""
    return _look.look_problem(look, host or {})


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"look_problem": look_problem}
