# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to a VPS follows from what there is and what is asked, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.container_steps import (
    PutBack,
    Remove,
    Restart,
    Start,
    Step,
    Stop,
    Unpause,
    Update,
)
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.image import ListedImage
from ansible_collections.haku.river.plugins.module_utils.names import check_vps_name
from ansible_collections.haku.river.plugins.module_utils.settings import Settings
from ansible_collections.haku.river.plugins.module_utils.vps_plan import Machine, Plan, Seen, Wish, plan
from ansible_collections.haku.river.plugins.module_utils.vps_port import Ports
from ansible_collections.haku.river.plugins.module_utils.vps_snapshots import (
    Forget,
    Take,
    VpsSnapshot,
    all_snapshots,
    next_snapshot,
)
from ansible_collections.haku.river.plugins.module_utils.vps_steps import Create, PutKeys, Replace

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMMqqCXqIgLXnRXWX9gjW2yVfBs9ctOqbgEGv3RnZfCz alice@laptop"
OTHER = KEY.replace("alice", "bob")
REFERENCE = "hakuriver/env:base"
ANYWHERE = Ports(22000, 22999, said=False)
RUNNING = Machine(
    id="1",
    state="running",
    settings=Settings(image=REFERENCE, env={"LANG": "C"}).completed(),
    managed=True,
    environment="env",
    version=1000,
    address="0.0.0.0",
    port=22005,
    created=1,
    keys=(KEY,),
)


def wish(**said: Any) -> Wish:
    given = {"ports": ANYWHERE, "environment": "env", "reference": REFERENCE, "keys": (KEY,), **said}
    return Wish("alice", **given)


def seen(machine: Machine | None = RUNNING, **more: Any) -> Seen:
    return Seen(machine=machine, image_version=2000, now=5000, **more)


def snapshot(timestamp: int) -> VpsSnapshot:
    return VpsSnapshot("alice", timestamp, f"hakuriver/env:vps-alice-{timestamp}")


def kinds(decided: Plan) -> list[type[Step]]:
    return [type(step) for step in decided.steps]


# What there is


def test_a_vps_as_asked_stays() -> None:
    for asked in (wish(), wish(keys=None), wish(environment=None), wish(version=1000), wish(ports=Ports(22000, 22010))):
        assert plan(seen(), asked) == Plan((), (), "running", ())


def test_a_new_one_is_created_with_what_is_asked_and_the_defaults() -> None:
    decided = plan(seen(None), wish(asked=Settings(memory_bytes=1 << 30)))
    (create,) = decided.steps
    assert isinstance(create, Create)
    machine = create.machine
    assert (machine.vps, machine.ports, machine.keys) == ("alice", ANYWHERE, (KEY,))
    assert machine.body["Image"] == REFERENCE
    assert machine.body["Hostname"] == "alice"
    assert machine.body["User"] == "0"
    assert machine.body["Labels"] == {
        "haku.river.managed": "true",
        "haku.river.vps": "alice",
        "haku.river.vps.env": "env",
        "haku.river.vps.version": "2000",
        "haku.river.image": REFERENCE,
    }
    assert machine.body["HostConfig"]["Memory"] == 1 << 30
    assert machine.body["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    assert decided.renews
    assert {each.option for each in decided.differences} == {
        *("state", "name", "version", "port", "authorized_keys"),
        *("network", "memory", "restart_policy"),
    }


def test_nothing_that_anybody_has_written_is_in_the_command() -> None:
    asked = wish(asked=Settings(env={"A": "$(reboot)"}, labels={"b": "`reboot`"}))
    (create,) = plan(seen(None), asked).steps
    assert isinstance(create, Create)
    (plain,) = plan(seen(None), wish()).steps
    assert isinstance(plain, Create)
    assert create.machine.body["Cmd"] == plain.machine.body["Cmd"]


@pytest.mark.parametrize("state", ["stopped", "restarted", "snapshot", "restored"])
def test_only_present_creates(state: str) -> None:
    with pytest.raises(HakuError, match=r"There is no VPS alice on this machine\. Create it with state: present"):
        plan(seen(None), wish(state=state))


def test_a_new_one_needs_an_environment_and_a_key() -> None:
    with pytest.raises(HakuError, match="no environment to create it from"):
        plan(seen(None), wish(environment=None, reference=None))
    with pytest.raises(HakuError, match="nobody could log in to a new one"):
        plan(seen(None), wish(keys=None))


@pytest.mark.parametrize(
    ("there", "state", "expected", "ends"),
    [
        ("exited", "present", [Start], "running"),
        ("paused", "present", [Unpause], "running"),
        ("restarting", "present", [Restart], "running"),
        ("running", "stopped", [Stop], "exited"),
        ("paused", "stopped", [Unpause, Stop], "exited"),
        ("exited", "stopped", [], "exited"),
        ("running", "restarted", [Restart], "running"),
        ("exited", "restarted", [Start], "running"),
        ("running", "absent", [Remove], "absent"),
    ],
)
def test_every_state_is_reached(there: str, state: str, expected: list[type[Step]], ends: str) -> None:
    decided = plan(seen(replace(RUNNING, state=there)), wish(state=state))
    assert kinds(decided) == expected
    assert decided.state == ends


def test_one_that_the_engine_did_not_finish_removing_can_only_be_removed() -> None:
    dead = seen(replace(RUNNING, state="dead"))
    with pytest.raises(HakuError, match="began to remove it"):
        plan(dead, wish())
    assert kinds(plan(dead, wish(state="absent"))) == [Remove]


@pytest.mark.parametrize("state", ["present", "stopped", "absent", "snapshot"])
def test_a_container_without_the_labels_is_not_touched(state: str) -> None:
    with pytest.raises(HakuError, match=r"haku-vps-alice is not a VPS of haku\.river"):
        plan(seen(replace(RUNNING, managed=False)), wish(state=state))


def test_the_wrong_environment_is_noticed_before_anything_is_done_to_it() -> None:
    for state in ("stopped", "restarted", "snapshot", "restored"):
        with pytest.raises(HakuError, match="VPS alice is one of env, not of other"):
            plan(seen(snapshots=(snapshot(1),)), wish(state=state, environment="other"))


# What differs


def test_keys_change_in_place() -> None:
    decided = plan(seen(), wish(keys=(KEY, OTHER)))
    assert decided.steps == (PutKeys("alice", (KEY, OTHER)),)
    assert [each.option for each in decided.differences] == ["authorized_keys"]


def test_limits_change_in_place_and_before_the_start() -> None:
    stopped = seen(replace(RUNNING, state="exited"))
    decided = plan(stopped, wish(asked=Settings(cpus=2.0), keys=(OTHER,)))
    assert kinds(decided) == [Update, PutKeys, Start]


@pytest.mark.parametrize(("state", "last"), [("stopped", Stop), ("restarted", Restart)])
def test_what_changes_in_place_does_so_whatever_becomes_of_the_machine(state: str, last: type[Step]) -> None:
    said = {"keys": (OTHER,), "asked": Settings(cpus=2.0, env={"A": "b"}), "version": 900}
    decided = plan(seen(), wish(state=state, **said))
    assert kinds(decided) == [Update, PutKeys, last]
    assert {each.option for each in decided.differences} - {"state"} == {"authorized_keys", "cpus"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"environment": "other"}, r"name \(asked: other; there: env\)"),
        ({"version": 900}, r"version \(asked: 900; there: 1000\)"),
        ({"ports": Ports(2222, 2222)}, r"port \(asked: 2222; there: 22005\)"),
        ({"ports": Ports(1, 2)}, r"port \(asked: 1-2; there: 22005\)"),
        ({"ports": replace(ANYWHERE, address="127.0.0.1")}, r"address \(asked: 127.0.0.1; there: 0.0.0.0\)"),
        ({"asked": Settings(volumes=("/a:/a",))}, r"volumes \(asked: \['/a:/a'\]; there: none\)"),
        ({"asked": Settings(env={"LANG": "de"})}, r"env \(asked: {'LANG': 'de'}; there: {'LANG': 'C'}\)"),
    ],
)
def test_all_else_needs_permission_and_is_named(said: dict[str, Any], words: str) -> None:
    with pytest.raises(HakuError, match=rf"VPS alice is not as asked: {words}\. .*recreate: true"):
        plan(seen(), wish(**said))
    decided = plan(seen(), wish(**said, recreate=True))
    assert kinds(decided) == [Replace]
    assert decided.renews


def test_every_address_is_no_difference() -> None:
    assert plan(seen(), wish(ports=replace(ANYWHERE, address="0.0.0.0"))).steps == ()


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (ANYWHERE, Ports(22005, 22005, False, "0.0.0.0")),
        (Ports(22000, 22010), Ports(22005, 22005, True, "0.0.0.0")),
        (Ports(2222, 2222), Ports(2222, 2222, True, "0.0.0.0")),
        (replace(ANYWHERE, address="127.0.0.1"), Ports(22005, 22005, False, "127.0.0.1")),
    ],
)
def test_a_replacement_keeps_port_and_address_unless_asked_otherwise(ports: Ports, expected: Ports) -> None:
    (step,) = plan(seen(), wish(ports=ports, asked=Settings(env={"A": "b"}), recreate=True)).steps
    assert isinstance(step, Replace)
    assert step.ports == expected


def test_a_replacement_needs_a_key_if_the_former_machine_has_none_to_keep() -> None:
    locked = seen(replace(RUNNING, keys=()), snapshots=(snapshot(1),))
    for asked in ({"state": "restored"}, {"asked": Settings(env={"A": "b"}), "recreate": True}):
        with pytest.raises(HakuError, match="has no authorized keys that a new machine could keep"):
            plan(locked, wish(**asked, keys=None))
        assert kinds(plan(locked, wish(**asked))) == [Replace]


# Snapshots


def test_a_snapshot_is_taken_and_the_oldest_ones_go() -> None:
    there = (snapshot(3000), snapshot(2000), snapshot(1000))
    decided = plan(seen(snapshots=there), wish(state="snapshot", keep_snapshots=2))
    assert decided.steps == (Take(snapshot(5000)), Forget(snapshot(2000)), Forget(snapshot(1000)))
    assert decided.snapshots == (snapshot(5000), snapshot(3000))
    assert plan(seen(snapshots=there), wish(state="snapshot")).steps == (Take(snapshot(5000)),)


def test_the_snapshot_that_the_vps_runs_on_stays_as_long_as_it_does() -> None:
    there = (snapshot(3000), replace(snapshot(2000), image_id="2"), replace(snapshot(1000), image_id="1"))
    running_on_one = seen(replace(RUNNING, image_id="1"), snapshots=there)
    decided = plan(running_on_one, wish(state="snapshot", keep_snapshots=1))
    assert decided.steps == (Take(snapshot(5000)), Forget(there[0]), Forget(there[1]))
    assert decided.snapshots == (snapshot(5000), there[2])
    assert plan(running_on_one, wish(state="absent", keep_snapshots=0)).snapshots == ()


def test_two_snapshots_within_a_second_differ() -> None:
    assert next_snapshot("alice", "hakuriver/env", (snapshot(5000),), 5000) == snapshot(5001)


def test_the_newest_or_the_named_snapshot_is_restored_with_all_settings() -> None:
    there = (snapshot(3000), snapshot(2000))
    for asked, expected in ((None, 3000), (2000, 2000)):
        decided = plan(seen(snapshots=there), wish(state="restored", snapshot=asked, keys=None))
        (step,) = decided.steps
        assert isinstance(step, Replace)
        assert (step.image, step.body, step.keys) == (snapshot(expected).image, None, None)
        assert step.ports == Ports(22005, 22005, False, "0.0.0.0")
        assert not decided.renews
    with pytest.raises(HakuError, match=r"no snapshot 1\. Choose one of: 3000, 2000"):
        plan(seen(snapshots=there), wish(state="restored", snapshot=1))
    with pytest.raises(HakuError, match="VPS alice has no snapshot"):
        plan(seen(), wish(state="restored"))


def test_a_snapshot_of_a_former_machine_of_that_name_is_not_restored_if_it_is_of_another_environment() -> None:
    other = VpsSnapshot("alice", 4000, "hakuriver/other:vps-alice-4000")
    (step,) = plan(seen(snapshots=(other, snapshot(3000))), wish(state="restored")).steps
    assert isinstance(step, Replace)
    assert step.image == snapshot(3000).image
    with pytest.raises(HakuError, match="VPS alice has no snapshot"):
        plan(seen(snapshots=(other,)), wish(state="restored"))


def test_absent_leaves_the_snapshots_unless_told_otherwise() -> None:
    there = (snapshot(3000), snapshot(2000))
    assert kinds(plan(seen(snapshots=there), wish(state="absent"))) == [Remove]
    assert kinds(plan(seen(snapshots=there), wish(state="absent", keep_snapshots=1))) == [Remove, Forget]
    assert kinds(plan(seen(None, snapshots=there), wish(state="absent", keep_snapshots=0))) == [Forget, Forget]


def test_snapshots_are_told_from_other_images_and_from_those_of_other_vps() -> None:
    tags = ("hakuriver/env:base", "hakuriver/env:vps-alice-10", "localhost:5000/a/env:vps-alice-20", "x:vps-alice-01")
    images = [
        ListedImage("1", tags, {"haku.river.vps": "alice"}),
        ListedImage("2", ("hakuriver/env:vps-alice-2-30",), {"haku.river.vps": "alice-2"}),
        ListedImage("3", ("hakuriver/env:vps-alice-40", "somebody/else:vps-bob-50")),
    ]
    found = {vps: [each.timestamp for each in there] for vps, there in all_snapshots(images).items()}
    assert found == {"alice": [20, 10], "alice-2": [30]}
    assert [each.image_id for each in all_snapshots(images)["alice-2"]] == ["2"]


# After an interruption


def test_a_machine_left_aside_is_put_back_first() -> None:
    left = seen(replace(RUNNING, state="exited"), aside=True)
    assert kinds(plan(left, wish())) == [PutBack, Start]
    (remove,) = plan(left, wish(state="absent")).steps
    assert isinstance(remove, Remove)
    assert remove.name == "haku-vps-alice.FORMER"


def test_a_machine_that_never_started_is_made_anew_or_gives_way_to_the_former_one() -> None:
    unfinished = seen(None, unfinished=True)
    assert kinds(plan(unfinished, wish())) == [Remove, Create]
    assert kinds(plan(unfinished, wish(state="absent"))) == [Remove]
    replaced = seen(replace(RUNNING, state="exited"), unfinished=True, aside=True)
    assert kinds(plan(replaced, wish())) == [Remove, PutBack, Start]


def test_a_former_machine_beside_the_new_one_goes_with_it_and_is_in_the_way_of_another() -> None:
    both = seen(leftover=True, snapshots=(snapshot(1),))
    assert plan(both, wish()).steps == ()
    assert kinds(plan(both, wish(state="absent"))) == [Remove, Remove]
    for asked in (wish(asked=Settings(env={"A": "b"}), recreate=True), wish(state="restored")):
        with pytest.raises(HakuError, match=r"there is a container haku-vps-alice\.FORMER already"):
            plan(both, asked)


# Options


@pytest.mark.parametrize("name", ["a", "alice", "a-1", "1a", "a" * 63])
def test_a_host_name_is_the_name_of_a_vps(name: str) -> None:
    assert check_vps_name(name) == name


@pytest.mark.parametrize("network", ["host", "none", "container:x"])
def test_a_network_that_publishes_no_port_is_refused(network: str) -> None:
    with pytest.raises(HakuError, match="publishes no port"):
        wish(asked=Settings(network=network))


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/root", "/root/.ssh", "/root/.ssh/authorized_keys", "/root/.ssh/environment", "/srv/../root"),
        *("/etc", "/etc/ssh", "/etc/ssh/ssh_host_ed25519_key", "/etc/profile.d"),
    ],
)
def test_a_mount_that_the_files_of_a_vps_would_be_written_into_is_refused(target: str) -> None:
    with pytest.raises(HakuError, match=r"volumes mounts /home/alice at /.*, where a VPS has its own"):
        wish(asked=Settings(volumes=(f"/home/alice:{target}:ro",)))


@pytest.mark.parametrize("target", ["/root/data", "/roots", "/etc/ssh/sshd_config.d", "/home/alice", "/mnt"])
def test_any_other_mount_is_taken(target: str) -> None:
    assert wish(asked=Settings(volumes=(f"/home/alice:{target}",))).asked.volumes


@pytest.mark.parametrize(("state", "keep"), [("absent", -1), ("snapshot", -1), ("snapshot", 0)])
def test_a_number_of_snapshots_that_means_nothing_is_refused(state: str, keep: int) -> None:
    with pytest.raises(HakuError, match="keep_snapshots"):
        wish(state=state, keep_snapshots=keep)
