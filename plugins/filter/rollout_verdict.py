# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict on a batch of a roll-out."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: rollout_verdict
short_description: Tell whether a roll-out goes on after a batch
version_added: 0.2.0
description:
  - Judges a batch of Runners for C(haku.river.distribute). A smoke test that fails ends the roll-out of its
    environment. What else fails is the Runner's own affair, unless too many of them have one, or all canaries.
  - It reads the variables C(haku_river_loaded) and C(haku_river_tested) of each Runner, which are what
    M(haku.river.haku_sync) and M(haku.river.haku_smoke_test) returned there in loops over environments.
positional: _input, machines, max_fail_percentage, canaries
options:
  _input:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  machines:
    description: The names of the Runners of the batch.
    type: list
    elements: str
    required: true
  max_fail_percentage:
    description: The share of the batch that may fail for reasons of its own.
    type: int
    default: 100
  canaries:
    description: The names of the Runners that are to try an environment before all others, by environment.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Judge the batch
  ansible.builtin.set_fact:
    verdict: "{{ hostvars | haku.river.rollout_verdict(ansible_play_batch) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The verdict.
  type: dict
  contains:
    stopped:
      description: Why the roll-out ends, by environment. Empty if it goes on for all of them.
      type: dict
    failed:
      description: The names of the environments that could not be loaded or tested, by Runner, for those that have any.
      type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.rollout import read_runners
from ansible_collections.haku.river.plugins.plugin_utils.rollout_report import judge_batch


def rollout_verdict(
    hostvars: Mapping[str, Mapping[str, Any]],
    machines: Sequence[str],
    max_fail_percentage: int | str = 100,
    canaries: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Judge a batch; values from the command line come as strings."""
    batch = read_runners(hostvars, machines)
    failed = {runner.name: list(filter(runner.failed_by_itself, runner.loaded)) for runner in batch}
    return {
        "stopped": judge_batch(batch, int(max_fail_percentage), canaries or {}),
        "failed": {name: environments for name, environments in failed.items() if environments},
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout_verdict": rollout_verdict}
