# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packaging would do follows from what there is, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils import package_plan
from ansible_collections.haku.river.plugins.module_utils.catalogue import Version
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity
from ansible_collections.haku.river.plugins.module_utils.names import TarballName
from ansible_collections.haku.river.plugins.module_utils.package_plan import Packaging, plan_package, plan_removal
from ansible_collections.haku.river.plugins.module_utils.snapshot import Snapshot

SAME = Identity(("sha256:a",), {"Cmd": ["sh"]})
OTHER = Identity(("sha256:a", "sha256:b"), {"Cmd": ["sh"]})
NOW = 1000


def versions(*timestamps: int) -> tuple[Version, ...]:
    return tuple(Version("env", timestamp, Path(f"/shared/env-{timestamp}.tar")) for timestamp in timestamps)


def packaged(
    newest: Identity | None,
    there: tuple[Version, ...],
    keep: int = 1,
    grace: int = 0,
    rebase: bool = True,
    can_rebase: bool = True,
) -> package_plan.Plan:
    wish = Packaging("env", "hakuriver/env:base", keep=keep, prune_grace_seconds=grace, rebase=rebase)
    taken = Snapshot("hakuriver/env:package-1", SAME, NOW)
    return plan_package(wish, taken, newest, there, NOW, can_rebase)


def test_the_first_package_is_published() -> None:
    assert packaged(None, ()) == package_plan.Plan(publish=TarballName("env", NOW), rebase=True)


@pytest.mark.parametrize(("rebase", "can_rebase"), [(False, True), (True, False)])
def test_the_container_continues_as_it_is_if_it_may_or_can_not_be_rebased(rebase: bool, can_rebase: bool) -> None:
    assert packaged(None, (), rebase=rebase, can_rebase=can_rebase) == package_plan.Plan(
        publish=TarballName("env", NOW)
    )


def test_without_a_new_version_there_is_nothing_to_continue_on() -> None:
    assert not packaged(SAME, versions(900)).rebase


def test_an_unchanged_environment_publishes_nothing() -> None:
    assert not packaged(SAME, versions(900)).changed


def test_a_change_of_configuration_alone_is_a_change() -> None:
    assert packaged(Identity(SAME.diff_ids, {"Cmd": ["bash"]}), versions(900)).publish


@pytest.mark.parametrize(("keep", "removed"), [(1, (900, 800, 700)), (2, (800, 700)), (3, (700,)), (4, ()), (9, ())])
def test_the_newest_are_kept_and_the_new_one_counts(keep: int, removed: tuple[int, ...]) -> None:
    assert packaged(OTHER, versions(900, 800, 700), keep).remove == versions(*removed)


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(keep: int) -> None:
    with pytest.raises(HakuError, match="would leave no version of env"):
        packaged(OTHER, versions(900), keep)


def test_pruning_follows_keep_although_nothing_was_published() -> None:
    plan = packaged(SAME, versions(900, 800, 700), keep=2)
    assert (plan.publish, plan.remove) == (None, versions(700))


def test_versions_within_the_grace_stay() -> None:
    assert packaged(OTHER, versions(900, 800, 700), keep=1, grace=200).remove == versions(800, 700)
    assert packaged(OTHER, versions(900, 800, 700), keep=1, grace=250).remove == versions(700)


def test_removal_is_of_one_version_or_of_all() -> None:
    assert plan_removal(versions(900, 800), 800).remove == versions(800)
    assert plan_removal(versions(900, 800), None).remove == versions(900, 800)
    assert not plan_removal(versions(900, 800), 1).changed
