# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that is not as declared, and what an interrupted re-creation has left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.container.place import FORMER, Place
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT, NEEDS_LIMITS, ONE_PODMAN_SHOWS_IT
from tests.integration.modules import converge, fail, succeed

pytestmark = ITS_NEIGHBOURS_SHOW_IT


def test_recreation_needs_permission(place: Place) -> None:
    place.create(env={"MODE": "a"})
    before = place.inspect()
    other = f"hc-test/{place.name}:other"
    place.engine.docker("tag", place.image, other)
    wish = {"image": other, "env": {"MODE": "b"}, **place.options}
    for check in (True, False):
        message = fail("haku_container", check=check, **wish)
        assert f"image (asked: {other}; there: {place.image})" in message
        assert "env (asked: {'MODE': 'b'}; there: {'MODE': 'a'})" in message
        assert "recreate: true" in message
    after = place.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_recreation_puts_a_new_container_in_the_place_of_the_former(place: Place) -> None:
    place.create(env={"MODE": "a"})
    place.environment.execute("touch /made-inside")
    former = place.inspect()["Id"]
    seen = converge("haku_container", env={"MODE": "b"}, recreate=True, **place.options)
    assert seen.first["actions"] == [f"re-create and start container {place.name} from image {place.image}"]
    assert seen.first["diff"] == {"before": {"env": {"MODE": "a"}}, "after": {"env": {"MODE": "b"}}}
    assert place.inspect()["Id"] == seen.first["container"]["id"] != former
    assert place.environment.execute("echo $MODE; ls /made-inside 2>&1 || true").startswith("b\nls: ")
    assert place.containers == [place.name]


def test_permission_alone_recreates_nothing(one_place: Place) -> None:
    one_place.create()
    seen = converge("haku_container", image=one_place.image, recreate=True, **one_place.options)
    assert not seen.first["changed"]


def test_a_failed_recreation_leaves_the_former_container_running(place: Place) -> None:
    place.create()
    place.environment.execute("touch /made-inside")
    before = place.inspect()["Id"]
    message = fail("haku_container", command="nonsense --now", recreate=True, **place.options)
    assert "nonsense" in message
    assert (place.inspect()["Id"], place.state, place.containers) == (before, "running", [place.name])
    place.environment.execute("ls /made-inside")


@pytest.mark.parametrize(("state", "afterwards"), [("paused", "running"), ("exited", "exited")])
def test_a_failed_recreation_starts_the_former_container_only_if_it_was_alive(
    one_place: Place, state: str, afterwards: str
) -> None:
    one_place.create()
    before = one_place.inspect()["Id"]
    one_place.engine.docker({"paused": "pause", "exited": "stop"}[state], one_place.name)
    fail("haku_container", command="nonsense --now", recreate=True, **one_place.options)
    assert (one_place.inspect()["Id"], one_place.state, one_place.containers) == (before, afterwards, [one_place.name])


@pytest.mark.parametrize(
    ("options", "words", "interrupts"),
    [
        ({"network": "nowhere"}, "network nowhere not found", True),
        ({"gpus": "all"}, "could not select device driver", True),
        ({"volumes": ["/a:/b", "/c:/b"]}, "Duplicate mount point: /b", False),
        ({"cpus": 1000, "init": False}, "Range of CPUs is from 0.01 to", False),
    ],
)
def test_what_the_engine_refuses_is_told_in_its_words_and_the_former_container_is_back(
    one_place: Place, options: dict[str, Any], words: str, interrupts: bool
) -> None:
    one_place.create()
    before = one_place.inspect()
    message = fail("haku_container", recreate=True, **{**one_place.options, **options})
    assert words.lower() in message.lower()
    after = one_place.inspect()
    assert after["Id"] == before["Id"]
    assert after["State"]["Status"] == "running"
    assert (after["State"]["StartedAt"] != before["State"]["StartedAt"]) is interrupts
    assert one_place.containers == [one_place.name]


def test_a_stopped_container_is_recreated_stopped_when_that_is_asked(one_place: Place) -> None:
    one_place.create()
    seen = converge("haku_container", state="stopped", init=False, recreate=True, **one_place.options)
    assert seen.first["container"]["state"] == one_place.state == "created"
    seen = converge("haku_container", state="present", init=True, recreate=True, **one_place.options)
    assert one_place.state == "created"


@NEEDS_LIMITS
def test_limits_and_restart_policy_change_in_place(place: Place) -> None:
    place.create()
    before = place.inspect()
    seen = converge("haku_container", cpus=0.5, memory="64M", restart_policy="no", **place.options)
    assert seen.first["actions"] == [f"update cpus, memory, restart_policy of container {place.name}"]
    assert seen.first["diff"] == {
        "before": {"cpus": 0, "memory": 0, "restart_policy": "unless-stopped"},
        "after": {"cpus": 0.5, "memory": 64 << 20, "restart_policy": "no"},
    }
    converge("haku_container", memory="256M", **place.options)
    converge("haku_container", memory="32M", **place.options)
    after = place.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert after["HostConfig"]["NanoCpus"] == 500_000_000
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "no"


# After an interruption


@ONE_PODMAN_SHOWS_IT
def test_a_recreation_that_was_killed_is_undone_by_the_next_run(place: Place) -> None:
    place.create()
    place.environment.execute("touch /made-inside")
    place.engine.docker("rename", place.name, place.name + FORMER)
    place.engine.docker("stop", place.name + FORMER)
    seen = converge("haku_container", image=place.image, **place.options)
    assert seen.first["actions"] == [
        f"put back container {place.name}, which an interrupted re-creation had set aside",
        f"start container {place.name}",
    ]
    place.environment.execute("ls /made-inside")


def test_a_former_container_that_was_left_is_told_of_and_goes_with_the_new_one(one_place: Place) -> None:
    one_place.create()
    one_place.engine.docker("rename", one_place.name, one_place.name + FORMER)
    one_place.run("--init", one_place.image, "sleep", "1000")
    result = succeed("haku_container", **one_place.options)
    assert not result["changed"]
    assert f"docker rm --force {one_place.name}{FORMER}" in json.dumps(result["warnings"])
    converge("haku_container", state="absent", **one_place.options)
    assert one_place.containers == []
