# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks, on real engines: what reaches the container, what comes back, how they end, and that nothing stays."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine import Engine as EngineApi
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.task import TASK_OPTIONS, Task
from ansible_collections.haku.river.plugins.module_utils.task_image import Provided, WantedImage, provide_image
from ansible_collections.haku.river.plugins.module_utils.task_record import TaskFiles
from ansible_collections.haku.river.plugins.module_utils.task_run import Running, run_task

from tests.integration.environment import Environment
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT, NEEDS_LIMITS
from tests.integration.modules import (
    Result,
    fail,
    forecasts,
    peak_memory,
    result_of,
    returned,
    run_module,
    start_module,
    succeed,
)
from tests.lab import images
from tests.lab.engines import PODMAN, Engine
from tests.lab.host import remove, wait_until

pytestmark = ITS_NEIGHBOURS_SHOW_IT

ENGINES_OF_BOTH_STORES = pytest.mark.parametrize("engine", ["d28", "d28c"], indirect=True)
HOSTILE = [
    "it's",
    'a "quote"',
    "$(touch /tmp/pwned)",
    "`id`",
    "a\nb",
    "*",
    "~",
    "; exit 3",
    "\\",
    "",
    " ",
    "-n",
    "{{ 7*7 }}",
    "ä€😀",
    "%s",
    "!!",
]


@pytest.fixture
def packaged(environment: Environment) -> Iterator[Environment]:
    """Give an environment with one version; the engine sees the shared directory, and has the image."""
    yield from _packaged(environment)


@pytest.fixture
def one_packaged(one_environment: Environment) -> Iterator[Environment]:
    """Give the same on one engine, for promises that no engine has a part in."""
    yield from _packaged(one_environment)


def _packaged(environment: Environment) -> Iterator[Environment]:
    shared = environment.engine.socket.parent / "shared" / environment.name
    (shared / "hakuriver-containers").mkdir(parents=True)
    packaged = replace(environment, shared=shared)
    packaged.execute("echo 1 > /version")
    succeed("haku_tar", **packaged.options)
    yield packaged
    for container in containers(packaged):
        packaged.engine.docker("rm", "--force", container)
    remove(shared)


def options(environment: Environment, command: Any, **more: Any) -> dict[str, Any]:
    return {**environment.options, "command": command, "network": "none", **more}


def run(environment: Environment, command: Any, **more: Any) -> Result:
    return run_module("haku_task", **options(environment, command, **more))


def absence(environment: Environment, task_id: str) -> dict[str, Any]:
    own = {"task_id": task_id, "state": "absent"}
    return {"shared_dir": str(environment.shared), "docker_host": environment.engine.url, **own}


def containers(environment: Environment) -> list[str]:
    """The containers of this test's tasks; each has its shared directory in a label."""
    listed = environment.engine.docker(
        "ps", "--all", "--filter", "label=haku.river.task", "--format", '{{.Names}} {{.Label "haku.river.output"}}'
    )
    return [line.split()[0] for line in listed.splitlines() if f" {environment.shared}/" in line]


def wait_for_none(environment: Environment) -> None:
    wait_until(lambda: not containers(environment), "the task's container to be removed")


def tasks(environment: Environment, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = succeed("haku_task_info", shared_dir=str(environment.shared), **more)["tasks"]
    return found


# What a task is given, and what it gives


def test_a_command_runs_in_the_newest_version_and_all_that_it_writes_is_in_files(packaged: Environment) -> None:
    packaged.execute("echo 2 > /version")
    version = succeed("haku_tar", **packaged.options)["version"]
    result = run(packaged, "cat /version; echo oops >&2")
    assert not result.get("failed"), result
    assert result["changed"]
    assert (result["state"], result["outcome"], result["rc"], result["problem"]) == ("finished", "exited", 0, None)
    assert (result["stdout"], result["stderr"]) == ("2\n", "oops\n")
    assert result["version"] == version == result["sync"]["version"]
    stdout, stderr = Path(result["stdout_file"]), Path(result["stderr_file"])
    assert stdout == packaged.shared / "task_outputs" / f"{result['task_id']}.out"
    assert stderr == packaged.shared / "task_errors" / f"{result['task_id']}.err"
    assert (stdout.read_text(), stderr.read_text()) == ("2\n", "oops\n")
    assert containers(packaged) == []


def test_a_pinned_version_is_run(packaged: Environment) -> None:
    (first,) = packaged.versions
    packaged.execute("echo 2 > /version")
    succeed("haku_tar", **packaged.options, keep=2)
    assert run(packaged, "cat /version", version=first)["stdout"] == "1\n"
    assert run(packaged, "cat /version", sync=False)["stdout"] == "1\n"
    assert run(packaged, "cat /version")["stdout"] == "2\n"


def test_a_check_says_what_would_be_done_and_does_nothing(packaged: Environment) -> None:
    asked = options(packaged, "echo hello", task_id="checked")
    check = succeed("haku_task", check=True, **asked)
    assert packaged.image not in packaged.references
    assert not (packaged.shared / "task_outputs").exists()
    assert forecasts(returned(check), returned(succeed("haku_task", **asked)))
    assert "There is a task checked already" in fail("haku_task", check=True, **asked)


@pytest.mark.parametrize("rc", [1, 7, 255])
def test_an_exit_code_comes_back_and_fails_the_module(one_packaged: Environment, rc: int) -> None:
    result = run(one_packaged, ["sh", "-c", f"echo last words; exit {rc}"])
    assert result["failed"]
    assert (result["outcome"], result["rc"], result["stdout"]) == ("exited", rc, "last words\n")
    assert result["msg"] == f"The command ended with exit code {rc}"


def test_arguments_arrive_as_they_are(one_packaged: Environment) -> None:
    script = 'for word; do printf "%s\\0" "$word"; done'
    result = run(one_packaged, ["sh", "-c", script, "sh", *HOSTILE])
    assert Path(result["stdout_file"]).read_bytes().split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert not Path("/tmp/pwned").exists()


def test_a_string_is_for_the_shell_in_the_container(one_packaged: Environment) -> None:
    result = run(one_packaged, "for i in 1 2; do echo \"$i $(hostname) '$HOME'\"; done\necho end")
    container = result["stdout"].split()[1]
    assert result["stdout"] == f"1 {container} '/root'\n2 {container} '/root'\nend\n"
    assert container != os.uname().nodename


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["echo", "a\0b"], "NUL character in 'a\\x00b'"),
        ("echo a\0b", "NUL character"),
        (["echo", "\udcff"], "not UTF-8"),
        ([], "command is empty"),
        (" ", "command is empty"),
        ([True], "not a string"),
    ],
)
def test_a_command_that_cannot_arrive_is_refused(one_packaged: Environment, command: Any, complaint: str) -> None:
    assert complaint in fail("haku_task", **options(one_packaged, command))
    assert not (one_packaged.shared / "task_outputs").exists()


def test_a_program_that_is_not_there_leaves_nothing(packaged: Environment) -> None:
    complaint = fail("haku_task", **options(packaged, ["no-such-program"], task_id="again", init=False))
    assert "no-such-program" in complaint
    assert containers(packaged) == []
    assert tasks(packaged) == []
    with_init = run(packaged, ["no-such-program"], task_id="again")
    # Podman's init does not tell this from other failures.
    missing, words = (1, "No such file") if packaged.engine.name in PODMAN else (127, "no-such-program")
    assert (with_init["outcome"], with_init["rc"]) == ("exited", missing)
    assert words in with_init["stderr"]


def test_output_that_is_no_text_is_kept_and_shown(one_packaged: Environment) -> None:
    result = run(one_packaged, r"printf '\377\000ok\n'")
    assert Path(result["stdout_file"]).read_bytes() == b"\xff\x00ok\n"
    assert result["stdout"] == "\\xff\x00ok\n"


@pytest.mark.parametrize(
    ("more", "stdout"),
    [
        ({"output": "full"}, "ää12345"),
        ({"output": "none"}, ""),
        ({"output_bytes": 3}, "345"),
        ({"output_bytes": 6}, "12345"),
        ({"output_bytes": 7}, "ä12345"),
    ],
)
def test_as_much_is_returned_as_is_asked_for(one_packaged: Environment, more: dict[str, Any], stdout: str) -> None:
    result = run(one_packaged, ["printf", "ää12345"], **more)
    assert result["stdout"] == stdout
    assert result["stdout_bytes"] == 9


@ENGINES_OF_BOTH_STORES
def test_a_gigabyte_of_output_takes_little_memory(packaged: Environment) -> None:
    size = 1_000_000_000
    output = packaged.shared / "task_outputs/gigabyte.out"
    asked = options(packaged, f"head -c {size} /dev/zero | tr '\\0' x", task_id="gigabyte")
    with ThreadPoolExecutor() as pool:
        module = pool.submit(peak_memory, "haku_task", **asked)
        wait_until(lambda: output.exists() and output.stat().st_size > 0, "the first of its output")
        both = holders(output)
        assert len(both) == 2, "the module, which waits, and the supervisor, which all of it goes through"
        peaks_bytes = [peak_so_far(both)]
        while not module.done():
            time.sleep(0.02)
            peaks_bytes.append(peak_so_far(both))
    result, peak_bytes = module.result()
    assert result["outcome"] == "exited", result
    assert result["stdout_bytes"] == Path(result["stdout_file"]).stat().st_size == size
    assert result["stdout"] == "x" * 65536
    assert 0 < max(peak_bytes, *peaks_bytes) < 100_000_000
    assert containers(packaged) == []
    output.unlink()


@NEEDS_LIMITS
def test_the_container_is_as_asked(packaged: Environment) -> None:
    script = (
        "id -u; pwd; echo $GREETING; cat /extra/note; df -m /dev/shm | tail -n 1 | awk '{print $2}'; "
        f"echo from the task > {packaged.shared}/note; grep Cpus_allowed_list /proc/self/status"
    )
    extra = packaged.shared / "extra"
    extra.mkdir()
    (extra / "note").write_text("a note\n")
    packaged.shared.chmod(0o777)
    result = run(
        packaged,
        script,
        user="65534",
        workdir="/tmp",
        env={"GREETING": "hello $HOME"},
        volumes=[f"{extra}:/extra:ro"],
        numa_node=0,
        cpus=0.5,
        memory="64M",
        shm_size="96M",
    )
    cpus = Path("/sys/devices/system/node/node0/cpulist").read_text().strip()
    assert result["stdout"].splitlines() == [
        "65534",
        "/tmp",
        "hello $HOME",
        "a note",
        "96",
        f"Cpus_allowed_list:\t{cpus}",
    ]
    assert (packaged.shared / "note").read_text() == "from the task\n"


def test_the_shared_directory_can_be_left_out(one_packaged: Environment) -> None:
    result = run(one_packaged, ["ls", one_packaged.shared.as_posix()], mount_shared_dir=False)
    assert result["rc"] == 1
    read_only = [f"{one_packaged.shared}:{one_packaged.shared}:ro"]
    assert "Read-only" in run(one_packaged, f"touch {one_packaged.shared}/x", volumes=read_only)["stderr"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"numa_node": 99}, "no NUMA node 99"),
        ({"workdir": "tmp"}, "not an absolute path"),
        ({"task_id": "../x"}, "cannot be a task_id"),
        ({"time_limit": 0}, "leave no time"),
        ({"gpus": "some"}, "means nothing"),
        ({"gpus": 1}, "gpu"),
        ({"env": {"A": 1}}, "not a string"),
        ({"name": "no-such-env"}, "There is no tarball of no-such-env"),
        ({"sync": False}, "There is no image"),
        ({"sync": False, "version": 1}, "whatever version"),
        ({"shared_dir": "/not-mounted"}, "There is no directory /not-mounted"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    one_packaged: Environment, more: dict[str, Any], complaint: str
) -> None:
    assert complaint in fail("haku_task", **{**options(one_packaged, ["true"]), **more})
    assert containers(one_packaged) == []
    assert tasks(one_packaged) == []
    assert not any((one_packaged.shared / "task_outputs").glob("*"))


@pytest.mark.parametrize(
    "more", [{"sync": False}, {"source": "https://127.0.0.1:1/tarballs"}], ids=["no sync", "source"]
)
def test_nothing_is_written_where_the_shared_directory_is_not_mounted(
    one_packaged: Environment, more: dict[str, Any], tmp_path: Path
) -> None:
    run(one_packaged, "true")  # brings the image
    point = tmp_path / "mount-point"
    point.mkdir()
    elsewhere = {**options(one_packaged, "true"), "shared_dir": str(point), **more}
    for check in (True, False):
        complaint = fail("haku_task", check=check, **elsewhere)
        assert f"{point} has neither hakuriver-containers nor task_outputs" in complaint
    assert list(point.iterdir()) == []
    (point / "task_outputs").mkdir()
    assert succeed("haku_task", **{**elsewhere, "sync": False, "mount_shared_dir": False, "source": None})["rc"] == 0


def test_an_id_serves_once(one_packaged: Environment) -> None:
    assert run(one_packaged, "echo first", task_id="same")["rc"] == 0
    assert "There is a task same already" in fail("haku_task", **options(one_packaged, "echo second", task_id="same"))
    assert (one_packaged.shared / "task_outputs/same.out").read_text() == "first\n"


# How tasks end


@NEEDS_LIMITS
def test_a_task_that_takes_too_much_memory_is_told_from_others(packaged: Environment) -> None:
    result = run(packaged, "echo begun; tail /dev/zero", memory="16M")
    assert result["failed"]
    assert (result["outcome"], result["stdout"]) == ("oom_killed", "begun\n")
    assert "memory" in result["msg"]
    by_itself = run(packaged, "kill -9 $$")
    assert (by_itself["outcome"], by_itself["rc"]) == ("exited", 137)
    assert containers(packaged) == []


def test_a_task_that_outlives_its_limit_is_stopped(packaged: Environment) -> None:
    result = run(packaged, "echo begun; sleep 600", time_limit=3)
    assert result["failed"]
    assert (result["outcome"], result["stdout"]) == ("timed_out", "begun\n")
    assert "within 3 s" in result["msg"]
    assert containers(packaged) == []


def test_a_task_that_will_not_stop_is_killed_and_may_write_until_then(one_packaged: Environment) -> None:
    script = "trap 'echo no' TERM; echo begun; while true; do sleep 1; done"
    result = run(one_packaged, script, time_limit=3, stop_timeout=3)
    assert (result["outcome"], result["rc"], result["stdout"]) == ("timed_out", 137, "begun\nno\n")


def test_a_task_ends_with_its_module(packaged: Environment) -> None:
    with start_module("haku_task", **options(packaged, "echo begun; sleep 600", task_id="left")) as module:
        output = packaged.shared / "task_outputs/left.out"
        wait_until(lambda: output.exists() and output.read_text() == "begun\n", "the task to run")
        module.kill()
    wait_until(lambda: tasks(packaged, state="finished") != [], "the task to end")
    wait_for_none(packaged)
    (task,) = tasks(packaged)
    assert (task["state"], task["outcome"]) == ("finished", "abandoned")


def test_a_task_ends_when_nobody_reads_the_result(one_packaged: Environment) -> None:
    with start_module("haku_task", **options(one_packaged, "sleep 600")) as module:
        wait_until(lambda: containers(one_packaged) != [], "the task to run")
        assert module.stdout
        module.stdout.close()
        module.wait(60)
    wait_for_none(one_packaged)


def test_a_task_whose_supervisor_was_killed_is_lost_and_found(packaged: Environment) -> None:
    detached = run(packaged, "sleep 600", task_id="lost", detach=True)
    assert detached["state"] == "running"
    kill_supervisor(packaged.shared / "task_outputs/lost.out")
    (task,) = tasks(packaged)
    assert (task["state"], task["outcome"]) == ("lost", None)
    assert containers(packaged) == ["haku-task-lost"]
    result = run(packaged, "true")
    assert "Task lost was lost" in str(result["warnings"])
    assert containers(packaged) == []
    assert sorted(task["outcome"] for task in tasks(packaged)) == ["exited", "lost"]  # perhaps in one second


def test_a_task_that_was_lost_on_another_runner_is_left_to_that_one(
    one_packaged: Environment, engines: dict[str, Engine]
) -> None:
    run(one_packaged, "sleep 600", task_id="lost", detach=True)
    kill_supervisor(one_packaged.shared / "task_outputs/lost.out")
    absent = {**absence(one_packaged, "lost"), "delete_outputs": True}
    other_name = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$0" "$@"')
    there = succeed("haku_task", within=other_name, **{**absent, "docker_host": engines["d26"].url})
    assert (there["changed"], there["state"]) == (False, "running")
    assert f"runs on {platform.node()}, and not here" in str(there["warnings"])
    assert containers(one_packaged) == ["haku-task-lost"]
    assert succeed("haku_task", **absent)["state"] == "absent"
    assert (containers(one_packaged), tasks(one_packaged)) == ([], [])


def test_a_module_whose_supervisor_is_killed_cleans_up(one_packaged: Environment) -> None:
    output = one_packaged.shared / "task_outputs/lost.out"
    with start_module("haku_task", **options(one_packaged, "echo begun; sleep 600", task_id="lost")) as module:
        wait_until(lambda: output.exists() and output.read_text() == "begun\n", "the task to run")
        (other,) = holders(output) - {module.pid}
        os.kill(other, signal.SIGKILL)
        result = result_of(module)
    assert result["outcome"] == "lost"
    assert containers(one_packaged) == []


def holders(path: Path) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


def peak_so_far(processes: set[int]) -> int:
    """The most memory in bytes that one of these processes has had; 0 when all are gone."""
    found = [0]
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(found)


def kill_supervisor(output: Path) -> None:
    (supervisor,) = holders(output)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not holders(output), "the supervisor to be gone")


def test_a_supervisor_that_is_asked_to_end_ends_its_task(one_packaged: Environment) -> None:
    run(one_packaged, "sleep 600", task_id="shutdown", detach=True)
    (supervisor,) = holders(one_packaged.shared / "task_outputs/shutdown.out")
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: tasks(one_packaged, state="finished") != [], "the task to end")
    assert tasks(one_packaged)[0]["outcome"] == "killed"
    assert containers(one_packaged) == []


def test_a_task_whose_output_cannot_be_stored_is_stopped(one_packaged: Environment) -> None:
    """The module, and so its supervisor, has a tiny file system of its own for it."""
    shared = one_packaged.shared
    small = 'mount -t tmpfs -o size=1m none "$0/task_outputs" && exec "$@"'
    (shared / "task_outputs").mkdir()
    asked = options(one_packaged, "head -c 4000000 /dev/zero; sleep 600", mount_shared_dir=False)
    result = run_module("haku_task", within=("unshare", "--mount", "sh", "-c", small, str(shared)), **asked)
    assert result["outcome"] == "output_lost"
    assert "No space left on device" in result["msg"]
    assert containers(one_packaged) == []


def test_how_a_task_ends_is_told_although_the_whole_shared_directory_is_full(one_packaged: Environment) -> None:
    shared = one_packaged.shared
    run(one_packaged, "true")  # brings the image, as the directory is empty then
    small = 'mount -t tmpfs -o size=1m none "$0" && mkdir "$0/task_outputs" && exec "$@"'
    asked = options(one_packaged, "head -c 4000000 /dev/zero; sleep 600", mount_shared_dir=False, sync=False)
    result = run_module("haku_task", within=("unshare", "--mount", "sh", "-c", small, str(shared)), **asked)
    assert (result["state"], result["outcome"], result["rc"]) == ("finished", "output_lost", 143)
    assert result["ended"] >= result["started"]
    assert result["problem"] in result["msg"]
    assert "record is out of date" in str(result["warnings"])
    assert containers(one_packaged) == []


# At bad moments


def asked_here(environment: Environment, task_id: str) -> tuple[EngineApi, Running, Callable[[], Provided]]:
    """What the module makes of its options, for a run in this process, which then can be held up where it matters."""
    files = TaskFiles(environment.shared, task_id)
    said = {**dict.fromkeys(TASK_OPTIONS), "command": "echo begun; sleep 600", "network": "none"}
    task = Task.from_options(task_id, environment.name, environment.shared, said)
    engine = connect(EngineSettings(docker_host=environment.engine.url))
    catalogue = Catalogue(str(environment.shared), "hakuriver-containers")
    wanted = WantedImage(environment.name, environment.image)
    wish = Running(task, files, environment.image, stop_timeout=1)
    return engine, wish, lambda: provide_image(engine, catalogue, wanted, check_mode=False)


def test_a_task_that_is_only_being_started_can_be_killed(one_packaged: Environment) -> None:
    engine, wish, provide = asked_here(one_packaged, "early")
    mark, reopen = wish.files.kill_mark, engine.reopen

    def reopen_when_wanted_dead() -> EngineApi:
        wait_until(mark.exists, "somebody to want the task killed")
        return reopen()

    engine.reopen = reopen_when_wanted_dead  # which is the first that a supervisor does
    with ThreadPoolExecutor() as pool:
        run_ = pool.submit(run_task, engine, provide, wish, check_mode=False)
        wait_until(lambda: tasks(one_packaged) != [], "the task to be known")
        assert containers(one_packaged) == []
        gone = succeed("haku_task", **absence(one_packaged, "early"))
        assert run_.result(60).facts["outcome"] == "killed"
    assert gone["diff"] == {"before": {"state": "running"}, "after": {"state": "finished"}}
    assert [task["outcome"] for task in tasks(one_packaged)] == ["killed"]
    assert containers(one_packaged) == []
    assert not mark.exists()


@pytest.mark.parametrize(("removals", "succeeds"), [(2, True), (3, False)])
def test_an_image_that_is_removed_before_the_container_is_there_is_brought_again_but_not_for_ever(
    one_packaged: Environment, removals: int, succeeds: bool
) -> None:
    engine, wish, provide = asked_here(one_packaged, "again")
    wish = replace(wish, detach=True)
    one_packaged.leave()  # or its container would keep the image
    brought = []

    def provide_for_a_moment() -> Provided:
        provided = provide()
        brought.append(provided)
        if len(brought) <= removals:
            one_packaged.engine.docker("image", "rm", one_packaged.image)
        return provided

    if succeeds:
        assert run_task(engine, provide_for_a_moment, wish, check_mode=False).facts["state"] == "running"
        succeed("haku_task", **absence(one_packaged, "again"))
    else:
        with pytest.raises(HakuError, match=r"Cannot create container haku-task-again: .*[Nn]o such image"):
            run_task(engine, provide_for_a_moment, wish, check_mode=False)
        assert not wish.files.exist
    assert len(brought) == 3
    assert containers(one_packaged) == []


# Many


@pytest.mark.xdist_group("d28")  # tasks end what was lost on their engine, whosever it is
def test_a_hundred_tasks_at_once_after_an_update_load_it_once(engines: dict[str, Engine]) -> None:
    runner = engines["d28"]
    packaged = Environment(engines["d26"], "a-hundred-tasks", runner.socket.parent / "shared/a-hundred-tasks")
    there = packaged.on(runner)
    packaged.tarballs.mkdir(parents=True)
    packaged.create(images.provide(images.BUSYBOX, packaged.engine))
    try:
        packaged.execute("echo 1 > /version")
        succeed("haku_tar", **packaged.options)
        assert run(there, "cat /version")["stdout"] == "1\n"
        packaged.execute("echo 2 > /version")
        succeed("haku_tar", **packaged.options)
        started = [
            start_module("haku_task", **options(there, ["sh", "-c", f"cat /version; echo {number}"]))
            for number in range(100)
        ]
        results = [result_of(module) for module in started]
        assert [result["stdout"] for result in results] == [f"2\n{number}\n" for number in range(100)]
        assert sorted(result["sync"]["action"] for result in results) == ["load", *["none"] * 99]
        assert len({result["task_id"] for result in results}) == 100
        # Those that had ended when another one looked for what was left were not lost.
        assert not any("was lost" in str(result.get("warnings")) for result in results)
        assert len(list(there.shared.glob("task_outputs/*.out"))) == 101
        assert containers(there) == []
    finally:
        packaged.leave()
        there.leave()
        remove(there.shared)


# Without the module


def test_a_detached_task_goes_on_and_its_end_is_told(packaged: Environment) -> None:
    go = packaged.shared / "go"
    script = f"echo begun; while [ ! -e {go} ]; do sleep 0.1; done; echo done; exit 3"
    result = run(packaged, script, task_id="detached", detach=True)
    assert (result["state"], result["outcome"], result["rc"]) == ("running", None, None)
    (task,) = tasks(packaged, task_id="detached")
    assert (task["state"], task["name"], task["command"][-1]) == ("running", packaged.name, script)
    assert tasks(packaged, state="finished") == tasks(packaged, name="other") == []
    go.touch()
    wait_until(lambda: tasks(packaged, state="finished") != [], "the task to end")
    (task,) = tasks(packaged)
    assert (task["outcome"], task["rc"]) == ("exited", 3)
    assert Path(task["stdout_file"]).read_text() == "begun\ndone\n"
    assert containers(packaged) == []


def test_a_detached_task_can_be_killed_and_forgotten(packaged: Environment) -> None:
    run(packaged, "sleep 600", task_id="doomed", detach=True)
    absent = absence(packaged, "doomed")
    check = succeed("haku_task", check=True, **absent)
    assert containers(packaged) == ["haku-task-doomed"]
    first = succeed("haku_task", **absent)
    assert forecasts(returned(check), returned(first))
    assert first["changed"]
    assert first["diff"] == {"before": {"state": "running"}, "after": {"state": "finished"}}
    assert containers(packaged) == []
    assert tasks(packaged)[0]["outcome"] == "killed"
    assert not succeed("haku_task", **absent)["changed"]
    assert succeed("haku_task", **absent, delete_outputs=True)["changed"]
    assert not succeed("haku_task", **absent, delete_outputs=True)["changed"]
    assert list(packaged.shared.glob("task_*/*")) == []
    assert run(packaged, "true", task_id="doomed")["rc"] == 0


def test_a_container_that_somebody_removes_is_a_task_killed(one_packaged: Environment) -> None:
    run(one_packaged, "sleep 600", task_id="removed", detach=True)
    one_packaged.engine.docker("rm", "--force", "haku-task-removed")
    wait_until(lambda: tasks(one_packaged, state="finished") != [], "the task to end")
    (task,) = tasks(one_packaged)
    assert (task["outcome"], task["rc"]) == ("killed", None)


def test_another_container_of_the_same_name_is_left_alone(one_packaged: Environment) -> None:
    engine = one_packaged.engine
    engine.docker("create", "--name", "haku-task-taken", one_packaged.image_of(one_packaged.versions[0]), "true")
    try:
        assert "haku-task-taken" in fail("haku_task", **options(one_packaged, "true", task_id="taken"))
        assert not succeed("haku_task", **absence(one_packaged, "taken"))["changed"]
    finally:
        engine.docker("rm", "haku-task-taken")


def test_a_secret_command_is_not_written_down(one_packaged: Environment) -> None:
    result = run(one_packaged, "echo hunter2 | wc -c", _ansible_no_log=True, task_id="secret")
    assert result["stdout"] == "8\n"
    assert result["command"] is None
    assert "hunter2" not in (one_packaged.shared / "task_records/secret.json").read_text()


def test_records_that_nobody_can_read_are_passed_over(one_packaged: Environment) -> None:
    run(one_packaged, "true", task_id="good")
    records = one_packaged.shared / "task_records"
    good = json.loads((records / "good.json").read_text())
    (records / "cut.json").write_text("{")
    (records / "binary.json").write_bytes(b"\xff\xfe{")
    (records / "other.json").write_text(json.dumps({"task_id": "other"}))
    (records / "kinds.json").write_text(json.dumps({**good, "task_id": "kinds", "started": "yesterday"}))
    (records / "newer.json").write_text(json.dumps({**good, "task_id": "newer", "format": 2}))
    (records / "borrowed.json").write_text(json.dumps(good))
    (records / "folder.json").mkdir()
    (records / "loop.json").symlink_to("loop.json")
    os.mkfifo(records / "pipe.json")
    (records / "secret.json").write_text(json.dumps({**good, "task_id": "secret"}))
    (records / "secret.json").chmod(0)
    # Root without this capability is like anybody else.
    like_anybody = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    seen = succeed("haku_task_info", within=like_anybody, shared_dir=str(one_packaged.shared))
    assert [task["task_id"] for task in seen["tasks"]] == ["good"]
    warnings = str(seen["warnings"])
    for bad in ("cut", "binary", "other", "kinds", "newer", "borrowed", "folder", "loop", "pipe"):
        assert f"{records}/{bad}.json is no record of a task that this version can read" in warnings
    assert f"Cannot read {records}/secret.json: Permission denied" in warnings
    one = succeed("haku_task_info", shared_dir=str(one_packaged.shared), task_id="good")
    assert (len(one["tasks"]), one.get("warnings", [])) == (1, [])
