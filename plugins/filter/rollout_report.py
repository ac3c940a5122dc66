# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a roll-out."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: rollout_report
short_description: Tell what a roll-out did on which Runner, and what each has now
version_added: 0.2.0
description:
  - Sums up for C(haku.river.distribute) and C(haku.river.rollback) what their tasks registered on the Runners.
positional: _input, machines
options:
  _input:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  machines:
    description: The names of the Runners.
    type: list
    elements: str
    required: true
  hosts:
    description: The names of the Host, which may be a Runner as well.
    type: list
    elements: str
    default: []
  environments:
    description: The names of the environments.
    type: list
    elements: str
    required: true
  wanted:
    description: The versions that all Runners were to have, by environment.
    type: dict
    required: true
  stopped:
    description: Why the roll-out ended early, by environment, as P(haku.river.rollout_verdict#filter) says.
    type: dict
    default: {}
  left:
    description:
      - The names of environments that were not touched on a Runner, by Runner, as P(haku.river.rollout_plan#filter)
        says.
    type: dict
    default: {}
  shared_dir:
    description: The directory of tarballs.
    type: str
    required: true
  forecast:
    description: Whether this was a check.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Sum up
  ansible.builtin.set_fact:
    summary: >-
      {{ hostvars | haku.river.rollout_report(ansible_play_hosts, environments=['python-data-science'],
      wanted={'python-data-science': 1767225600}, shared_dir='/shared/hakuriver-containers') }}
  run_once: true
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    fleet:
      description: The Runners as they are now, as P(haku.river.fleet_table#filter) takes them.
      type: dict
    endings:
      description: For each environment whose roll-out ended early a sentence.
      type: list
      elements: str
    problems:
      description: What went wrong, a text for each Runner to which something happened.
      type: dict
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.human import utc
from ansible_collections.haku.river.plugins.plugin_utils.rollout import Runner, read_runners
from ansible_collections.haku.river.plugins.plugin_utils.rollout_report import Account, Course, account


def rollout_report(
    hostvars: Mapping[str, Mapping[str, Any]],
    machines: Sequence[str],
    *,
    environments: Sequence[str],
    wanted: Mapping[str, int],
    shared_dir: str,
    hosts: Sequence[str] = (),
    stopped: Mapping[str, str] | None = None,
    left: Mapping[str, Sequence[str]] | None = None,
    forecast: bool = False,
) -> dict[str, Any]:
    """Sum up a roll-out."""
    runners = read_runners(hostvars, machines, next(iter(hosts), None))
    seen = [*runners, *read_runners(hostvars, hosts)]
    course = Course(wanted, stopped or {}, left or {}, forecast)
    told = [(runner, account(runner, environments, course)) for runner in runners]
    published = {
        name: sorted({version for it in seen for version in it.has(name).published}, reverse=True)
        for name in environments
    }
    return {
        "fleet": {
            "generated": int(time.time()),
            "shared_dir": shared_dir,
            "environments": {
                name: {"versions": [{"timestamp": version} for version in versions]}
                for name, versions in published.items()
            },
            "machines": {
                runner.name: _machine(runner, it, "host and runner" if runner.name in hosts else "runner")
                for runner, it in told
            },
        },
        "endings": [_ending(name, reason, wanted.get(name)) for name, reason in course.stopped.items()],
        "problems": {runner.name: " ".join(it.problems) for runner, it in told if it.problems},
    }


def _ending(environment: str, reason: str, version: int | None) -> str:
    what = f"The roll-out of {environment}" + ("" if version is None else f" {utc(version, seconds=True)}")
    return f"{what} was stopped, and put back wherever it had come to. {reason}"


def _machine(runner: Runner, told: Account, role: str) -> dict[str, Any]:
    described = runner.described
    return {
        "role": role,
        "problem": " ".join(told.problems) or None,
        "note": "; ".join(told.notes) or None,
        "environments": {name: {"version": version, "size": None} for name, version in told.versions.items()}
        if runner.held is not None
        else None,
        "disk": described.get("disk"),
        "engine": described.get("engine"),
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout_report": rollout_report}
