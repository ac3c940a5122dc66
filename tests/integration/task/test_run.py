# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks that run, on real engines: what reaches the container, and what comes back."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT, NEEDS_LIMITS
from tests.integration.modules import (
    fail,
    forecasts,
    peak_memory,
    result_of,
    returned,
    start_module,
    succeed,
)
from tests.integration.task.tasks import HOSTILE, containers, holders, options, run, tasks
from tests.lab import images
from tests.lab.engines import PODMAN, Engine
from tests.lab.host import remove, wait_until

pytestmark = ITS_NEIGHBOURS_SHOW_IT

ENGINES_OF_BOTH_STORES = pytest.mark.parametrize("engine", ["d28", "d28c"], indirect=True)


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


def peak_so_far(processes: set[int]) -> int:
    """The most memory in bytes that one of these processes has had; 0 when all are gone."""
    found = [0]
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(found)


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
        # Docker drops what it could not read within two seconds of a container's end, and has a hundred to read from.
        started = [
            start_module("haku_task", **options(there, ["sh", "-c", f"cat /version; echo {number}; sleep 10"]))
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
