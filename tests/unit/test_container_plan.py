# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to an env container follows from what there is and what is asked, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.container import Container, Desired, Plan, Seen, plan
from ansible_collections.haku.river.plugins.module_utils.container_info import changed_since_packaged, own_changes
from ansible_collections.haku.river.plugins.module_utils.container_steps import (
    Create,
    Pull,
    PutBack,
    Remove,
    Replace,
    Restart,
    Start,
    Stop,
    Unpause,
    Update,
)
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import is_env_container
from ansible_collections.haku.river.plugins.module_utils.settings import (
    SETTINGS_OPTIONS,
    Settings,
    differences,
    full_reference,
    parse_command,
    parse_env,
    parse_gpus,
    parse_labels,
    parse_memory,
    parse_shm_size,
    parse_volumes,
)

THERE = Settings(
    image="python:3.9-slim",
    command=("sleep", "infinity"),
    init=True,
    env={"PATH": "/bin", "LANG": "C"},
    volumes=("/srv:/srv",),
    network="bridge",
    cpus=0.0,
    memory_bytes=0,
    gpus=0,
    labels={"haku.river.managed": "true", "haku.river.env": "env"},
    restart_policy="unless-stopped",
)
RUNNING = Container("1234", "running", THERE, managed=True)
NOTHING = Seen(None, has_image=True)


def seen(container: Container = RUNNING, **more: Any) -> Seen:
    return Seen(container, **{"has_image": True, **more})


def in_state(state: str) -> Seen:
    return seen(replace(RUNNING, state=state))


def desired(state: str = "started", asked: Settings | None = None, **more: Any) -> Desired:
    return Desired("env", asked or Settings(), state, **more)


def steps(there: Seen, wish: Desired) -> tuple[object, ...]:
    return plan(there, wish).steps


# Life


@pytest.mark.parametrize(
    ("there", "state", "expected"),
    [
        ("running", "present", ()),
        ("running", "started", ()),
        ("running", "stopped", (Stop("env", 10),)),
        ("running", "restarted", (Restart("env", 10),)),
        ("exited", "present", ()),
        ("exited", "started", (Start("env"),)),
        ("exited", "stopped", ()),
        ("exited", "restarted", (Start("env"),)),
        ("created", "started", (Start("env"),)),
        ("created", "stopped", ()),
        ("paused", "present", ()),
        ("paused", "started", (Unpause("env"),)),
        ("paused", "stopped", (Unpause("env"), Stop("env", 10))),
        ("paused", "restarted", (Unpause("env"), Restart("env", 10))),
        ("restarting", "present", ()),
        ("restarting", "started", (Restart("env", 10),)),
        ("restarting", "stopped", (Stop("env", 10),)),
        ("restarting", "restarted", (Restart("env", 10),)),
    ],
)
def test_only_the_steps_to_the_asked_state_are_taken(there: str, state: str, expected: tuple[object, ...]) -> None:
    assert steps(in_state(there), desired(state)) == expected


@pytest.mark.parametrize("state", ["present", "started", "stopped", "restarted"])
@pytest.mark.parametrize("there", ["dead", "removing"])
def test_what_the_engine_could_not_remove_is_not_started(there: str, state: str) -> None:
    with pytest.raises(HakuError, match="Remove it with state: absent"):
        plan(in_state(there), desired(state))


@pytest.mark.parametrize("there", ["running", "exited", "created", "paused", "restarting", "dead", "removing"])
def test_absent_removes_a_container_in_any_state_and_nothing_twice(there: str) -> None:
    assert steps(in_state(there), desired("absent")) == (Remove("env", there, 10),)
    assert steps(NOTHING, desired("absent")) == ()


def test_absent_does_not_compare() -> None:
    assert steps(seen(), desired("absent", Settings(image="other", init=False))) == (Remove("env", "running", 10),)


def test_the_state_is_forecast_and_shown_as_a_difference() -> None:
    decided = plan(in_state("running"), desired("stopped"))
    assert decided.state == "exited"
    assert [(each.option, each.there, each.asked) for each in decided.differences] == [("state", "running", "exited")]


# Creation


def test_a_missing_container_is_created_with_the_defaults_filled_in() -> None:
    decided = plan(NOTHING, desired(asked=Settings(image="python:3.9-slim", cpus=2.0)))
    settings = Settings(
        image="python:3.9-slim",
        command=("sleep", "infinity"),
        init=True,
        env={},
        volumes=(),
        network="bridge",
        cpus=2.0,
        memory_bytes=0,
        gpus=0,
        labels={},
        restart_policy="unless-stopped",
    )
    assert decided.steps == (Create("env", settings, runs=True),)
    assert decided.state == "running"


@pytest.mark.parametrize(("state", "runs"), [("present", False), ("stopped", False), ("restarted", True)])
def test_a_new_container_runs_only_where_that_is_asked(state: str, runs: bool) -> None:
    decided = plan(NOTHING, desired(state, Settings(image="a")))
    assert decided.steps == (Create("env", Settings(image="a").completed(), runs),)
    assert decided.state == ("running" if runs else "created")


def test_creation_needs_an_image() -> None:
    with pytest.raises(HakuError, match=r"no image to create it from\. Set image"):
        plan(NOTHING, desired())


@pytest.mark.parametrize(
    ("pull", "has_image", "pulls"),
    [("missing", True, False), ("missing", False, True), ("always", True, True), ("always", False, True)],
)
def test_the_image_is_pulled_before_anything_is_touched(pull: str, has_image: bool, pulls: bool) -> None:
    wish = desired(asked=Settings(image="a", init=False), pull=pull, recreate=True)
    for there in (Seen(None, has_image), seen(has_image=has_image)):
        taken = steps(there, wish)
        assert taken[:-1] == ((Pull("a"),) if pulls else ())


def test_a_container_as_asked_pulls_nothing() -> None:
    assert steps(seen(has_image=False), desired(asked=Settings(image="python:3.9-slim"), pull="always")) == ()


def test_a_missing_image_that_may_not_be_pulled_is_an_error() -> None:
    with pytest.raises(HakuError, match="has no image a, and pull is never"):
        plan(Seen(None, has_image=False), desired(asked=Settings(image="a"), pull="never"))


# Differences


@pytest.mark.parametrize(
    "asked",
    [
        Settings(),
        THERE,
        Settings(image="docker.io/library/python:3.9-slim"),
        Settings(env={"LANG": "C"}),
        Settings(env={}),
        Settings(labels={}),
        Settings(volumes=parse_volumes(["/srv/:/srv/:rw"])),
    ],
)
def test_what_is_as_asked_stays(asked: Settings) -> None:
    assert plan(seen(), desired(asked=asked, recreate=True)) == Plan((), (), "running")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Settings(image="python:3.12"), r"image \(asked: python:3.12; there: python:3.9-slim\)"),
        (Settings(command=("top",)), r"command \(asked: \['top'\]; there: \['sleep', 'infinity'\]\)"),
        (Settings(init=False), r"init \(asked: False; there: True\)"),
        (Settings(env={"LANG": "de", "PATH": "/bin"}), r"env \(asked: {'LANG': 'de'}; there: {'LANG': 'C'}\)"),
        (Settings(env={"NEW": "1"}), r"env \(asked: {'NEW': '1'}; there: {'NEW': None}\)"),
        (Settings(volumes=()), r"volumes \(asked: none; there: \['/srv:/srv'\]\)"),
        (Settings(network="host"), r"network \(asked: host; there: bridge\)"),
        (Settings(gpus="all"), r"gpus \(asked: all; there: 0\)"),
        (Settings(labels={"team": "a"}), r"labels \(asked: {'team': 'a'}; there: {'team': None}\)"),
    ],
)
def test_recreation_needs_permission_and_each_difference_is_named(asked: Settings, words: str) -> None:
    with pytest.raises(HakuError, match=rf"Container env is not as asked: {words}\. .*recreate: true"):
        plan(seen(), desired(asked=asked))
    decided = plan(seen(), desired(asked=asked, recreate=True))
    assert [type(step) for step in decided.steps] == [Replace]
    assert decided.renews


def test_every_difference_is_named_at_once() -> None:
    with pytest.raises(HakuError, match=r"init .* network ") as caught:
        plan(seen(), desired(asked=Settings(init=False, network="none", env={"LANG": "C"})))
    assert "env" not in caught.value.cause


def test_the_error_names_the_settings_that_recreation_resets() -> None:
    with pytest.raises(HakuError, match=r"settings that are not asked for \(volumes\) return to their defaults"):
        plan(seen(), desired(asked=Settings(init=False)))


def test_recreation_uses_what_is_asked_the_defaults_and_the_former_image() -> None:
    decided = plan(seen(), desired(asked=Settings(init=False), recreate=True))
    settings = Settings(init=False, image="python:3.9-slim").completed()
    assert decided.steps == (Replace("env", settings, runs=True, former_state="running", stop_timeout_seconds=10),)
    assert {each.option: (each.there, each.asked) for each in decided.differences} == {
        "init": (True, False),
        "volumes": (["/srv:/srv"], []),
    }


@pytest.mark.parametrize(
    ("there", "state", "runs"),
    [
        ("running", "present", True),
        ("paused", "present", True),
        ("exited", "present", False),
        ("exited", "started", True),
        ("running", "stopped", False),
        ("exited", "restarted", True),
    ],
)
def test_a_recreated_container_runs_as_asked_or_else_as_before(there: str, state: str, runs: bool) -> None:
    decided = plan(in_state(there), desired(state, Settings(init=False), recreate=True))
    (step,) = decided.steps
    assert isinstance(step, Replace)
    assert (step.runs, step.former_state) == (runs, there)
    assert decided.state == ("running" if runs else "created")


def test_limits_and_restart_policy_change_in_place() -> None:
    asked = Settings(cpus=1.5, memory_bytes=1 << 30, restart_policy="no", init=True)
    decided = plan(seen(), desired(asked=asked))
    assert decided.steps == (Update("env", Settings(cpus=1.5, memory_bytes=1 << 30, restart_policy="no")),)
    assert [each.option for each in decided.differences] == ["cpus", "memory", "restart_policy"]


def test_only_the_limits_that_differ_are_updated_and_before_the_start() -> None:
    stopped = replace(RUNNING, state="exited", settings=replace(THERE, cpus=1.5))
    asked = Settings(cpus=1.5, memory_bytes=1 << 30)
    assert steps(seen(stopped), desired(asked=asked)) == (Update("env", Settings(memory_bytes=1 << 30)), Start("env"))


@pytest.mark.parametrize("asked", [Settings(cpus=0.0), Settings(memory_bytes=0)])
def test_lifting_a_limit_takes_a_new_container(asked: Settings) -> None:
    limited = seen(replace(RUNNING, settings=replace(THERE, cpus=1.0, memory_bytes=1 << 30)))
    with pytest.raises(HakuError, match="recreate: true"):
        plan(limited, desired(asked=asked))


# Whose container it is


@pytest.mark.parametrize("state", ["present", "started", "stopped", "restarted", "absent"])
def test_a_container_without_the_labels_is_not_touched(state: str) -> None:
    foreign = seen(replace(RUNNING, managed=False))
    with pytest.raises(HakuError, match=r"is not managed by haku\.river .* Set adopt: true"):
        plan(foreign, desired(state))
    plan(foreign, desired(state, adopt=True))


def test_an_adopted_container_is_replaced_by_a_managed_one_with_permission_only() -> None:
    foreign = seen(replace(RUNNING, managed=False))
    assert steps(foreign, desired(adopt=True)) == ()
    decided = plan(foreign, desired(adopt=True, recreate=True))
    assert [type(step) for step in decided.steps] == [Replace]
    assert decided.differences[0].option == "managed"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"haku.river.managed": "true", "haku.river.env": "env"}, True),
        ({"haku.river.managed": "true", "haku.river.env": "other"}, False),
        ({"haku.river.managed": "true"}, False),
        ({"haku.river.managed": "false", "haku.river.env": "env"}, False),
        ({}, False),
    ],
)
def test_managed_means_labelled_with_its_own_name(labels: dict[str, str], expected: bool) -> None:
    assert is_env_container("env", labels) is expected


@pytest.mark.parametrize("wish", [desired("stopped"), desired("restarted"), desired(asked=Settings(init=False))])
def test_a_container_that_would_vanish_when_it_stops_is_not_stopped(wish: Desired) -> None:
    volatile = seen(replace(RUNNING, removes_itself=True))
    with pytest.raises(HakuError, match="started with --rm"):
        plan(volatile, replace(wish, recreate=True))
    assert steps(volatile, desired()) == ()


# After an interruption


def test_a_container_left_aside_is_put_back_first() -> None:
    left = seen(replace(RUNNING, state="exited"), aside=True)
    assert steps(left, desired()) == (PutBack("env"), Start("env"))
    assert steps(left, desired("absent")) == (Remove("env.FORMER", "exited", 10),)


def test_a_former_container_beside_the_new_one_goes_with_it() -> None:
    both = seen(leftover=True)
    assert steps(both, desired()) == ()
    assert steps(both, desired("absent")) == (Remove("env", "running", 10), Remove("env.FORMER", "exited", 10))


# Options


def test_options_that_are_not_given_say_nothing() -> None:
    assert Settings.from_options(dict.fromkeys(SETTINGS_OPTIONS)) == Settings()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("sleep 60", ("sleep", "60")),
        ("sh -c 'echo a, b; sleep 1'", ("sh", "-c", "echo a, b; sleep 1")),
        (["sleep", 60], ("sleep", "60")),
        (["sh", "-c", "a b"], ("sh", "-c", "a b")),
    ],
)
def test_a_command_is_a_list_or_a_string_in_shell_quotes(command: object, expected: tuple[str, ...]) -> None:
    assert parse_command(command) == expected


@pytest.mark.parametrize("command", ["", [], "sh -c 'open", ["sleep", True], ["sleep", 1.5], [None], {"a": "b"}, 5])
def test_a_command_that_means_nothing_is_refused(command: object) -> None:
    with pytest.raises(HakuError, match="command"):
        parse_command(command)


@pytest.mark.parametrize("value", [1, 1.10, True, None, ["a"], {"a": "b"}])
def test_values_of_env_and_labels_have_to_be_strings(value: object) -> None:
    with pytest.raises(HakuError, match=r"VERSION in env is .* and not a string\. Put it in quotes"):
        parse_env({"VERSION": value})
    with pytest.raises(HakuError, match=r"VERSION in labels is .* and not a string\. Put it in quotes"):
        parse_labels({"VERSION": value})


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_impossible_names_of_variables_are_refused(name: str) -> None:
    with pytest.raises(HakuError, match="cannot be the name of an environment variable"):
        parse_env({name: "value"})


def test_the_labels_of_the_collection_cannot_be_asked_for() -> None:
    with pytest.raises(HakuError, match=r"haku\.river\.env is not free"):
        parse_labels({"haku.river.env": "other"})


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        (["/b:/b", "/a:/a"], ("/a:/a", "/b:/b")),
        (["/a/:/b/:rw"], ("/a:/b",)),
        (["/a:/b:z,ro"], ("/a:/b:ro,z",)),
        (["cache:/cache", "cache:/cache:rw"], ("cache:/cache",)),
        (["/:/host:ro"], ("/:/host:ro",)),
    ],
)
def test_volumes_that_mean_the_same_are_the_same(volumes: list[str], expected: tuple[str, ...]) -> None:
    assert parse_volumes(volumes) == expected


@pytest.mark.parametrize("volume", ["/data", "./a:/a", "~/a:/a", "/a:b", "/a:/b:ro:x", ":/a", "/a:", ""])
def test_volumes_that_mean_nothing_are_refused(volume: str) -> None:
    with pytest.raises(HakuError, match="is not SOURCE:TARGET"):
        parse_volumes([volume])


@pytest.mark.parametrize(("size", "expected"), [("512M", 512 << 20), ("2G", 2 << 30), ("1048576", 1 << 20), ("0", 0)])
def test_memory_is_a_size_in_powers_of_1024(size: str, expected: int) -> None:
    assert parse_memory(size) == expected


@pytest.mark.parametrize("size", ["much", "", "5 apples", "-1"])
def test_memory_that_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(HakuError, match="is not a size"):
        parse_memory(size)


@pytest.mark.parametrize(
    ("gpus", "expected", "request_"),
    [
        ("all", "all", [{"Count": -1, "Capabilities": [["gpu"]]}]),
        (2, 2, [{"Count": 2, "Capabilities": [["gpu"]]}]),
        ("2", 2, [{"Count": 2, "Capabilities": [["gpu"]]}]),
        ([1, "0"], ("0", "1"), [{"DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}]),
        (0, 0, None),
        ([], 0, None),
    ],
)
def test_gpus_reach_the_engine_as_docker_run_asks_for_them(gpus: object, expected: object, request_: object) -> None:
    asked = parse_gpus(gpus)
    assert asked == expected
    creation = Settings(image="a", gpus=asked).as_creation({})
    assert creation["HostConfig"]["DeviceRequests"] == request_
    there = Settings.from_inspect({"Config": creation, "HostConfig": creation["HostConfig"]})
    assert differences(Settings(gpus=asked), there) == ()


@pytest.mark.parametrize("gpus", ["some", True, -1, 1.5, {"a": 1}])
def test_gpus_that_mean_nothing_are_refused(gpus: object) -> None:
    with pytest.raises(HakuError, match="gpus"):
        parse_gpus(gpus)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("python", "python:latest"),
        ("python:3", "docker.io/library/python:3"),
        ("user/app", "index.docker.io/user/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("python@sha256:12", "docker.io/python@sha256:12"),
    ],
)
def test_two_names_of_one_image_are_the_same(one: str, other: str) -> None:
    assert full_reference(one) == full_reference(other)


def test_an_image_id_is_not_a_name() -> None:
    assert full_reference("sha256:12") == "sha256:12"


@pytest.mark.parametrize("size", ["0", "-1", "much", ""])
def test_a_size_of_shared_memory_that_means_nothing_is_refused(size: str) -> None:
    with pytest.raises(HakuError, match=f"shm_size '{size}' is not a size"):
        parse_shm_size(size)


def test_the_size_of_shared_memory_is_the_engines_own_unless_asked_for_and_takes_a_new_container() -> None:
    assert "ShmSize" not in Settings(image="a").as_creation({})["HostConfig"]
    (found,) = differences(Settings(shm_size_bytes=8 << 30), replace(THERE, shm_size_bytes=64 << 20))
    assert str(found) == "shm_size (asked: 8.00 GB; there: 64.00 MB)"
    assert not found.in_place


# The engine's answers


def test_what_is_sent_to_the_engine_is_read_back_as_asked() -> None:
    asked = Settings(
        image="a",
        command=("sh", "-c", "x"),
        init=False,
        env={"A": "b=c"},
        volumes=("/a:/b:ro",),
        network="none",
        cpus=1.5,
        memory_bytes=1 << 30,
        shm_size_bytes=1 << 33,
        gpus="all",
        labels={"team": "x"},
        restart_policy="on-failure",
    )
    creation = asked.as_creation({"haku.river.image": "a"})
    there = Settings.from_inspect({"Config": creation, "HostConfig": creation["HostConfig"]})
    assert differences(asked, there) == ()


def test_mounts_and_cpu_quotas_of_a_foreign_container_are_read() -> None:
    mounts = [
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        {"Type": "tmpfs", "Target": "/tmp"},
        {"Type": "volume", "Source": "cache", "Target": "/cache"},
    ]
    there = Settings.from_inspect({"Config": {}, "HostConfig": {"Mounts": mounts, "CpuQuota": 150_000}})
    assert there.volumes == ("/a:/b:ro", "cache:/cache")
    assert there.cpus == 1.5


def test_modes_that_an_engine_adds_to_a_mount_are_no_difference() -> None:
    there = replace(THERE, volumes=("/a:/b:rbind,ro,rprivate", "cache:/cache:nodev,nosuid,rbind,rprivate"))
    assert differences(Settings(volumes=("/a:/b:ro", "cache:/cache")), there) == ()
    assert differences(Settings(volumes=("/a:/b", "cache:/cache")), there)


def test_a_growing_memory_limit_takes_the_swap_limit_along() -> None:
    assert Settings(memory_bytes=100).as_update() == {"Memory": 100, "MemorySwap": 200}


# Changed since packaged


@pytest.mark.parametrize(
    ("newest", "created", "image", "changed", "expected"),
    [
        (None, 100, 50, False, True),
        (200, 201, 200, False, False),
        (200, 201, 200, True, True),
        (200, 201, 50, False, True),
        (200, 200, 50, False, False),
        (200, 100, 50, True, None),
        (200, 100, None, False, False),
    ],
)
def test_changed_since_packaged_is_told_only_where_it_is_known(
    newest: int | None, created: int, image: int | None, changed: bool, expected: bool | None
) -> None:
    assert changed_since_packaged(newest, created, image, lambda: changed) is expected


def test_what_the_engine_itself_puts_into_a_container_is_no_change() -> None:
    by_engine = ["/sbin", "/sbin/docker-init", "/mnt", "/mnt/a", "/mnt/a/b"]
    assert own_changes([*by_engine, "/mnt/c", "/root"], ["/mnt/a/b"]) == ["/mnt/c", "/root"]
