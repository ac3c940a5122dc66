# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How tasks end, on real engines, also at bad moments and without their module, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import platform
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

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
    fail,
    forecasts,
    result_of,
    returned,
    run_module,
    start_module,
    succeed,
)
from tests.integration.task.tasks import absence, containers, holders, options, run, tasks, wait_for_none
from tests.lab.engines import Engine
from tests.lab.host import wait_until

pytestmark = ITS_NEIGHBOURS_SHOW_IT


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
