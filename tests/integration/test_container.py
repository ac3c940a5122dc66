# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container of an environment, on real engines."""

from __future__ import annotations

import json
import signal
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp

from tests.integration.environment import Environment
from tests.integration.modules import converge, fail, returned, succeed
from tests.lab import images
from tests.lab.engines import Engine
from tests.lab.host import wait_until
from tests.lab.registry import Registry

FORMER = ".FORMER"


@dataclass(frozen=True)
class Place:
    """The name of an environment that has no container yet, on one engine that has the image."""

    environment: Environment
    image: str

    @property
    def name(self) -> str:
        """The environment's, and so the container's."""
        return self.environment.name

    @property
    def engine(self) -> Engine:
        """Where the container is to be."""
        return self.environment.engine

    @property
    def options(self) -> dict[str, Any]:
        """What every run of the module takes; the engines have no network but these."""
        return {"name": self.name, "docker_host": self.engine.url, "network": "none"}

    @property
    def labels(self) -> list[str]:
        """Options of `docker run` that make a container a managed one."""
        return ["--label", "haku.river.managed=true", "--label", f"haku.river.env={self.name}"]

    def create(self, **options: Any) -> dict[str, Any]:
        """Have the module create the container."""
        return succeed("haku_container", **{"image": self.image, **self.options, **options})

    def run(self, *arguments: str, labelled: bool = True) -> None:
        """Start a container of that name without the module; `arguments` are options, the image and the command."""
        labels = self.labels if labelled else []
        self.engine.docker("run", "--detach", "--name", self.name, "--network", "none", *labels, *arguments)

    def inspect(self) -> dict[str, Any]:
        """Inspect the container."""
        return self.environment.inspect(self.name)

    @property
    def state(self) -> str:
        """The engine's word for the container's state; `absent` if there is none."""
        return str(self.inspect()["State"]["Status"]) if self.name in self.containers else "absent"

    @property
    def containers(self) -> list[str]:
        """All containers whose names begin with this one."""
        found = self.engine.docker("ps", "--all", "--filter", f"name=^{self.name}", "--format", "{{.Names}}")
        return sorted(found.split())


@pytest.fixture
def place(engine: Engine, busybox: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on an engine; the test runs once on each of the four."""
    yield from _place(engine, busybox, request, tmp_path)


@pytest.fixture
def one_place(engines: dict[str, Engine], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on one engine, for promises that the engine's version has no part in."""
    engine = engines["d28"]
    yield from _place(engine, images.provide(images.BUSYBOX, engine), request, tmp_path)


@pytest.fixture
def main_place(main_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on the host's own engine, which reaches the registry."""
    yield from _place(main_engine, images.provide(images.BUSYBOX, main_engine), request, tmp_path)


def _place(engine: Engine, image: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "shared/hakuriver-containers").mkdir(parents=True)
    name = f"hc-{zlib.crc32(request.node.name.encode()):08x}"
    place = Place(Environment(engine, name, tmp_path / "shared"), image)
    yield place
    if place.containers:
        engine.docker("rm", "--force", "--volumes", *place.containers)
    # By name: the image itself may be one that a test on another worker uses.
    for reference in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"hc-test/{name}").split():
        engine.docker("image", "rm", reference)
    volumes = engine.docker("volume", "ls", "--quiet", "--filter", f"name=^{name}").split()
    for volume in volumes:
        engine.docker("volume", "rm", "--force", volume)


# Creation


def test_a_container_is_created_as_forecast_and_once(place: Place) -> None:
    seen = converge("haku_container", image=place.image, **place.options)
    there = place.inspect()
    assert seen.first["container"] == {
        "id": there["Id"],
        "name": place.name,
        "image": place.image,
        "state": "running",
        "created": f"{there['Created'][:19]}Z",
        "managed": True,
    }
    assert seen.first["actions"] == [f"create and start container {place.name} from image {place.image}"]
    assert seen.second["container"] == seen.first["container"]
    assert seen.second["actions"] == []


def test_check_mode_creates_nothing(place: Place) -> None:
    forecast = succeed("haku_container", check=True, image=place.image, **place.options)
    assert forecast["changed"]
    assert place.containers == []


def test_a_new_container_sleeps_under_an_init_and_comes_back_after_a_reboot(place: Place) -> None:
    place.create()
    there = place.inspect()
    assert (there["Config"]["Entrypoint"] or []) + there["Config"]["Cmd"] == ["sleep", "infinity"]
    assert there["HostConfig"]["Init"]
    assert there["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    labels = {label: value for label, value in there["Config"]["Labels"].items() if label.startswith("haku.river.")}
    del labels["haku.river.lab.recipe"]
    assert labels == {
        "haku.river.managed": "true",
        "haku.river.env": place.name,
        "haku.river.image": place.image,
    }


def test_the_entry_point_of_the_image_does_not_run(place: Place) -> None:
    image = f"hc-test/{place.name}:failing"
    place.engine.docker("create", "--name", place.name, place.image)
    place.engine.docker("commit", "--change", 'ENTRYPOINT ["false"]', place.name, image)
    place.engine.docker("rm", place.name)
    converge("haku_container", image=image, **place.options)
    assert place.state == "running"


def test_every_setting_reaches_the_container_and_is_recognised_there(place: Place) -> None:
    seen = converge(
        "haku_container",
        image=place.image,
        command="sh -c 'echo \"$GREETING, world\" > /greeting; sleep 1000'",
        init=False,
        env={"GREETING": "hello", "EMPTY": "", "SUM": "a=b"},
        volumes=[f"{place.name}-data:/data/", "/etc:/host/etc:ro"],
        cpus=0.5,
        memory="64M",
        labels={"team": "a"},
        restart_policy="on-failure",
        **place.options,
    )
    assert seen.first["diff"]["before"] == {"state": "absent"}
    assert seen.first["diff"]["after"]["memory"] == 64 << 20
    assert place.environment.execute("cat /greeting; echo $EMPTY$SUM") == "hello, world\na=b\n"
    place.environment.execute("touch /data/file")
    with pytest.raises(Exception, match="Read-only file system"):
        place.environment.execute("touch /host/etc/file")
    there = place.inspect()
    assert there["HostConfig"]["NanoCpus"] == 500_000_000
    assert there["HostConfig"]["Memory"] == 64 << 20
    assert there["Config"]["Labels"]["team"] == "a"


def test_present_creates_and_does_not_start(one_place: Place) -> None:
    seen = converge("haku_container", state="present", image=one_place.image, **one_place.options)
    assert seen.first["container"]["state"] == one_place.state == "created"
    seen = converge("haku_container", state="stopped", **one_place.options)
    assert not seen.first["changed"]
    converge("haku_container", state="started", **one_place.options)
    assert one_place.state == "running"


def test_the_network_of_another_container_is_recognised(one_place: Place) -> None:
    other = f"{one_place.name}-other"
    one_place.engine.docker("run", "--detach", "--network", "none", "--name", other, one_place.image, "sleep", "1000")
    converge("haku_container", image=one_place.image, **{**one_place.options, "network": f"container:{other}"})
    message = fail("haku_container", **{**one_place.options, "network": "container:nobody"})
    assert "There is no container nobody, whose network is asked for" in message


def test_a_command_that_keeps_failing_is_an_error_with_its_last_words(place: Place) -> None:
    command = ["sh", "-c", "echo starting; echo no such file: settings.ini >&2; exit 3"]
    message = fail("haku_container", image=place.image, command=command, **place.options)
    assert "does not keep running" in message
    assert "ended with exit code 3 and last wrote: " in message
    assert "no such file: settings.ini" in message
    assert place.containers == []


def test_a_command_that_ends_well_but_at_once_is_an_error(one_place: Place) -> None:
    message = fail("haku_container", image=one_place.image, command="true", restart_policy="no", **one_place.options)
    assert "`true` ended with exit code 0. Give it a command" in message
    assert one_place.containers == []


def test_a_command_that_does_not_exist_is_an_error_that_names_it(place: Place) -> None:
    message = fail("haku_container", image=place.image, command="nonsense --now", **place.options)
    assert "nonsense" in message
    assert place.containers == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no image to create it from"),
        ({"image": "hc-test/nowhere:1", "pull": "never"}, "has no image hc-test/nowhere:1, and pull is never"),
        ({"image": "x", "env": {"VERSION": 3.10}}, "The value of VERSION in env is 3.1, a float and not a string"),
        ({"image": "x", "env": {"DEBUG": True}}, "The value of DEBUG in env is True, a bool and not a string"),
        ({"image": "x", "labels": {"haku.river.task": "1"}}, "The label haku.river.task is not free"),
        ({"image": "x", "volumes": ["data"]}, "'data' in volumes is not SOURCE:TARGET"),
        ({"image": "x", "memory": "much"}, "memory 'much' is not a size"),
        ({"image": "x", "gpus": "some"}, "gpus 'some' means nothing"),
        ({"image": "x", "command": "sh -c 'open"}, "cannot be split into arguments"),
    ],
)
def test_what_cannot_be_is_refused_in_check_mode_too(one_place: Place, options: dict[str, Any], words: str) -> None:
    for check in (True, False):
        assert words in fail("haku_container", check=check, **one_place.options, **options)
    assert one_place.containers == []


@pytest.mark.parametrize("name", ["../x", "a b", "A", "x;rm -rf", "", "a.FORMER"])
def test_a_name_that_is_no_environment_is_refused_with_the_rule(engines: dict[str, Engine], name: str) -> None:
    message = fail("haku_container", name=name, image="x", docker_host=engines["d28"].url)
    assert "cannot be the name of an environment: a name is made of" in message


def test_a_name_that_begins_the_id_of_another_container_means_no_container(one_place: Place) -> None:
    one_place.run(one_place.image, "sleep", "1000")
    beginning = one_place.inspect()["Id"][:16]
    result = succeed("haku_container", state="absent", name=beginning, docker_host=one_place.engine.url)
    assert not result["changed"]
    assert one_place.state == "running"


# Images


def test_a_missing_image_is_pulled_and_only_that_tag(main_place: Place, registry: Registry) -> None:
    repository = f"hc/{main_place.name}"
    image = registry.push(images.BUSYBOX, f"{repository}:latest")
    registry.push(images.BUSYBOX, f"{repository}:other")
    name = image.rpartition(":")[0]
    try:
        seen = converge("haku_container", image=name, **main_place.options)
        assert seen.first["actions"][0] == f"pull image {name}"
        assert not converge("haku_container", image=image, **main_place.options).first["changed"]
        there = main_place.engine.docker("image", "ls", "--format", "{{.Tag}}", name)
        assert there.split() == ["latest"]
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", image)


def test_an_image_is_pulled_by_its_digest(main_place: Place, registry: Registry) -> None:
    image = registry.push(images.BUSYBOX, f"hc/{main_place.name}:1")
    main_place.engine.docker("pull", image)
    digest = main_place.engine.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image).strip()
    main_place.engine.docker("image", "rm", image)
    try:
        seen = converge("haku_container", image=digest, **main_place.options)
        assert seen.first["actions"][0] == f"pull image {digest}"
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", digest)


def test_always_pulls_for_a_new_container_and_for_no_other(main_place: Place, registry: Registry) -> None:
    image = registry.push(images.BUSYBOX, f"hc/{main_place.name}:1")
    main_place.engine.docker("pull", image)
    options = {"image": image, "pull": "always", **main_place.options}
    try:
        assert converge("haku_container", **options).first["actions"][0] == f"pull image {image}"
        seen = converge("haku_container", recreate=True, **options)
        assert not seen.first["changed"]
        seen = converge("haku_container", recreate=True, init=False, **options)
        assert seen.first["actions"][0] == f"pull image {image}"
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", image)


def test_an_image_that_the_registry_lacks_is_its_error_and_touches_nothing(
    main_place: Place, registry: Registry
) -> None:
    main_place.create()
    before = main_place.inspect()
    image = f"{registry.address}/hc/nothing:1"
    message = fail("haku_container", image=image, recreate=True, **main_place.options)
    assert f"Cannot pull image {image}" in message
    assert "manifest unknown" in message
    after = main_place.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_a_container_that_continues_on_a_committed_image_is_still_of_the_asked_one(place: Place) -> None:
    place.create()
    committed = f"hc-test/{place.name}:1"
    place.environment.execute("touch /kept")
    place.engine.docker("commit", place.name, committed)
    place.engine.docker("rm", "--force", place.name)
    place.run("--init", committed)
    seen = converge("haku_container", image=place.image, command="sleep infinity", **place.options)
    assert not seen.first["changed"]
    assert seen.first["container"]["image"] == place.image


# Differences


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


# Life


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
    assert 1 <= (killed_at - asked_at) / 1e9 < 5


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


# After an interruption


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


# Listing


def listed(place: Place, **options: Any) -> dict[str, Any]:
    result = succeed("haku_container_info", name=place.name, docker_host=place.engine.url, **options)
    assert not result["changed"]
    (container,) = result["containers"]
    found: dict[str, Any] = container
    return found


def test_an_environment_is_listed_as_docker_ps_words_it(place: Place) -> None:
    created = place.create()["container"]
    there = listed(place)
    assert there.pop("status").startswith("Up ")
    assert there.pop("size_bytes") is None
    assert there.pop("changed_since_packaged") is None
    assert there == {key: created[key] for key in ("id", "name", "image", "state", "created")}
    place.engine.docker("stop", place.name)
    assert listed(place)["status"].startswith("Exited (")


def test_the_size_is_what_the_container_adds(place: Place) -> None:
    place.create()
    place.environment.execute("head -c 5000000 /dev/urandom > /file; sync")
    assert 5_000_000 <= listed(place, size=True)["size_bytes"] < 5_500_000


def test_only_containers_of_environments_are_listed(one_place: Place) -> None:
    one_place.create()
    one_place.engine.docker(
        *("run", "--detach", "--name", f"{one_place.name}-task", *one_place.labels),
        *("--label", "haku.river.task=1", one_place.image, "sleep", "1000"),
    )
    result = succeed("haku_container_info", docker_host=one_place.engine.url)
    names = [container["name"] for container in result["containers"]]
    assert one_place.name in names
    assert f"{one_place.name}-task" not in names
    assert names == sorted(names)
    assert succeed("haku_container_info", name="no-such-env", docker_host=one_place.engine.url)["containers"] == []


def test_an_environment_without_a_version_has_changed(one_place: Place) -> None:
    one_place.create()
    assert listed(one_place, shared_dir=str(one_place.environment.shared))["changed_since_packaged"] is True
    message = fail("haku_container_info", docker_host=one_place.engine.url, shared_dir="/no/such/directory")
    assert "There is no directory /no/such/directory" in message


def test_a_container_on_its_newest_version_has_changed_when_a_file_has(place: Place) -> None:
    place.create()
    place.environment.execute("touch /packaged")
    image = f"hc-test/{place.name}:1"
    place.engine.docker("commit", place.name, image)
    place.engine.docker("rm", "--force", place.name)
    place.run("--init", "--volume", "/etc:/host/etc", image)
    version = unix_timestamp(place.environment.inspect(image)["Created"])
    assert version is not None
    place.environment.tarball(version).touch()
    shared = str(place.environment.shared)
    assert listed(place, shared_dir=shared)["changed_since_packaged"] is False
    place.environment.execute("touch /changed")
    assert listed(place, shared_dir=shared)["changed_since_packaged"] is True


def test_a_container_beside_its_newest_version_has_changed_as_far_as_can_be_told(one_place: Place) -> None:
    one_place.create()
    shared = str(one_place.environment.shared)
    one_place.environment.tarball(1_000_000_000).touch()
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is True
    one_place.environment.tarball(int(time.time()) + 1).touch()
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is False
    one_place.environment.execute("touch /changed")
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is None
