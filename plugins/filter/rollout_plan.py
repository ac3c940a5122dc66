# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a roll-out."""

from __future__ import annotations

DOCUMENTATION = r"""
author:
  - haku.river contributors
name: rollout_plan
short_description: Plan a roll-out from what the Runners have
version_added: 0.2.0
description:
  - Decides for C(haku.river.distribute) and C(haku.river.rollback) which version of each environment all Runners are to
    have, which of them lack it, and in which order and batches they get it.
  - It reads the variable C(haku_river_look) of each Runner, which is what M(haku.river.haku_sync_info) returned there.
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
  host:
    description:
      - The name of the Host. If it was looked at too, its shared directory is the right one, and what it lists is what
        is published.
    type: str
  environments:
    description: The names of the environments.
    type: list
    elements: str
    required: true
  tested:
    description: The names of the environments that have a smoke test.
    type: list
    elements: str
    default: []
  version:
    description: The version to have of the only environment, in Unix seconds. The newest one by default.
    type: int
  back:
    description: Whether to go back. Then the default of O(version) is the one before, and all Runners go at once.
    type: bool
    default: false
  canaries:
    description: The names of the Runners that go first.
    type: list
    elements: str
    default: []
  batches:
    description: How many Runners, or what share of them, go at a time, as Ansible's C(serial).
    type: list
    elements: raw
  max_fail_percentage:
    description: The share of Runners that may be out of order for the roll-out to begin.
    type: int
    default: 100
  keep_images:
    description: How many former images are to stay on a Runner in the end.
    type: int
    default: 0
  forecast:
    description: Whether this is a check, which leaves out environments that are not published yet.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan the roll-out
  ansible.builtin.set_fact:
    plan: "{{ hostvars | haku.river.rollout_plan(ansible_play_hosts, environments=['python-data-science']) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    machines:
      description: The Runners of the roll-out.
      type: list
      elements: str
    refusal:
      description: Why the wish has no meaning. Null if it has one.
      type: str
    halted:
      description: Why nothing is to be done although there would be something to do. Null otherwise.
      type: str
    wanted:
      description: The versions that all Runners are to have, by environment.
      type: dict
    todo:
      description: The names of the environments that each Runner lacks, by Runner.
      type: dict
    proving:
      description: The names of the canaries that are to try an environment with a smoke test first, by environment.
      type: dict
    stopped:
      description: Why an environment goes nowhere, as no canary can try it, by environment.
      type: dict
    order:
      description: The Runners that lack anything, canaries first.
      type: list
      elements: str
    batches:
      description: The sizes of the batches, as C(serial) takes them.
      type: list
      elements: raw
    surplus:
      description:
        - The images of former versions that are not to stay, by Runner. Each has the environment's C(name), its
          C(version), and C(own), whether it becomes a former one only by this roll-out.
      type: dict
    left:
      description:
        - The names of environments, by Runner, of which it has an image without a time of creation. Such a one could
          not be put back, so it stays.
      type: dict
    traces:
      description: The same of what is not to stay where the roll-out is put back.
      type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.haku.river.plugins.plugin_utils.rollout import read_runners
from ansible_collections.haku.river.plugins.plugin_utils.rollout_plan import Plan, Refusal, Wish, plan_rollout


def rollout_plan(
    hostvars: Mapping[str, Mapping[str, Any]],
    machines: Sequence[str],
    *,
    environments: Sequence[str],
    host: str | None = None,
    tested: Sequence[str] = (),
    version: int | str | None = None,
    back: bool = False,
    canaries: Sequence[str] = (),
    batches: Sequence[int | str] | None = None,
    max_fail_percentage: int | str = 100,
    keep_images: int | str = 0,
    forecast: bool = False,
) -> dict[str, Any]:
    """Plan a roll-out; values from the command line come as strings."""
    try:
        wish = Wish(
            environments=tuple(environments),
            tested=frozenset() if back else frozenset(tested),
            version=None if version is None else int(version),
            back=back,
            canaries=() if back else tuple(canaries),
            batches=None if back or not batches else tuple(it.strip() if isinstance(it, str) else it for it in batches),
            max_fail_percentage=100 if back else int(max_fail_percentage),
            keep_images=int(keep_images),
            forecast=forecast,
        )
        runners = read_runners(hostvars, machines, host)
        asked = (it for it in read_runners(hostvars, [host] if host else []) if it.problem is None)
        plan = plan_rollout(runners, wish, next(asked, None))
        return {"machines": list(machines), **asdict(plan), "refusal": None}
    except Refusal as refusal:
        return {"machines": list(machines), **asdict(Plan()), "refusal": str(refusal)}
    except (LookupError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"haku.river.rollout_plan cannot read what it was given: {error!r}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout_plan": rollout_plan}
