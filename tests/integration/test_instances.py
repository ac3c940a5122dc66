# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers as instances, on Docker and on Podman: running, stopped and missing ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings
from ansible_collections.haku.river.plugins.module_utils.docker_interface import DockerInterface
from ansible_collections.haku.river.plugins.module_utils.engine_interface import EngineInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.podman_interface import PodmanInterface

from tests.integration.modules import converge, fail, run_module, succeed, until
from tests.integration.servers import Server, server, without_logs
from tests.lab.engines import PODMAN, RELEASES, Engine

ENGINES = (*RELEASES, *PODMAN)


@dataclass(frozen=True)
class Place:
    """An engine, and the interface to it."""

    engine: Engine
    interface: EngineInterface


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, engines: dict[str, Engine], podmans: dict[str, Engine]) -> Iterator[Place]:
    """Give an engine with its interface: Docker of each version, and Podman."""
    engine = {**engines, **podmans}[request.param]
    kind = PodmanInterface if request.param in PODMAN else DockerInterface
    with kind(EngineSettings(docker_host=engine.url)) as interface:
        yield Place(engine, interface)


@pytest.fixture
def one(engines: dict[str, Engine]) -> Iterator[Server]:
    """Give a server on one engine."""
    with server(engines["d28"], "instance-one") as running:
        yield running


def test_a_running_instance(place: Place) -> None:
    interface = place.interface
    with server(place.engine, "instance") as running:
        found = json.loads(place.engine.docker("inspect", running.name))[0]
        status = interface.get_instance_status("instance")
        expected = {"status": "running", "name": "instance", "id": found["Id"], "image": found["Config"]["Image"]}
        assert status == interface.get_instance_status(found["Id"]) == expected
        assert expected in interface.list_instances()
        assert interface.instance_exists("instance")
        assert interface.is_instance_running("instance")
        assert interface.start_instance("instance")
        assert interface.execute_command("instance", "sessionid", 30) == "Unknown command: sessionid"
        # The engines log whole lines; the next one brings the one before with it.
        interface.execute_command("instance", "listbans", 30)
        until(lambda: "Unknown command: sessionid\n" in interface.get_instance_logs("instance"))
        assert "Unknown command" not in interface.get_instance_logs("instance", tail=1)
        ended = interface.run_program("instance", ["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (ended.rc, ended.stdout, ended.stderr) == (7, "out\n", "err\n")
        assert interface.restart_instance("instance", timeout=1)
        assert interface.execute_command("instance", "sessionid", 30) == "Unknown command: sessionid"
        assert interface.stop_instance("instance", timeout=1)
        assert running.status == "exited"


def test_a_stopped_instance(place: Place) -> None:
    interface = place.interface
    with server(place.engine, "instance") as running:
        interface.execute_command("instance", "status", 30)
        assert interface.stop_instance("instance", timeout=1)
        assert interface.stop_instance("instance", timeout=1)
        assert interface.get_instance_status("instance")["status"] == "exited"
        assert "exited" in [it["status"] for it in interface.list_instances() if it["name"] == "instance"]
        assert interface.instance_exists("instance")
        assert not interface.is_instance_running("instance")
        with pytest.raises(HakuError, match="instance is exited, and only a running server has a console"):
            interface.execute_command("instance", "status")
        with pytest.raises(HakuError, match="Cannot run 'true' in container"):
            interface.run_program("instance", ["true"])
        assert "Current Users: 2" in interface.get_instance_logs("instance")
        assert interface.start_instance("instance")
        assert running.status == "running"
        interface.stop_instance("instance", timeout=1)
        assert interface.restart_instance("instance", timeout=1)
        assert running.status == "running"


@pytest.mark.parametrize("name", ["missing", "../x", "a b", "", "x;rm -rf", "-x"])
def test_a_missing_instance(place: Place, name: str) -> None:
    interface = place.interface
    status = interface.get_instance_status(name)
    assert status["status"] == "unknown"
    assert "There is no instance" in status["error"]
    assert set(status) == {"status", "error"}
    assert not interface.instance_exists(name)
    assert not interface.is_instance_running(name)
    assert not interface.start_instance(name)
    assert not interface.stop_instance(name)
    assert not interface.restart_instance(name)
    for act in (interface.get_instance_logs, lambda it: interface.execute_command(it, "status")):
        with pytest.raises(HakuError, match="There is no instance"):
            act(name)
    assert interface.validate_instance_name(name) == (name == "missing")


def test_an_interface_knows_its_kind_and_its_commands(place: Place) -> None:
    kind = "podman" if place.engine.name in PODMAN else "docker"
    assert place.interface.get_interface_type() == kind
    assert place.interface.engine.is_podman == (kind == "podman")
    assert {"status", "users", "worlds", "kick", "shutdown"} <= set(place.interface.get_supported_commands())
    assert [(it.url, it.failure) for it in place.interface.attempts] == [(place.engine.url, None)]


def test_without_settings_the_environment_says_where_the_engine_is(
    engines: dict[str, Engine], podmans: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, podman = engines["d26"], podmans["podman"]
    monkeypatch.setenv("DOCKER_HOST", docker.url)
    monkeypatch.setenv("CONTAINER_HOST", podman.url)
    with DockerInterface() as of_docker, PodmanInterface() as of_podman:
        assert [it.url for it in (*of_docker.attempts, *of_podman.attempts)] == [docker.url, podman.url]
        assert (of_docker.engine.is_podman, of_podman.engine.is_podman) == (False, True)


def test_a_server_that_gives_up_is_not_taken_for_a_started_one(engines: dict[str, Engine]) -> None:
    engine = engines["d28"]
    with server(engine, "instance-failing", BOOT="never") as running:
        with DockerInterface(EngineSettings(docker_host=engine.url)) as interface:
            assert not interface.start_instance(running.name)
        result = run_module("haku_instance", state="started", **running.options)
        assert "instance-failing does not keep running: it last wrote: " in result["msg"]
        assert "ValueError: could not convert string to float: 'never'" in result["msg"]


def test_a_server_that_ends_again_and_again_is_not_taken_for_a_started_one(one: Server) -> None:
    # Without an open standard input, it ends when it would read from it.
    options = ("--restart", "always")
    with server(one.engine, "instance-looping", terminal=False, options=options, BOOT="0.8") as looping:
        until(lambda: one.engine.docker("inspect", "--format", "{{.RestartCount}}", looping.name).strip() != "0")
        for check in (True, False):
            until(lambda: looping.status == "running")
            sentence = fail("haku_instance", check=check, state="started", **looping.options)
            assert "instance-looping does not keep running" in sentence


def test_podman_has_no_console_without_a_terminal(podman: Engine) -> None:
    with (
        server(podman, "instance", terminal=False) as running,
        PodmanInterface(EngineSettings(docker_host=podman.url)) as interface,
    ):
        with pytest.raises(HakuError, match="closes the console of instance when the first one who used it leaves"):
            interface.execute_command("instance", "status")
        assert running.status == "running"
        # Leaving does no harm to what is to end.
        (step,) = succeed("haku_instance", state="stopped", engine="podman", **running.options)["stopped_by"]
        assert (step["step"], step["ended"], step["problem"]) == ("console", True, None)


# The modules


@pytest.fixture(params=ENGINES)
def running(request: pytest.FixtureRequest, engines: dict[str, Engine], podmans: dict[str, Engine]) -> Iterator[Server]:
    """Give a server on each of the engines."""
    with server({**engines, **podmans}[request.param], "instance-module", LOGS="20") as it:
        yield it


def test_a_server_is_shut_down_by_its_console_and_started_again(running: Server) -> None:
    seen = converge("haku_instance", state="stopped", **running.options)
    (step,) = seen.first["stopped_by"]
    assert (step["step"], step["what"], step["ended"], step["problem"]) == ("console", "shutdown", True, None)
    assert seen.first["instance"]["status"] == running.status == "exited"
    assert seen.first["diff"] == {"before": {"status": "running"}, "after": {"status": "exited"}}
    assert seen.first["actions"] == ["stop instance instance-module"]
    assert seen.second["stopped_by"] == []
    seen = converge("haku_instance", state="started", **running.options)
    assert seen.first["instance"]["status"] == running.status == "running"
    answer = succeed("haku_console", command="worlds", answer_timeout=30, **running.options)["answer"]
    assert without_logs(answer).startswith("[0] World")
    restarted = succeed("haku_instance", state="restarted", **running.options)
    assert restarted["actions"] == ["stop instance instance-module", "start instance instance-module"]
    assert running.status == "running"


def test_a_server_whose_console_takes_too_long_is_stopped_by_its_signal_and_then_killed(running: Server) -> None:
    options = {"state": "stopped", "shutdown_command": "dynamicimpulse sleep 600", "grace_period": 5, **running.options}
    seen = succeed("haku_instance", **options)
    assert [(it["step"], it["ended"]) for it in seen["stopped_by"]] == [("console", False), ("signal", True)]
    assert seen["stopped_by"][1]["what"] == "SIGTERM"
    problem = f"The console of {running.name} has not answered 'dynamicimpulse' in 5 s. "
    assert seen["stopped_by"][0]["problem"].startswith(problem)
    # What else the problem says may quote the console, and Ansible shows warnings even where a task has no_log.
    warned = str(seen["warnings"])
    assert f"The console did not stop the server: {problem}stopped_by has more" in warned
    assert "Give it more time" not in warned


def test_a_server_may_end_at_once_and_by_another_command(one: Server) -> None:
    seen = succeed("haku_instance", state="stopped", shutdown_command="gc", **one.options)
    (step,) = seen["stopped_by"]
    assert (step["step"], step["what"], step["ended"], step["problem"]) == ("console", "gc", True, None)
    assert "warnings" not in seen


def test_a_server_goes_on_if_its_shutdown_command_cannot_be_typed(one: Server) -> None:
    for check in (True, False):
        seen = fail("haku_instance", check=check, state="stopped", shutdown_command="shutdown\n", **one.options)
        assert "would end the line" in seen
    assert one.status == "running"


def test_a_stubborn_server_is_killed_with_a_warning(one: Server) -> None:
    with server(one.engine, "instance-stubborn", STUBBORN="1") as running:
        options = {"state": "stopped", "shutdown_command": "", "stop_timeout": 1, **running.options}
        seen = succeed("haku_instance", **options)
        assert [(it["step"], it["ended"]) for it in seen["stopped_by"]] == [("signal", False), ("kill", True)]
        assert "had to be killed" in str(seen["warnings"])
        assert running.status == "exited"


@pytest.mark.parametrize("policy", ["unless-stopped", "always"])
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", ["d28", *PODMAN])
def test_a_restart_policy_does_not_bring_back_what_was_stopped(
    engines: dict[str, Engine], podmans: dict[str, Engine], name: str, policy: str, signal: str
) -> None:
    options = ("--interactive", "--restart", policy, "--stop-signal", signal)
    with server({**engines, **podmans}[name], "instance-policy", options=options) as running:
        seen = succeed("haku_instance", state="stopped", **running.options)
        assert seen["stopped_by"][0]["step"] == "console"
        again = succeed("haku_instance", state="stopped", **running.options)
        assert not again["changed"]
        assert running.status == "exited"


@pytest.mark.parametrize("policy", ["unless-stopped", "always"])
@pytest.mark.parametrize("name", ["d28", *PODMAN])
def test_a_restart_policy_brings_back_neither_what_was_signalled_nor_what_was_killed(
    engines: dict[str, Engine], podmans: dict[str, Engine], name: str, policy: str
) -> None:
    engine = {**engines, **podmans}[name]
    asked: dict[str, Any] = {"state": "stopped", "shutdown_command": ""}
    for stubborn, stop_timeout, steps in (("", 60, ["signal"]), ("1", 1, ["signal", "kill"])):
        with server(engine, "instance-policy", options=("--restart", policy), STUBBORN=stubborn) as running:
            until(lambda: running.heeds_sigterm)
            seen = succeed("haku_instance", stop_timeout=stop_timeout, **asked, **running.options)
            assert [step["step"] for step in seen["stopped_by"]] == steps
            assert stays_ended(running)
            assert not succeed("haku_instance", **asked, **running.options)["changed"]


@pytest.mark.parametrize("policy", ["unless-stopped", "always"])
@pytest.mark.parametrize("name", ["d28", *PODMAN])
def test_a_server_that_ends_again_and_again_is_stopped_for_good(
    engines: dict[str, Engine], podmans: dict[str, Engine], name: str, policy: str
) -> None:
    options = ("--interactive", "--restart", policy)
    with server({**engines, **podmans}[name], "instance-policy", options=options, BOOT="never") as running:
        until(lambda: int(running.inspect("RestartCount")) > 1)
        seen = succeed("haku_instance", state="stopped", stop_timeout=1, **running.options)
        assert seen["changed"]
        assert stays_ended(running)
        assert not succeed("haku_instance", state="stopped", **running.options)["changed"]


def stays_ended(running: Server) -> bool:
    """Whether a server has ended, and is not started again within a moment."""
    restarts = running.inspect("RestartCount")
    time.sleep(1.5)
    return (running.status, running.inspect("RestartCount")) == ("exited", restarts)


def test_a_paused_server_goes_on_or_is_stopped(one: Server) -> None:
    one.engine.docker("pause", one.name)
    assert succeed("haku_instance", state="started", **one.options)["changed"]
    assert one.status == "running"
    one.engine.docker("pause", one.name)
    assert succeed("haku_instance", state="stopped", **one.options)["stopped_by"][-1]["step"] == "console"
    assert one.status == "exited"


def test_a_program_beside_the_server_returns_its_exit_code(one: Server) -> None:
    ran = succeed("haku_instance", exec=["sh", "-c", "echo $0; echo err >&2", "it's here"], **one.options)
    assert (ran["changed"], ran["rc"], ran["stdout"], ran["stderr"]) == (True, 0, "it's here\n", "err\n")
    forecast = succeed("haku_instance", check=True, exec=["touch", "/made"], **one.options)
    assert (forecast["changed"], forecast["rc"]) == (True, None)
    failed = run_module("haku_instance", exec=["sh", "-c", "echo so far; ls /made; exit 3"], **one.options)
    assert failed["failed"]
    assert f"'sh' in {one.name} ended with exit code 3: ls: " in failed["msg"]
    assert (failed["rc"], failed["stdout"]) == (3, "so far\n")
    assert "/made" in failed["stderr"]
    assert "has not ended in 1 s" in fail("haku_instance", exec=["sleep", "60"], exec_timeout=1, **one.options)
    assert "can only run in a running" in fail("haku_instance", state="stopped", exec=["true"], **one.options)


@pytest.mark.parametrize("running", ["d28", *PODMAN], indirect=True)
def test_instances_are_listed_with_their_logs(running: Server) -> None:
    succeed("haku_console", command="status", answer_timeout=30, **running.options)
    listed = succeed("haku_instance_info", docker_host=running.engine.url)
    assert running.name in [it["name"] for it in listed["instances"]]
    assert listed["attempts"] == [{"url": running.engine.url, "origin": "as named", "failure": None}]
    (found,) = succeed("haku_instance_info", tail=5, **running.options)["instances"]
    assert found["logs"].count("\n") == 4
    assert succeed("haku_instance_info", **{**running.options, "name": "nobody"})["instances"] == []
    assert "tail is -1, and cannot be below 0" in fail("haku_instance_info", tail=-1, **running.options)


def test_a_log_that_cannot_be_read_hides_nothing_else(one: Server) -> None:
    with server(one.engine, "instance-mute", options=("--log-driver", "none"), BOOT="never") as mute:
        until(lambda: mute.status == "exited")
        listed = succeed("haku_instance_info", docker_host=one.engine.url, tail=5)["instances"]
        assert {it["name"]: it["logs"] for it in listed}[mute.name] is None
        assert "Cannot read the log of container" in fail("haku_instance_info", tail=5, **mute.options)
        sentence = fail("haku_instance", state="started", **mute.options)
        assert sentence.startswith("instance-mute does not keep running. Look at")


def test_modules_name_the_instance_that_is_missing(one: Server) -> None:
    for state in ("started", "stopped", "restarted"):
        assert "There is no instance 'nobody'" in fail(
            "haku_instance", state=state, **{**one.options, "name": "nobody"}
        )


def test_podman_is_looked_for_where_its_services_are(podman: Engine) -> None:
    nowhere = {"DOCKER_HOST": "", "CONTAINER_HOST": "", "XDG_RUNTIME_DIR": "/nonexistent"}
    sentence = run_module("haku_instance_info", engine="podman", environment=nowhere)["msg"]
    assert sentence.index("unix:///run/podman/podman.sock") < sentence.index("unix:///nonexistent/podman/podman.sock")
    found = run_module("haku_instance_info", engine="podman", environment={**nowhere, "CONTAINER_HOST": podman.url})
    assert found["attempts"][0]["origin"] == "CONTAINER_HOST"


def test_docker_in_the_place_of_podman_is_refused(engines: dict[str, Engine], podman: Engine) -> None:
    docker = engines["d28"]
    named = {"DOCKER_HOST": docker.url, "CONTAINER_HOST": ""}
    result = run_module("haku_instance_info", engine="podman", environment=named)
    assert result["msg"].startswith(f"The Podman service does not answer: {docker.url} (DOCKER_HOST): it is Docker. ")
    assert f"{docker.url} (as named): it is Docker" in fail(
        "haku_instance_info", engine="podman", docker_host=docker.url
    )
    # Podman's own variable comes first, and Docker's serves if it leads to Podman.
    for variables, origin in (
        ({**named, "CONTAINER_HOST": podman.url}, "CONTAINER_HOST"),
        ({**named, "DOCKER_HOST": podman.url}, "DOCKER_HOST"),
    ):
        found = run_module("haku_instance_info", engine="podman", environment=variables)
        assert found["attempts"] == [{"url": podman.url, "origin": origin, "failure": None}]
