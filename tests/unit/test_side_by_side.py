# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Streams worked on by two threads, and files written with the kernel's help, are what they would be without."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.ahead import ahead
from ansible_collections.haku.river.plugins.module_utils.beside import beside
from ansible_collections.haku.river.plugins.module_utils.copying import WriteBehind


def counted(number: int, failure: BaseException | None = None) -> Iterator[bytes]:
    for each in range(number):
        yield b"%d" % each
    if failure:
        raise failure


def test_all_chunks_come_in_order() -> None:
    assert list(ahead(counted(100), depth=3)) == list(counted(100))


def test_a_failure_comes_after_the_chunks_before_it() -> None:
    stream = ahead(counted(5, OSError("no more")))
    assert [next(stream) for _each in range(5)] == list(counted(5))
    with pytest.raises(OSError, match="no more"):
        next(stream)


def test_who_leaves_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with closing(ahead(counted(1000), depth=2)) as stream:
        assert next(stream) == b"0"
    assert threading.active_count() == before


@pytest.mark.parametrize("size_bytes", [1, 65_535, 65_536, 65_537, 20 << 20])
@pytest.mark.parametrize("kernel_can", [True, False])
def test_a_clone_has_the_same_bytes(
    size_bytes: int, kernel_can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel_can:

        def refuse(*_arguments: object) -> int:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom(size_bytes + 10)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("x+b") as file:
        behind = WriteBehind(file)
        behind.clone(source.fileno(), size_bytes)
        behind.write(b"more")
        assert file.tell() == size_bytes + 4
    assert (tmp_path / "copy").read_bytes() == content[:size_bytes] + b"more"


def test_a_copy_that_the_disk_has_no_room_for_says_so_and_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    before = threading.active_count()
    (tmp_path / "source").write_bytes(bytes(20 << 20))
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "copy").open("x+b") as file,
        pytest.raises(OSError, match="No space left"),
    ):
        WriteBehind(file).clone(source.fileno(), 20 << 20)
    assert threading.active_count() == before


def test_a_source_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"short")
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "copy").open("x+b") as file,
        pytest.raises(OSError, match="it ends before its end"),
    ):
        WriteBehind(file).clone(source.fileno(), 10)


def test_a_call_beside_a_block_has_ended_when_the_block_has() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        may_end.wait()
        ended.set()

    with beside(call):
        assert begun.wait(60)
        assert not ended.is_set()
        may_end.set()
    assert ended.is_set()


def fail_with(failure: Exception) -> None:
    raise failure


def test_a_call_beside_a_block_fails_after_it() -> None:
    done = []
    with pytest.raises(OSError, match="no more"), beside(lambda: fail_with(OSError("no more"))):
        done.append("the block")
    assert done == ["the block"]


def test_of_two_failures_that_of_the_block_is_told() -> None:
    with pytest.raises(ValueError, match="the block"), beside(lambda: fail_with(OSError("the call"))):
        raise ValueError("the block")
