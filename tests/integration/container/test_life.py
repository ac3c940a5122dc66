# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting, stopping and removing a container, if it is one that haku.river may touch."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.container.place import Place
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT
from tests.integration.modules import converge, fail, returned, succeed
from tests.lab.host import wait_until

pytestmark = ITS_NEIGHBOURS_SHOW_IT


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        ("running", "stopped", "exited"),
        ("exited", "started", "running"),
        ("paused", "started", "running"),
        ("paused", "stopped", "exited"),
        ("paused", "present", "paused"),
        ("exited", "present", "exited"),
    ],
)
def test_a_container_is_brought_to_the_asked_state(one_place: Place, there: str, asked: str, expected: str) -> None:
    one_place.create()
    if there != "running":
        one_place.engine.docker({"exited": "stop", "paused": "pause"}[there], one_place.name)
    before = one_place.inspect()["Id"]
    seen = converge("haku_container", state=asked, **one_place.options)
    assert seen.first["container"]["state"] == one_place.state == expected
    assert seen.first["changed"] is (there != expected)
    assert one_place.inspect()["Id"] == before


def test_stopping_keeps_the_changes_and_needs_no_force(place: Place) -> None:
    place.create()
    place.environment.execute("touch /made-inside")
    converge("haku_container", state="stopped", **place.options)
    assert place.inspect()["State"]["ExitCode"] == 128 + signal.SIGTERM
    converge("haku_container", state="started", **place.options)
    place.environment.execute("ls /made-inside")


def test_restarting_is_a_change_every_time(place: Place) -> None:
    place.create()
    started_at = [place.inspect()["State"]["StartedAt"]]
    forecast = succeed("haku_container", check=True, state="restarted", **place.options)
    for _time in range(2):
        result = succeed("haku_container", state="restarted", **place.options)
        assert returned(result) == returned(forecast)
        assert result["changed"]
        started_at.append(place.inspect()["State"]["StartedAt"])
    assert len(set(started_at)) == 3


def test_a_process_that_does_not_heed_is_killed_after_the_timeout(one_place: Place) -> None:
    one_place.create(init=False)
    succeed("haku_container", state="stopped", stop_timeout=1, **one_place.options)
    now = str(time.time())
    told = one_place.engine.docker(
        *("events", "--since", "10m", "--until", now, "--filter", f"container={one_place.name}"),
        *("--filter", "event=kill", "--format", "{{.TimeNano}} {{.Actor.Attributes.signal}}"),
    )
    (asked_at, term), (killed_at, kill) = (map(int, line.split()) for line in told.splitlines())
    assert (term, kill) == (signal.SIGTERM, signal.SIGKILL)
    assert 1 <= (killed_at - asked_at) / 1e9 < 10


def test_a_container_that_keeps_failing_is_an_error_when_it_should_run_and_can_be_stopped(place: Place) -> None:
    place.run("--restart", "always", place.image, "sh", "-c", "echo gave up; exit 7")
    wait_until(lambda: place.inspect()["RestartCount"] > 0, "the engine to start the container again")
    message = fail("haku_container", **place.options)
    assert "ended with exit code 7 and last wrote: gave up" in message
    converge("haku_container", state="stopped", **place.options)
    assert place.state == "exited"


def test_a_container_that_fails_to_start_is_stopped_again(one_place: Place) -> None:
    one_place.create(command=["sh", "-c", "test ! -e /broken && sleep 1000"], restart_policy="always")
    one_place.environment.execute("touch /broken")
    one_place.engine.docker("stop", "--time", "1", one_place.name)
    assert "ended with exit code 1" in fail("haku_container", **one_place.options)
    assert one_place.state == "exited"


def test_absent_removes_the_container_and_its_anonymous_volumes(place: Place) -> None:
    place.run("--volume", "/anonymous", "--init", place.image, "sleep", "1000")
    (volume,) = (mount["Name"] for mount in place.inspect()["Mounts"])
    seen = converge("haku_container", state="absent", name=place.name, docker_host=place.engine.url)
    assert seen.first["actions"] == [f"stop and remove container {place.name}"]
    assert seen.first["container"] is None
    assert place.containers == []
    assert volume not in place.engine.docker("volume", "ls", "--quiet").split()


def test_absent_lets_the_process_end_in_order(one_place: Place) -> None:
    script = "trap 'echo bye > /data/word; exit' TERM; while :; do sleep 0.1; done"
    volume = f"{one_place.name}-data:/data"
    one_place.create(command=["sh", "-c", script], volumes=[volume])
    converge("haku_container", state="absent", name=one_place.name, docker_host=one_place.engine.url)
    word = one_place.engine.docker("run", "--rm", "--volume", volume, one_place.image, "cat", "/data/word")
    assert word == "bye\n"


@pytest.mark.parametrize("command", ["create", "pause"])
def test_absent_removes_a_container_that_does_not_run(one_place: Place, command: str) -> None:
    one_place.create(state="present" if command == "create" else "started")
    if command == "pause":
        one_place.engine.docker("pause", one_place.name)
    converge("haku_container", state="absent", name=one_place.name, docker_host=one_place.engine.url)
    assert one_place.containers == []


# Whose container it is


@pytest.mark.parametrize("state", ["present", "started", "stopped", "restarted", "absent"])
def test_a_container_without_the_labels_is_not_touched(one_place: Place, state: str) -> None:
    one_place.run(one_place.image, "sleep", "1000", labelled=False)
    before = one_place.inspect()
    message = fail("haku_container", state=state, image="other", recreate=True, **one_place.options)
    assert "is not managed by haku.river" in message
    assert "Set adopt: true" in message
    assert one_place.inspect()["State"] == before["State"]


def test_an_adopted_container_is_acted_on_and_stays_unmanaged(one_place: Place) -> None:
    one_place.run("--init", one_place.image, "sleep", "1000", labelled=False)
    seen = converge("haku_container", state="stopped", adopt=True, **one_place.options)
    assert not seen.first["container"]["managed"]
    assert "is not managed" in fail("haku_container", state="started", **one_place.options)
    converge("haku_container", state="absent", adopt=True, **one_place.options)
    assert one_place.containers == []


def test_an_adopted_container_becomes_managed_by_recreation(place: Place) -> None:
    place.run("--init", place.image, "sleep", "1000", labelled=False)
    seen = converge("haku_container", image=place.image, adopt=True, recreate=True, **place.options)
    assert seen.first["diff"]["before"]["managed"] is False
    assert seen.first["container"]["managed"]
    assert not converge("haku_container", image=place.image, **place.options).first["changed"]


def test_a_container_that_would_vanish_when_it_stops_is_left_running(one_place: Place) -> None:
    one_place.run("--rm", "--init", one_place.image, "sleep", "1000")
    for options in ({"state": "stopped"}, {"state": "restarted"}, {"init": False, "recreate": True}):
        assert "started with --rm" in fail("haku_container", **one_place.options, **options)
    assert one_place.state == "running"
