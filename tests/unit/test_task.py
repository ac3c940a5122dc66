# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task is, how its end is judged, and how its streams are taken apart."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.following import STDERR, STDOUT, ContainerOutput, Frames
from ansible_collections.haku.river.plugins.module_utils.kernel_log import names_victim
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.task import (
    TASK_OPTIONS,
    Numa,
    Task,
    check_task_id,
    judge,
    new_task_id,
    numa_node,
    with_shared_dir,
)
from ansible_collections.haku.river.plugins.module_utils.task_image import Provided
from ansible_collections.haku.river.plugins.module_utils.task_record import Record, TaskFiles, end_of
from ansible_collections.haku.river.plugins.module_utils.task_run import Running, clean_up, run_task

SHARED = Path("/shared")
OUTPUT = SHARED / "task_outputs/t.out"


def task(**said: Any) -> Task:
    options = {**dict.fromkeys(TASK_OPTIONS), "command": ["true"], "mount_shared_dir": True, **said}
    return Task.from_options("t", "env", SHARED, options)


def test_a_task_is_created_with_labels_and_without_a_log_and_never_restarted() -> None:
    body = task().as_creation("sha256:1", OUTPUT)
    assert body["Image"] == "sha256:1"
    assert body["Cmd"] == ["true"]
    assert body["Entrypoint"] == [""]
    assert body["Labels"] == {
        "haku.river.managed": "true",
        "haku.river.task": "t",
        "haku.river.output": str(OUTPUT),
    }
    host = body["HostConfig"]
    assert host["Binds"] == ["/shared:/shared"]
    assert host["LogConfig"] == {"Type": "none"}
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["Init"] is True
    assert "CpusetCpus" not in host


def test_what_is_asked_for_is_what_the_engine_is_told() -> None:
    asked = task(
        command="echo $HOME",
        user="1000:1000",
        workdir="/work",
        env={"A": "b"},
        volumes=["/data:/data:ro"],
        network="none",
        cpus=1.5,
        memory="1G",
        gpus=2,
        init=False,
    )
    body = asked.as_creation("sha256:1", OUTPUT)
    assert (body["Cmd"], body["User"], body["WorkingDir"]) == (["/bin/sh", "-c", "echo $HOME"], "1000:1000", "/work")
    assert body["Env"] == ["A=b"]
    host = body["HostConfig"]
    assert host["Binds"] == ["/data:/data:ro", "/shared:/shared"]
    assert (host["NetworkMode"], host["Init"], host["NanoCpus"], host["Memory"]) == (
        "none",
        False,
        1_500_000_000,
        2**30,
    )
    assert host["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]


def test_a_numa_node_is_its_cpus_and_its_memory(tmp_path: Path) -> None:
    (tmp_path / "node1").mkdir()
    (tmp_path / "node1/cpulist").write_text("8-15,24-31\n")
    (tmp_path / "node2").mkdir()
    (tmp_path / "node2/cpulist").write_text("\n")
    assert numa_node(1, tmp_path) == Numa(1, "8-15,24-31")
    with pytest.raises(HakuError, match="no CPU"):
        numa_node(2, tmp_path)
    with pytest.raises(HakuError) as refused:
        numa_node(3, tmp_path)
    assert "Choose one of: 1, 2" in str(refused.value)
    host = Task("t", "env", task().settings, numa=Numa(1, "8-15")).as_creation("i", OUTPUT)["HostConfig"]
    assert (host["CpusetCpus"], host["CpusetMems"]) == ("8-15", "1")


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        ((), ("/shared:/shared",)),
        (("/a:/b",), ("/a:/b", "/shared:/shared")),
        (("/shared:/shared:ro",), ("/shared:/shared:ro",)),
        (("/other:/shared",), ("/other:/shared",)),
        (("/shared:/data",), ("/shared:/data", "/shared:/shared")),
    ],
)
def test_the_shared_directory_is_mounted_unless_something_is_in_its_place(
    volumes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert with_shared_dir(volumes, SHARED) == expected


@pytest.mark.parametrize("task_id", ["a", "A.b_c-1", "1767225600", "x" * 100, new_task_id()])
def test_an_id_can_name_files_and_a_container(task_id: str) -> None:
    assert check_task_id(task_id) == task_id


@pytest.mark.parametrize("task_id", ["", ".a", "-a", "a/b", "../a", "a b", "ä", "a\n", "x" * 101])
def test_any_other_id_is_refused_with_the_rule(task_id: str) -> None:
    with pytest.raises(HakuError, match="it is made of letters, digits"):
        check_task_id(task_id)


@pytest.mark.parametrize(
    ("rc", "oom", "interruption", "outcome", "fails"),
    [
        (0, False, None, "exited", False),
        (3, False, None, "exited", True),
        (137, False, None, "exited", True),
        (137, True, None, "oom_killed", True),
        (1, True, None, "oom_killed", True),
        (0, True, None, "exited", False),
        (143, False, "timed_out", "timed_out", True),
        (0, False, "timed_out", "timed_out", True),
        (137, True, "killed", "killed", True),
        (143, False, "abandoned", "abandoned", True),
        (143, False, "output_lost", "output_lost", True),
    ],
)
def test_an_end_is_judged_by_what_the_engine_and_the_supervisor_know(
    rc: int, oom: bool, interruption: str | None, outcome: str, fails: bool
) -> None:
    ending = judge({"ExitCode": rc}, oom, interruption, 60)
    assert (ending.outcome, ending.rc, bool(ending.problem)) == (outcome, rc, fails)
    assert bool(ending.warnings) == (oom and outcome == "exited")


@pytest.mark.parametrize("interruption", [None, "timed_out"])
def test_a_container_that_is_gone_was_killed_unless_it_was_to_end_anyway(interruption: str | None) -> None:
    ending = judge(None, False, interruption, 60)
    assert (ending.outcome, ending.rc) == (interruption or "killed", None)


CONTAINER = "1304e2e7f2c457c5161c8c67c38f771860bc88b94c8def4e4e231164658f2883"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f"oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/docker/{CONTAINER},task_memcg=/docker/{CONTAINER},pid=1",
            True,
        ),
        (f"oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/system.slice/docker-{CONTAINER}.scope,task=tail", True),
        (f"Task in /docker/{CONTAINER} killed as a result of limit of /docker/{CONTAINER}", True),
        ("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/docker/0,task_memcg=/docker/0,task=tail,pid=1", False),
        (f"Tasks state (memory values in pages) of {CONTAINER}", False),
    ],
)
def test_the_kernel_names_the_container_of_a_process_that_it_killed(line: str, expected: bool) -> None:
    assert names_victim(f"<6>[1.0] before\n<6>[2.0] {line}\n<6>[3.0] after\n", CONTAINER) == expected


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_streams_are_taken_apart_however_they_are_cut(size: int) -> None:
    said = [(STDOUT, b"hello\n"), (STDERR, b"oops"), (STDOUT, b""), (STDOUT, bytes(300)), (STDERR, b"\xff")]
    data = b"".join(struct.pack(">BxxxL", stream, len(part)) + part for stream, part in said)
    frames = Frames()
    got = {STDOUT: b"", STDERR: b""}
    for start in range(0, len(data), size):
        for stream, part in frames.feed(data[start : start + size]).items():
            got[stream] += part
    assert got == {STDOUT: b"hello\n" + bytes(300), STDERR: b"oops\xff"}


def test_a_stream_that_falls_silent_for_too_long_has_ended() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        assert ContainerOutput(ours).read() is None


@pytest.mark.parametrize(
    ("data", "limit_bytes", "text"),
    [
        (b"hello", None, "hello"),
        (b"hello", 9, "hello"),
        (b"hello", 2, "lo"),
        (b"hello", 0, ""),
        ("€uro".encode(), 4, "uro"),
        ("€uro".encode(), 5, "uro"),
        ("€uro".encode(), 6, "€uro"),
        (b"a\xffb", None, "a\\xffb"),
        (b"\x80\x80\x80\x80\x80\x80", 5, "\\x80" * 5),
    ],
)
def test_the_end_of_a_file_begins_with_a_character(
    data: bytes, limit_bytes: int | None, text: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(data)
    assert end_of(tmp_path / "file", limit_bytes) == text


RECORD = Record("t", "env", 1767225600, "sha256:1", ("echo", "ä"), "gpu01", "haku-task-t", 1767225601)


class _AMomentAgo(Engine):
    """An engine whose list of containers is out of date, as that of a real one is by the time it is read."""

    def containers(self, *labels: Any, **_more: Any) -> list[dict[str, Any]]:
        return [{"Labels": {**labels[0], "haku.river.task": "t", "haku.river.output": self.url}}]

    def find_container(self, *_name: Any) -> None:
        return None


class _Idle(Engine):
    """An engine with nothing on it."""

    def containers(self, *_labels: Any, **_more: Any) -> list[dict[str, Any]]:
        return []


@pytest.mark.parametrize(("outcome", "warnings"), [("exited", 0), (None, 1)])
def test_a_task_that_ends_while_others_look_for_lost_ones_is_not_called_lost(
    tmp_path: Path, outcome: str | None, warnings: int
) -> None:
    files = TaskFiles(tmp_path, "t")
    with files.reserved():
        files.write(replace(RECORD, outcome=outcome))
    engine = _AMomentAgo(None, str(files.stdout), reopen=lambda: engine)
    assert len(clean_up(engine)) == warnings


def _no_locks(_descriptor: int, _operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_where_no_lock_can_be_had_nothing_stays_and_the_id_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = TaskFiles(tmp_path, "t")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", _no_locks)  # as on NFS 3 without its lock service
        with pytest.raises(HakuError, match=r"Cannot lock .*/t\.out: No locks available"), files.reserved():
            pass
    assert not files.exist
    with files.reserved():
        assert files.exist


def test_a_mark_that_outlived_its_task_is_not_meant_for_the_next_one_of_that_id(tmp_path: Path) -> None:
    files = TaskFiles(tmp_path, "t")
    files.mark_as_killed()
    with files.reserved():
        assert not files.kill_mark.exists()


def test_a_supervisor_that_cannot_be_started_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _Idle(None, "", reopen=lambda: engine)
    files = TaskFiles(tmp_path, "t")
    asked = Running(task(), files, "hakuriver/env:base")
    provided = Provided("sha256:1", 1, None, Outcome(changed=False, facts={}))

    def no_process() -> int:
        assert files.read(), "others see the task before it can begin"
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", no_process)  # as on a machine with as many processes as it may have
    with pytest.raises(HakuError, match="supervisor of task t cannot be started: Resource temporarily unavailable"):
        run_task(engine, lambda: provided, asked, check_mode=False)
    assert not files.exist


def test_a_record_is_read_as_it_was_written() -> None:
    assert Record.from_json(RECORD.to_json()) == RECORD


def test_what_no_calendar_and_no_program_has_is_a_record_all_the_same() -> None:
    odd = replace(RECORD, version=None, command=None, started=-(10**30), ended=10**30, rc=-1, outcome="new")
    assert Record.from_json(odd.to_json()) == odd


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"task_id": "t"}', b"\xff", "[" * 100_000, "1e999"])
def test_what_is_no_record_is_not_taken_for_one(text: str | bytes) -> None:
    assert Record.from_json(text) is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"task_id": None}, {"environment": ["env"]}, {"version": "1"}, {"version": True}, {"started": None}),
        *({"started": 1.5}, {"command": "true"}, {"command": [1]}, {"outcome": {}}, {"rc": "0"}, {"problem": None}),
        *({"format": 2}, {"format": None}),
    ],
    ids=str,
)
def test_a_record_with_values_of_other_kinds_or_of_another_version_is_none(wrong: dict[str, Any]) -> None:
    assert Record.from_json(json.dumps({**json.loads(RECORD.to_json()), **wrong})) is None
