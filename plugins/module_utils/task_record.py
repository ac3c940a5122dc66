# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a task beside its container: two files of output and a record, all in the shared directory.

`task_outputs/<id>.out` and `task_errors/<id>.err` are HakuRiver's, `task_records/<id>.json` is ours. As long as a
task is looked after, its supervisor holds a lock on the output. The kernel releases it when the supervisor dies, and
every machine can try it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.errors import CatalogueError, HakuError
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time

_OUTPUTS, _ERRORS, _RECORDS = "task_outputs", "task_errors", "task_records"
_RECORD_SUFFIX = ".json"
_FORMAT = 1
LOST = "lost"
"""The state of a task whose supervisor died, and its outcome once that was found."""


@dataclass(frozen=True)
class Record:
    """What a task was asked to do, and what became of it. Times are in Unix seconds.

    `command` is None where it is a secret. `outcome` is None as long as nobody has written how it ended.
    """

    task_id: str
    environment: str
    version: int | None
    image_id: str
    command: tuple[str, ...] | None
    runner: str
    container: str
    started: int
    ended: int | None = None
    outcome: str | None = None
    rc: int | None = None
    problem: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> Record | None:
        """Read a record; None if it is none: whoever has the shared directory, every task for one, can write there."""
        try:
            data = json.loads(text)
            said = {name: data[name] for name in _TYPES}
            is_ours = data["format"] == _FORMAT
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        # Not `isinstance`, for which True is a number.
        if not is_ours or any(type(said[name]) not in types for name, types in _TYPES.items()):
            return None
        words = said["command"]
        if words is not None and not all(isinstance(word, str) for word in words):
            return None
        return cls(**{**said, "command": None if words is None else tuple(words)})

    def to_json(self) -> str:
        """Write it down as `from_json` reads it."""
        return json.dumps({"format": _FORMAT, **asdict(self)})


_NULL = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("task_id", "environment", "image_id", "runner", "container", "problem"), (str,)),
    **dict.fromkeys(("version", "ended", "rc"), (int, _NULL)),
    "started": (int,),
    "command": (list, _NULL),
    "outcome": (str, _NULL),
}
"""What JSON has for each field of a `Record`."""


@dataclass(frozen=True)
class TaskFiles:
    """The files of one task, whether they are there or not."""

    shared_dir: Path
    task_id: str

    @property
    def stdout(self) -> Path:
        """Where standard output goes."""
        return self.shared_dir / _OUTPUTS / f"{self.task_id}.out"

    @property
    def stderr(self) -> Path:
        """Where standard error goes."""
        return self.shared_dir / _ERRORS / f"{self.task_id}.err"

    @property
    def record(self) -> Path:
        """Where the record is."""
        return self.shared_dir / _RECORDS / f"{self.task_id}{_RECORD_SUFFIX}"

    @property
    def kill_mark(self) -> Path:
        """A file that says that somebody wants the task killed."""
        return self.record.with_suffix(".kill")

    @property
    def exist(self) -> bool:
        """Whether there is, or was, a task of this ID."""
        return any(os.path.lexists(path) for path in (self.stdout, self.stderr, self.record))

    def check_free(self) -> None:
        """Raise `HakuError` if the ID is taken, or if there is no shared directory."""
        _check_mounted(self.shared_dir)
        if self.exist:
            raise _taken(self)

    @contextmanager
    def reserved(self) -> Iterator[Output]:
        """Take the ID, and open the files of output, for whoever is in the block and the processes that it forks."""
        self.check_free()
        with _saying(f"Cannot write the output of task {self.task_id} into {self.shared_dir}", self.shared_dir):
            for path in (self.stdout, self.stderr, self.record):
                path.parent.mkdir(exist_ok=True)
            output = self._open_new()
        try:
            with self.given_back_on_failure():
                with _saying(f"Cannot remove {self.kill_mark}", self.shared_dir):
                    # It is of a former task of this ID, as nobody can want this one killed that does not know it.
                    self.kill_mark.unlink(missing_ok=True)
                with _saying(f"Cannot lock {self.stdout}", self.shared_dir):
                    fcntl.flock(output.stdout, fcntl.LOCK_EX)
            yield output
        finally:
            output.close()

    @contextmanager
    def given_back_on_failure(self) -> Iterator[None]:
        """Leave nothing, and the ID free, if the block fails; for as long as no supervisor has taken over."""
        try:
            yield
        except BaseException:
            with suppress(CatalogueError):  # the first failure is the one to tell
                self.remove()
            raise

    def _open_new(self) -> Output:
        try:
            stdout = _new(self.stdout)
        except FileExistsError:
            raise _taken(self) from None
        try:
            return Output(stdout, _new(self.stderr))
        except OSError:
            os.close(stdout)
            self.stdout.unlink()
            raise

    def remove(self) -> None:
        """Forget the task."""
        with _saying(f"Cannot remove the files of task {self.task_id}", self.shared_dir):
            for path in (self.kill_mark, self.stderr, self.record, self.stdout):
                path.unlink(missing_ok=True)

    def is_looked_after(self) -> bool:
        """Whether a supervisor holds the output. What cannot be read counts as held."""
        try:
            descriptor = os.open(self.stdout, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def read(self) -> Record | None:
        """The task's record; None if there is none, or something else in its place."""
        try:
            # Whoever opens a pipe waits for somebody to write.
            record = Record.from_json(self.record.read_bytes()) if self.record.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CatalogueError(
                f"Cannot read {self.record}", where=str(self.record), cause=error.strerror, remedy="Check who may"
            ) from error
        return record if record and record.task_id == self.task_id else None

    def write(self, record: Record) -> None:
        """Write the record; who reads it sees the former one or this, never half of it."""
        partial = self.record.with_name(f".{self.task_id}.{secrets.token_hex(4)}.part")
        with _saying(f"Cannot write {self.record}", self.shared_dir):
            try:
                partial.write_text(record.to_json())
                partial.rename(self.record)
            finally:
                partial.unlink(missing_ok=True)

    def mark_as_killed(self) -> None:
        """Tell the supervisor, for the moment when the task ends, that somebody wanted that."""
        with _saying(f"Cannot write {self.kill_mark}", self.shared_dir):
            self.kill_mark.parent.mkdir(exist_ok=True)
            self.kill_mark.touch()

    def give_up(self, now: int) -> Record | None:
        """Write down that a task that nobody looks after any more is lost; the record, if that is how it ended."""
        record = self.read()
        if record is None or record.outcome is not None:
            return None
        lost = replace(record, outcome=LOST, ended=now, problem="The task's supervisor was killed")
        self.write(lost)
        return lost


@dataclass(frozen=True)
class Output:
    """The open descriptors of a task's two files of output."""

    stdout: int
    stderr: int

    def close(self) -> None:
        """Close them; a fork of this process keeps its own."""
        os.close(self.stdout)
        os.close(self.stderr)


def check_in_use(shared_dir: Path, container_dir: str) -> None:
    """Raise `CatalogueError` for a directory without a trace of use, such as that of a mount which is not there.

    Who lists the tarballs notices that anyway. Who does not would fill the machine's own disk, where nobody looks.
    """
    _check_mounted(shared_dir)
    if not any((shared_dir / name).is_dir() for name in (container_dir, _OUTPUTS)):
        raise CatalogueError(
            f"{shared_dir} has neither {container_dir} nor {_OUTPUTS}, so it does not look like the shared directory",
            where=str(shared_dir),
            remedy=f"Mount it. If it is the one, and new, make {_OUTPUTS} in it",
        )


def described_tasks(
    shared_dir: Path, task_id: str | None, environment: str | None, state: str | None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The tasks that have a record, newest first; see the module's `RETURN`; and a warning of each other file there."""
    _check_mounted(shared_dir)
    folder = shared_dir / _RECORDS
    with _saying(f"Cannot list {folder}", shared_dir):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = sorted(name[: -len(_RECORD_SUFFIX)] for name in names if name.endswith(_RECORD_SUFFIX))
    described, warnings = [], []
    for files in (TaskFiles(shared_dir, name) for name in found if task_id in (None, name)):
        try:
            record = files.read()
            if record is None and os.path.lexists(files.record):
                warnings.append(
                    f"{files.record} is no record of a task that this version can read, and was passed over"
                )
        except CatalogueError as error:
            warnings.append(str(error))
            continue
        if record and environment in (None, record.environment):
            described.append(describe(files, record))
    chosen = [task for task in described if state in (None, task["state"])]
    return sorted(chosen, key=lambda task: (task["started"], task["task_id"]), reverse=True), tuple(warnings)


def describe(files: TaskFiles, record: Record) -> dict[str, Any]:
    """A task as the modules return it."""
    if record.outcome is None and not files.is_looked_after():
        # It may have ended between the two looks.
        record = files.read() or record
        state = "finished" if record.outcome else LOST
    else:
        state = "finished" if record.outcome else "running"
    return {
        "task_id": record.task_id,
        "name": record.environment,
        "version": record.version,
        "image_id": record.image_id,
        "command": None if record.command is None else list(record.command),
        "runner": record.runner,
        "container": record.container,
        "state": state,
        "outcome": record.outcome,
        "rc": record.rc,
        "problem": record.problem or None,
        "started": iso_time(record.started),
        "ended": None if record.ended is None else iso_time(record.ended),
        "stdout_file": str(files.stdout),
        "stderr_file": str(files.stderr),
        "stdout_bytes": _size(files.stdout),
        "stderr_bytes": _size(files.stderr),
    }


def end_of(path: Path, limit_bytes: int | None) -> str:
    r"""The end of a file, or all of it, as text: what is not UTF-8 is shown as `\xff`."""
    with _saying(f"Cannot read {path}", path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        skipped = 0 if limit_bytes is None else max(size - limit_bytes, 0)
        file.seek(skipped)
        data = file.read()
    if skipped:
        # Not from the middle of a character on, which has at most three more bytes.
        start = next((index for index, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
        data = data[start:]
    return data.decode(errors="backslashreplace")


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _size(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None


def _taken(files: TaskFiles) -> HakuError:
    return HakuError(
        f"There is a task {files.task_id} already",
        where=str(files.stdout),
        remedy="Choose another task_id, or leave it out; state: absent with delete_outputs: true forgets a task",
    )


def _check_mounted(shared_dir: Path) -> None:
    if not shared_dir.is_dir():
        raise CatalogueError(
            f"There is no directory {shared_dir}",
            where=str(shared_dir),
            remedy="Mount the shared directory, or set shared_dir to where it is",
        )


@contextmanager
def _saying(what: str, where: Path) -> Iterator[None]:
    """Turn the kernel's refusals inside the block into a `CatalogueError`."""
    try:
        yield
    except OSError as error:
        remedy = "Check that the directory is mounted, has room, and that the user of the module may write there"
        raise CatalogueError(what, where=str(where), cause=error.strerror, remedy=remedy) from error
