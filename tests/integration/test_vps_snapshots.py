# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a VPS, and what is told of all VPS of a machine, on real engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.marks import NEEDS_LIMITS, NEEDS_PAUSE
from tests.integration.modules import converge, returned, succeed
from tests.integration.vps import Place, make_key


@NEEDS_LIMITS
def test_snapshot_change_restore(vps_place: Place) -> None:
    machine = vps_place.have(memory="256M", volumes=[f"{vps_place.vps}-data:/data"])["vps"]
    vps_place.ssh(machine, "echo good > /root/file; echo kept > /data/file")
    options = vps_place.bare_options
    forecast = succeed("haku_vps", check=True, **options, state="snapshot")
    taken = succeed("haku_vps", **options, state="snapshot")
    assert forecast["actions"] == taken["actions"] == [f"take a snapshot of VPS {vps_place.vps}"]
    (snapshot,) = taken["snapshots"]
    assert snapshot["image"] == f"hakuriver/{vps_place.environment}:vps-{vps_place.vps}-{snapshot['timestamp']}"
    assert taken["vps"] == machine

    vps_place.ssh(machine, "echo bad > /root/file; echo newer > /data/file; rm -rf /usr/share/doc")
    forecast = succeed("haku_vps", check=True, **vps_place.bare_options, state="restored")
    restored = succeed("haku_vps", **vps_place.bare_options, state="restored")
    assert forecast["actions"] == restored["actions"] == [f"restore VPS {vps_place.vps} from image {snapshot['image']}"]
    new = restored["vps"]
    assert new == {**machine, "id": new["id"], "created": new["created"]}
    # What is in a mount is in no snapshot.
    assert vps_place.ssh(new, "cat /root/file /data/file; ls -d /usr/share/doc") == "good\nnewer\n/usr/share/doc\n"
    assert vps_place.inspect()["HostConfig"]["Memory"] == 256 << 20
    assert vps_place.containers == [vps_place.container]
    assert succeed("haku_vps", **vps_place.options, memory="256M")["changed"] is False
    succeed("haku_vps", **vps_place.bare_options, state="absent")
    vps_place.engine.docker("volume", "rm", f"{vps_place.vps}-data")


def test_so_many_snapshots_are_kept_and_any_of_them_can_be_restored(one_vps_place: Place) -> None:
    options = one_vps_place.bare_options
    machine = one_vps_place.have()["vps"]
    for number in range(3):
        one_vps_place.ssh(machine, f"echo {number} > /root/number")
        taken = succeed("haku_vps", **options, state="snapshot", keep_snapshots=2)
    assert len(taken["actions"]) == 2
    times = [each["timestamp"] for each in taken["snapshots"]]
    assert times == sorted(times, reverse=True)
    assert len(one_vps_place.images) == 1 + len(times) == 3
    older = succeed("haku_vps", **one_vps_place.bare_options, state="restored", snapshot=times[1])["vps"]
    assert one_vps_place.ssh(older, "cat /root/number") == "1\n"
    message = one_vps_place.fail(state="restored", snapshot=1)
    assert f"has no snapshot 1. Choose one of: {times[0]}, {times[1]}" in message


@NEEDS_PAUSE
def test_the_snapshot_that_a_vps_was_restored_from_stays_beside_the_newest(vps_place: Place) -> None:
    vps_place.have()
    options = vps_place.bare_options
    (used,) = succeed("haku_vps", **options, state="snapshot")["snapshots"]
    succeed("haku_vps", **options, state="restored")
    for _time in range(2):
        forecast = succeed("haku_vps", check=True, **options, state="snapshot", keep_snapshots=1)
        taken = succeed("haku_vps", **options, state="snapshot", keep_snapshots=1)
        assert len(forecast["snapshots"]) == len(taken["snapshots"]) == 2
        assert forecast["actions"] == taken["actions"]
        assert taken["snapshots"][1] == forecast["snapshots"][1] == used
    gone = succeed("haku_vps", **options, state="absent", keep_snapshots=1)
    assert used not in gone["snapshots"]
    assert len(gone["snapshots"]) == 1


def test_absent_keeps_the_snapshots_unless_it_is_told_otherwise(one_vps_place: Place) -> None:
    one_vps_place.have()
    succeed("haku_vps", **one_vps_place.bare_options, state="snapshot")
    gone = succeed("haku_vps", **one_vps_place.bare_options, state="absent")
    assert len(gone["snapshots"]) == 1
    (listed,) = succeed("haku_vps_info", vps=one_vps_place.vps, docker_host=one_vps_place.engine.url)["snapshots"]
    assert listed["image"] == gone["snapshots"][0]["image"]
    assert listed["size_bytes"] > 0
    seen = converge("haku_vps", **one_vps_place.bare_options, state="absent", keep_snapshots=0)
    assert seen.first["snapshots"] == []
    assert one_vps_place.images == [one_vps_place.image]


def test_a_key_that_was_taken_away_does_not_come_back_with_a_snapshot(one_vps_place: Place, tmp_path: Path) -> None:
    bob = make_key(tmp_path, "bob")
    public = bob.with_suffix(".pub").read_text()
    one_vps_place.have(authorized_keys=[one_vps_place.public_key, public])
    succeed("haku_vps", **one_vps_place.bare_options, state="snapshot")
    one_vps_place.have()
    machine = succeed("haku_vps", **one_vps_place.bare_options, state="restored")["vps"]
    assert one_vps_place.ssh(machine, "true") == ""
    assert "Permission denied" in one_vps_place.refuses(machine, f"-i{bob}")


def test_a_stopped_vps_is_restored_and_then_runs(one_vps_place: Place) -> None:
    one_vps_place.have()
    succeed("haku_vps", **one_vps_place.bare_options, state="stopped")
    succeed("haku_vps", **one_vps_place.bare_options, state="snapshot")
    machine = succeed("haku_vps", **one_vps_place.bare_options, state="restored")["vps"]
    assert machine["state"] == "running"
    assert one_vps_place.ssh(machine, "true") == ""


def test_all_vps_of_a_machine_are_listed_and_nothing_else(vps_place: Place) -> None:
    other = vps_place.named(f"{vps_place.vps}-2")
    machine = vps_place.have()["vps"]
    other.have()
    succeed("haku_vps", **other.bare_options, state="stopped")
    engine: dict[str, Any] = {"docker_host": vps_place.engine.url}
    listed = succeed("haku_vps_info", name=vps_place.environment, **engine)
    one, two = listed["machines"]
    for option in ("host", "known_hosts"):
        del machine[option]
    assert one == {**machine, "status": one["status"], "authorized_keys": one["authorized_keys"]}
    assert one["status"].startswith("Up ")
    assert one["authorized_keys"][0].endswith(" id@test")
    assert (two["name"], two["state"]) == (other.vps, "exited")
    assert listed["changed"] is False
    assert [each["name"] for each in succeed("haku_vps_info", vps=other.vps, **engine)["machines"]] == [other.vps]
    assert returned(succeed("haku_vps_info", vps="nobody", **engine)) == {
        "changed": False,
        "machines": [],
        "snapshots": [],
    }
    env_containers = succeed("haku_container_info", **engine)["containers"]
    assert not any(each["name"].startswith(vps_place.container) for each in env_containers)
