# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module reports, and the one place where the logic's values and errors become Ansible's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


@dataclass(frozen=True)
class Outcome:
    """The end of a run, or its forecast: `facts` are the module's return values besides `changed` and `diff`.

    `failure` is the sentence of a run that was carried out and still counts as failed, facts and all.
    """

    changed: bool
    facts: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str = ""


def pick(params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The part of a module's parameters that one concern takes."""
    return {name: params[name] for name in names}


def report(module: AnsibleModule, work: Callable[[], Outcome]) -> None:
    """Run `work` and exit with what it says: its result, or the sentence of its error."""
    try:
        outcome = work()
    except HakuError as error:
        module.fail_json(**error.as_result())
    for warning in outcome.warnings:
        module.warn(warning)
    result = dict(outcome.facts, changed=outcome.changed)
    if module._diff and (outcome.before or outcome.after):
        result["diff"] = {"before": dict(outcome.before), "after": dict(outcome.after)}
    if outcome.failure:
        module.fail_json(outcome.failure, **result)
    module.exit_json(**result)
