# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands typed into a server's own console, with a terminal and without, while its log goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings
from ansible_collections.haku.river.plugins.module_utils.docker_interface import DockerInterface
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import local_path

from tests.integration.modules import CHECKOUT, fail, run_module, start_module, succeed, until
from tests.integration.servers import Server, server, without_logs
from tests.lab.engines import PODMAN, RELEASES, Engine

Ask = Callable[..., str]

KINDS: dict[str, dict[str, Any]] = {
    "terminal": {"terminal": True},
    "terminal with a log and colours": {"terminal": True, "LOGS": "50", "COLOURS": "1"},
    "a server that echoes itself": {"terminal": True, "ECHO": "late", "LOGS": "50"},
    "pipes": {"terminal": False},
    "pipes with a log": {"terminal": False, "LOGS": "50", "COLOURS": "1"},
}
KINDS_BY_ENGINE = [*(("d28", kind) for kind in KINDS), ("podman", "terminal with a log and colours")]
ON_ROOTS_PODMAN_TOO = pytest.mark.parametrize("engine", ["d28", "podman"], indirect=True)


@pytest.fixture(params=KINDS_BY_ENGINE, ids="-".join)
def asked(request: pytest.FixtureRequest, engines: dict[str, Engine], podmans: dict[str, Engine]) -> Iterator[Ask]:
    """Give what types a command into a server's console; once for each kind of server, and for one on Podman."""
    name, kind = request.param
    engine = {**engines, **podmans}[name]
    with server(engine, "console-kinds", **KINDS[kind]) as running, interface(running) as docker:

        def ask(command: str, timeout: float = 30) -> str:
            return without_logs(docker.execute_command(running.name, command, timeout))

        yield ask


@pytest.fixture
def quiet(engines: dict[str, Engine]) -> Iterator[Server]:
    """Give a server with a terminal and without a log."""
    with server(engines["d28"], "console-quiet") as running:
        yield running


@pytest.fixture
def quiet_too(engine: Engine) -> Iterator[Server]:
    """Give the same on the test's engine."""
    with server(engine, "console-quiet-too") as running:
        yield running


def interface(running: Server) -> DockerInterface:
    return DockerInterface(EngineSettings(docker_host=running.engine.url))


def message(number: object) -> tuple[str, str]:
    """A command and its answer."""
    return (
        f'message "user {number}" text-{number}',
        f"user {number} > to\n-> text-{number}\nuser {number}: message sent!",
    )


def test_the_answer_is_what_stands_between_the_command_and_the_next_prompt(asked: Ask) -> None:
    command, answer = message(1)
    assert asked(command) == answer
    assert asked("status").startswith("Name: World\nSessionID: S-87fe7d8f\n")
    assert asked("status").endswith("\nDescription: a -> b: > c\nTags: debug, test\nUsers: Bot, Some One")


def test_a_prompt_that_changes_is_recognised(asked: Ask) -> None:
    for world in ("Other", "My World - do not join", "World", ">", ">>>", "x>x", "x"):
        assert asked(f'name "{world}"') == ""
        assert asked("worlds") == f"[0] {world}\tUsers: 2\tPresent: 1\tAccessLevel: RegisteredUsers\tMaxUsers: 6"


@pytest.mark.parametrize("marks", [">", ">>", ">>>"])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipes"])
def test_a_prompt_may_be_one_mark_again_and_again(engines: dict[str, Engine], terminal: bool, marks: str) -> None:
    with (
        server(engines["d28"], "console-marks", terminal=terminal, WORLD=marks[1:]) as running,
        interface(running) as docker,
    ):
        for number in range(2):
            command, answer = message(number)
            assert docker.execute_command(running.name, command, 30) == answer
        assert docker.execute_command(running.name, 'name "Other"', 30) == ""
        assert docker.execute_command(running.name, "sessionid", 30) == "Unknown command: sessionid"


def test_lines_of_an_answer_that_look_like_the_prompt_stay(asked: Ask) -> None:
    assert asked("description x") == "World>\nWorld>a\nWorld>\nWorld>b\ndone"
    command, answer = message("after")
    assert asked(command) == answer


@pytest.mark.parametrize("prompt", ["World>", "a:"])
def test_what_looks_like_the_end_of_an_answer_in_its_middle_does_not_end_it(asked: Ask, prompt: str) -> None:
    assert asked("status").startswith("Name: World\n")
    assert asked(f"dynamicimpulse forge {prompt}") == f"{prompt * 3}\tPresent\nthe rest"
    command, answer = message("after")
    assert asked(command) == answer


def test_an_answer_may_be_large_and_slow(asked: Ask) -> None:
    lines = asked("dynamicimpulse big words", timeout=60).split("\n")
    assert len(lines) == 12000
    assert lines[0].startswith("000000 words -> xxx")
    assert lines[-1].startswith("011999 words -> xxx")
    assert sum(map(len, lines)) > 1 << 20
    # Log lines may come in the middle of its lines.
    assert asked("dynamicimpulse slow words").count("words...") == 5


def test_a_late_answer_is_not_taken_for_that_of_another_command(asked: Ask) -> None:
    asked("status")
    with pytest.raises(HakuError, match="has not answered 'dynamicimpulse' in 1 s"):
        asked("dynamicimpulse sleep 3", timeout=1)
    for number in range(3):
        command, answer = message(number)
        assert asked(command) == answer


def test_an_answer_need_not_end_with_a_newline(quiet: Server) -> None:
    with interface(quiet) as docker:
        assert docker.execute_command(quiet.name, "save") == "Saved."
        assert docker.execute_command(quiet.name, "sessionid") == "Unknown command: sessionid"


def test_a_command_may_read_a_line_itself(asked: Ask) -> None:
    assert asked("log") == "The log follows; press Enter to leave it\nThe log ends"
    command, answer = message("after")
    assert asked(command) == answer


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        *((name, "terminal with a log and colours") for name in (*RELEASES, *PODMAN)),
        *((name, "pipes with a log") for name in RELEASES),  # which Podman closes
    ],
    indirect=["engine"],
)
def test_every_engine_has_the_same_consoles(engine: Engine, kind: str) -> None:
    with server(engine, "console-engines", **KINDS[kind]) as running, interface(running) as docker:
        for number, world in enumerate(("Other", "My World - do not join")):
            assert without_logs(docker.execute_command(running.name, f'name "{world}"', 30)) == ""
            command, answer = message(number)
            assert without_logs(docker.execute_command(running.name, command, 30)) == answer
            assert f"[0] {world}\t" in docker.execute_command(running.name, "worlds", 30)
        assert len(without_logs(docker.execute_command(running.name, "dynamicimpulse big words", 60))) > 1 << 20
        assert without_logs(docker.execute_command(running.name, "shutdown", 30)).endswith("Bye")
        until(lambda: running.status == "exited")


@pytest.mark.parametrize(
    ("engine", "terminal", "questions"),
    [("d28", True, 10_000), ("d28", False, 2_000), ("podman", True, 1_000)],
    indirect=["engine"],
)
def test_each_of_10000_answers_to_8_callers_belongs_to_its_question(
    engine: Engine, terminal: bool, questions: int
) -> None:
    with (
        server(engine, "console-many", terminal=terminal, LOGS="100", COLOURS="1") as running,
        interface(running) as docker,
        ThreadPoolExecutor(8) as pool,
    ):
        container_id = docker.get_instance_status(running.name)["id"]

        def ask(number: int) -> str | None:
            command, expected = message(number)
            answer = docker.execute_command(container_id, command, 120)
            return None if without_logs(answer) == expected else answer

        assert [wrong for wrong in pool.map(ask, range(questions)) if wrong is not None] == []


@pytest.mark.parametrize("pace", ["0.4", "1"])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipes"])
def test_a_server_that_is_slow_to_read_its_lines_is_waited_for(
    engines: dict[str, Engine], terminal: bool, pace: str
) -> None:
    with server(engines["d28"], "console-slow", terminal=terminal, PACE=pace) as running, interface(running) as docker:
        for number in range(3):
            command, answer = message(number)
            assert docker.execute_command(running.name, command, 60) == answer
        # Its prompt does not begin a line, so there is one fewer.
        assert docker.execute_command(running.name, "save", 60) == "Saved."
        assert docker.execute_command(running.name, "sessionid", 60) == "Unknown command: sessionid"


def test_processes_that_ask_at_once_get_their_own_answers(engines: dict[str, Engine]) -> None:
    program = """
import sys
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings
from ansible_collections.haku.river.plugins.module_utils.docker_interface import DockerInterface
url, name, own = sys.argv[1:]
with DockerInterface(EngineSettings(docker_host=url)) as docker:
    for number in range(50):
        print(docker.execute_command(name, f"message {own} {number}", 120))
assert not [module for module in sys.modules if module.split(".")[0] == "ansible"]
"""
    with server(engines["d28"], "console-processes") as running:
        arguments = [sys.executable, "-c", program, running.engine.url, running.name]
        asking = [
            subprocess.Popen(
                [*arguments, str(own)], cwd=CHECKOUT / ".checkout", stdout=subprocess.PIPE, text=True, env={}
            )
            for own in range(4)
        ]
        for own, process in enumerate(asking):
            said, _nothing = process.communicate(timeout=300)
            assert process.returncode == 0
            assert said == "".join(f"{own} > to\n-> {number}\n{own}: message sent!\n" for number in range(50))


@ON_ROOTS_PODMAN_TOO
def test_a_caller_that_was_killed_does_not_leave_its_answer_to_the_next(quiet_too: Server) -> None:
    asking = start_module("haku_console", command="dynamicimpulse sleep 2", answer_timeout=60, **quiet_too.options)
    until(lambda: "sleep 2" in quiet_too.engine.docker("logs", quiet_too.name))
    asking.kill()
    asking.communicate()
    command, answer = message("after")
    with interface(quiet_too) as docker:
        assert docker.execute_command(quiet_too.name, command, 30) == answer
    told = succeed("haku_console", command=command, answer_timeout=30, **quiet_too.options)
    assert told["answer"] == answer


@ON_ROOTS_PODMAN_TOO
def test_a_server_that_never_answers_leaves_nothing_hanging(quiet_too: Server) -> None:
    before = threading.active_count()
    with interface(quiet_too) as docker:
        began = time.monotonic()
        with pytest.raises(HakuError, match="has not answered"):
            docker.execute_command(quiet_too.name, "dynamicimpulse sleep 60", 1)
        with pytest.raises(HakuError, match=r"shows no prompt: it was given 1 s and an empty line"):
            docker.execute_command(quiet_too.name, "status", 1)
        assert time.monotonic() - began < 50
    until(lambda: threading.active_count() <= before)


def test_who_waits_for_the_console_is_told_when_the_time_is_up(quiet: Server) -> None:
    with interface(quiet) as docker, interface(quiet) as other, ThreadPoolExecutor() as pool:
        docker.execute_command(quiet.name, "status")
        sleeping = pool.submit(docker.execute_command, quiet.name, "dynamicimpulse sleep 3", 30)
        until(lambda: not sleeping.running() or "sleep 3" in quiet.engine.docker("logs", quiet.name))
        with pytest.raises(HakuError, match="console-quiet is in use"):
            other.execute_command(quiet.name, "status", 0.5)
        assert sleeping.result() == "slept 3"


def test_a_console_that_is_closed_in_use_says_so(quiet: Server) -> None:
    with interface(quiet) as docker, interface(quiet) as other, ThreadPoolExecutor() as pool:
        docker.execute_command(quiet.name, "status")
        sleeping = pool.submit(docker.shut_down, quiet.name, "dynamicimpulse sleep 2", 30)
        until(lambda: not sleeping.running() or "sleep 2" in quiet.engine.docker("logs", quiet.name))
        docker.cleanup()
        with pytest.raises(HakuError, match="The console of console-quiet was closed while it was used"):
            sleeping.result()
        command, answer = message("after")
        assert other.execute_command(quiet.name, command, 30) == answer


def test_a_command_goes_to_the_container_that_has_the_name_now(quiet: Server) -> None:
    with interface(quiet) as docker:
        docker.execute_command(quiet.name, "name Former")
        quiet.engine.docker("rename", quiet.name, "console-former")
        try:
            with server(quiet.engine, quiet.name):
                assert "[0] World" in docker.execute_command(quiet.name, "worlds", 30)
                assert "[0] Former" in docker.execute_command("console-former", "worlds", 30)
        finally:
            quiet.engine.docker("rename", "console-former", quiet.name)


def test_of_servers_that_ended_nothing_is_kept(quiet: Server) -> None:
    def locks() -> int:
        return sum(file.resolve().suffix == ".lock" for file in Path("/proc/self/fd").iterdir())

    before = locks()
    with interface(quiet) as docker:
        for number in range(2):
            with server(quiet.engine, f"console-passing-{number}") as passing:
                docker.execute_command(passing.name, "status", 30)
        docker.execute_command(quiet.name, "status", 30)
        assert locks() == before + 1
    assert locks() == before


def test_a_lock_that_another_user_has_made_is_not_trusted(quiet: Server) -> None:
    container_id = quiet.engine.docker("inspect", "--format", "{{.Id}}", quiet.name).strip()
    path = local_path("console", container_id)
    path.touch()
    os.chown(path, 12345, 12345)
    with interface(quiet) as docker:
        with pytest.raises(HakuError, match=f"Cannot open the lock {path} .* it belongs to user 12345; remove it"):
            docker.execute_command(quiet.name, "status")
        path.unlink()
        assert docker.execute_command(quiet.name, "sessionid", 30) == "Unknown command: sessionid"


@pytest.mark.parametrize(
    "bad", ["status\nkick Bot", "status\r", "status\0", "say \x1b[2J", "a\x10\x11", "\u2028", "", " "]
)
def test_what_is_not_one_line_is_refused_before_anything_is_typed(quiet: Server, bad: str) -> None:
    with interface(quiet) as docker:
        with pytest.raises(HakuError, match=r"would end the line|is not a command"):
            docker.execute_command(quiet.name, bad, raw=True)
        assert quiet.engine.docker("logs", quiet.name).count(">") <= 1


def test_an_unknown_command_is_refused_with_the_list_unless_raw(quiet: Server) -> None:
    with interface(quiet) as docker:
        with pytest.raises(HakuError, match=r"'stat' is not a supported.*status, users, worlds.*shutdown"):
            docker.execute_command(quiet.name, "stat")
        assert docker.execute_command(quiet.name, "stat", raw=True) == "Unknown command: stat"


def test_a_restarted_server_is_asked_through_a_new_connection(quiet: Server) -> None:
    with interface(quiet) as docker:
        docker.execute_command(quiet.name, "name Former")
        assert docker.restart_instance(quiet.name, timeout=1)
        assert "[0] World" in docker.execute_command(quiet.name, "worlds")


def test_a_server_that_dies_of_a_command_is_an_error_with_its_last_words(quiet: Server) -> None:
    with interface(quiet) as docker:
        docker.execute_command(quiet.name, "status")
        with pytest.raises(HakuError, match="console-quiet ended before it answered 'gc'"):
            docker.execute_command(quiet.name, "gc")
        with pytest.raises(HakuError, match="console-quiet is exited, and only a running server has a console"):
            docker.execute_command(quiet.name, "status")


def test_shutting_down_is_answered_by_the_last_words(quiet: Server) -> None:
    with interface(quiet) as docker:
        assert docker.execute_command(quiet.name, "shutdown") == "Shutting down\nBye"


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipes"])
def test_a_server_without_a_prompt_can_be_told_to_end(engines: dict[str, Engine], terminal: bool) -> None:
    with (
        server(engines["d28"], "console-promptless", terminal=terminal, PROMPTLESS="1") as running,
        interface(running) as docker,
    ):
        with pytest.raises(HakuError, match="The console of console-promptless shows no prompt"):
            docker.execute_command(running.name, "status", 1)
        sentence = "console-promptless has not ended in 2 s, though 'status' was typed: its console shows no prompt"
        with pytest.raises(HakuError, match=sentence):
            docker.shut_down(running.name, "status", 2)
        assert docker.shut_down(running.name, "stop", 6) == "Shutting down\nBye"
        assert running.status == "exited"


@pytest.mark.parametrize(
    ("options", "sentence"), [((), "has no console: its standard input is closed"), (("--interactive",), None)]
)
def test_a_container_without_an_open_standard_input_has_no_console(
    engines: dict[str, Engine], options: tuple[str, ...], sentence: str | None
) -> None:
    with server(engines["d28"], "console-closed", options=options) as running:
        asked = run_module("haku_console", command="status", **running.options)
        assert asked.get("failed", False) == (sentence is not None)
        assert sentence is None or sentence in asked["msg"]


# The module


def test_the_module_returns_answers_as_data(quiet: Server) -> None:
    status = succeed("haku_console", command="status", **quiet.options)
    assert not status["changed"]
    assert status["answer_lines"][0] == "Name: World"
    assert status["parsed"]["current_users"] == 2
    assert status["parsed"]["users"] == ["Bot", "Some One"]
    users = succeed("haku_console", command="users", **quiet.options)["parsed"]
    assert users[1] == {
        "name": "Some One",
        "id": "U-2",
        "role": "Builder",
        "present": True,
        "ping_ms": 42,
        "fps": 59.9,
        "silenced": True,
    }
    assert succeed("haku_console", command="worlds", **quiet.options)["parsed"][0]["name"] == "World"
    (ban,) = succeed("haku_console", command="listbans", **quiet.options)["parsed"]
    assert ban == {"index": 0, "username": "Bad One", "user_id": "U-3", "machine_ids": ["66a", "66b"]}


def test_arguments_are_quoted_and_secret_ones_are_not_shown(quiet: Server) -> None:
    options = {"command": "message", "arguments": ["Some One"], "secret_arguments": ["s3cret word"], **quiet.options}
    told = succeed("haku_console", **options)
    assert told["changed"]
    assert "Some One > to" in told["answer"]
    assert "s3cret" not in json.dumps(told)


def test_check_mode_asks_and_changes_nothing(quiet: Server) -> None:
    assert succeed("haku_console", check=True, command="worlds", **quiet.options)["parsed"]
    forecast = succeed("haku_console", check=True, command="name Other", **quiet.options)
    assert forecast["changed"]
    assert forecast["answer"] is None
    assert "[0] World" in succeed("haku_console", command="worlds", **quiet.options)["answer"]


def test_check_mode_promises_nothing_that_cannot_be_typed(quiet: Server) -> None:
    assert "no instance" in fail("haku_console", check=True, command="save", **{**quiet.options, "name": "nobody"})
    quiet.engine.docker("kill", quiet.name)
    assert "console-quiet is exited" in fail("haku_console", check=True, command="save", **quiet.options)
    with server(quiet.engine, "console-closed", options=(), BOOT="60") as closed:
        assert "its standard input is closed" in fail("haku_console", check=True, command="save", **closed.options)


def test_a_command_that_ends_the_server_is_answered_by_its_last_words(engines: dict[str, Engine]) -> None:
    options: dict[str, Any] = {"command": "stop", "raw": True, "ends_server": True, "answer_timeout": 15}
    with server(engines["d28"], "console-ending", PROMPTLESS="1") as running:
        assert succeed("haku_console", check=True, **options, **running.options)["changed"]
        assert running.status == "running"
        told = succeed("haku_console", **options, **running.options)
        assert (told["changed"], told["answer"], running.status) == (True, "Shutting down\nBye", "exited")


def test_a_server_that_is_still_starting_is_waited_for(engines: dict[str, Engine]) -> None:
    with server(engines["d28"], "console-booting", BOOT="12") as running:
        options = {"command": "status", "answer_timeout": 1, **running.options}
        assert "shows no prompt" in fail("haku_console", **options)
        told = succeed("haku_console", until="^Current Users: [0-9]", retries=30, **options)
        assert told["attempts"] > 1
        sentence = fail("haku_console", expect="^Current Users: 7", retries=1, delay=0, **options)
        assert "is not as expected" in sentence


def test_what_will_never_answer_is_not_waited_for(engines: dict[str, Engine]) -> None:
    waiting: dict[str, Any] = {"command": "status", "answer_timeout": 5, "retries": 1000, "delay": 1}
    nobody: dict[str, Any] = {"docker_host": engines["d28"].url, "name": "nobody"}
    assert "There is no instance 'nobody'" in fail("haku_console", **waiting, **nobody)
    with server(engines["d28"], "console-closed", options=(), BOOT="600") as closed:
        assert "its standard input is closed" in fail("haku_console", **waiting, **closed.options)
    options = ("--interactive", "--restart", "always")
    with server(engines["d28"], "console-looping", options=options, BOOT="never") as looping:
        sentence = fail("haku_console", **waiting, **looping.options)
        assert sentence.startswith(
            "console-looping ends again and again, and does not answer 'status': the engine had to"
        )
