# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task: one command in a fresh container of an environment, as the user asks for it, and how its end is judged."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_MANAGED, LABEL_OUTPUT, LABEL_TASK
from ansible_collections.haku.river.plugins.module_utils.settings import SETTINGS_OPTIONS, Settings, parse_command

_SETTINGS = ("init", "env", "volumes", "network", "cpus", "memory", "shm_size", "gpus")
TASK_OPTIONS: dict[str, dict[str, Any]] = {
    **{name: SETTINGS_OPTIONS[name] for name in ("command", *_SETTINGS)},
    "user": {"type": "str"},
    "workdir": {"type": "str"},
    "numa_node": {"type": "int"},
    "mount_shared_dir": {"type": "bool", "default": True},
}
"""The argument specification of what `Task.from_options` reads."""

# It becomes the name of files and, with a prefix, of a container.
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NODES = Path("/sys/devices/system/node")


@dataclass(frozen=True)
class Numa:
    """A node of the machine's memory: its number, and its CPUs as the kernel lists them (`0-15,32-47`)."""

    node: int
    cpus: str


@dataclass(frozen=True)
class Task:
    """What is to be run. `settings` lacks the image, which a synchronisation brings."""

    id: str
    environment: str
    settings: Settings
    user: str | None = None
    workdir: str | None = None
    numa: Numa | None = None

    @property
    def container(self) -> str:
        """The name of the task's container."""
        return container_name(self.id)

    @property
    def special_needs(self) -> tuple[bool, bool]:
        """Whether there are limits, and whether there are GPUs, which not every engine can give."""
        limits, gpus = self.settings.special_needs
        return limits or self.numa is not None, gpus

    @classmethod
    def from_options(cls, task_id: str, environment: str, shared_dir: Path, params: Mapping[str, Any]) -> Task:
        """Read `TASK_OPTIONS`; raises `HakuError` for one that means nothing, or that this machine has not."""
        said = {**dict.fromkeys(SETTINGS_OPTIONS), **{name: params[name] for name in _SETTINGS}}
        settings = replace(
            Settings.from_options(said), command=parse_task_command(params["command"]), restart_policy="no"
        )
        if params["mount_shared_dir"]:
            settings = replace(settings, volumes=with_shared_dir(settings.volumes or (), shared_dir))
        workdir = params["workdir"]
        if workdir is not None and not workdir.startswith("/"):
            raise HakuError(f"workdir {workdir!r} is not an absolute path", remedy="Begin it with /")
        numa = None if params["numa_node"] is None else numa_node(params["numa_node"])
        return cls(task_id, environment, settings, params["user"], workdir, numa)

    def as_creation(self, image_id: str, output: Path) -> dict[str, Any]:
        """The body of `POST /containers/create`; `output` is the file that the labels name."""
        labels = {LABEL_MANAGED: "true", LABEL_TASK: self.id, LABEL_OUTPUT: str(output)}
        body = replace(self.settings, image=image_id).as_creation(labels)
        body.update(AttachStdout=True, AttachStderr=True, User=self.user or "", WorkingDir=self.workdir or "")
        # The output goes where it belongs, and not onto the engine's disk as well.
        body["HostConfig"]["LogConfig"] = {"Type": "none"}
        if self.numa:
            body["HostConfig"].update(CpusetCpus=self.numa.cpus, CpusetMems=str(self.numa.node))
        return body


@dataclass(frozen=True)
class Ending:
    """How a task ended: `outcome` is the module's word for it, `problem` a sentence unless all went well."""

    outcome: str
    rc: int | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()


def judge(
    state: Mapping[str, Any] | None, out_of_memory: bool, interruption: str | None, time_limit_seconds: int | None
) -> Ending:
    """Tell how a task ended.

    `state` is what the engine says of the container, None if somebody removed it. `interruption` is
    why it was stopped, as an outcome: `timed_out`, `killed`, `abandoned` or `output_lost`; None if it was not.
    """
    if state is None:
        return Ending(interruption or "killed", problem="Somebody removed the task's container")
    rc = state["ExitCode"]
    problems = {
        "timed_out": f"The task was stopped, as it did not end within {time_limit_seconds} s",
        "killed": "The task was killed",
        "abandoned": "The task was stopped, as the Ansible run that waited for it is gone",
        "output_lost": "The task was stopped, as its output cannot be written",
    }
    if interruption:
        return Ending(interruption, rc, problems[interruption])
    if out_of_memory and rc != 0:
        return Ending("oom_killed", rc, "The task was killed, as it needed more memory than it may use")
    warning = "A process of the task was killed for its memory, although the task itself ended with exit code 0"
    warnings = (warning,) if out_of_memory else ()
    return Ending("exited", rc, f"The command ended with exit code {rc}" if rc else "", warnings)


def container_name(task_id: str) -> str:
    """The name of a task's container."""
    return f"haku-task-{task_id}"


def new_task_id() -> str:
    """An ID that no other task has; sorted by name, such tasks are sorted by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def check_task_id(task_id: str) -> str:
    """Return `task_id` if it can be one, else raise `HakuError` with the rule."""
    if _TASK_ID.fullmatch(task_id):
        return task_id
    raise HakuError(
        f"{task_id!r} cannot be a task_id: it is made of letters, digits, '_', '.' and '-', begins with a letter or "
        "digit, and has at most 100 characters",
        remedy="Choose another one, or leave it out",
    )


def parse_task_command(command: object) -> tuple[str, ...]:
    """Take a list of arguments, or a string for the image's own shell; it reaches the container as it is."""
    if isinstance(command, str):
        if not command.strip():
            raise HakuError("command is empty", remedy="Say what to run")
        words: tuple[str, ...] = ("/bin/sh", "-c", command)
    else:
        words = parse_command(command)
    for word in words:
        if "\0" in word:
            raise HakuError(
                f"command has a NUL character in {_shortened(word)}", remedy="No program can be given one; leave it out"
            )
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise HakuError(
                f"command has bytes in {_shortened(word)} that are not UTF-8, and the engine would change them",
                remedy="Put them into a file in the shared directory",
            ) from error
    return words


def with_shared_dir(volumes: tuple[str, ...], shared_dir: Path) -> tuple[str, ...]:
    """Mount the shared directory at its own path, unless something is mounted there already."""
    if any(volume.split(":")[1] == str(shared_dir) for volume in volumes):
        return volumes
    return (*volumes, f"{shared_dir}:{shared_dir}")


def numa_node(number: int, nodes: Path = _NODES) -> Numa:
    """Look up one of the machine's memory nodes; `nodes` is the kernel's directory of them."""
    try:
        cpus = (nodes / f"node{number}/cpulist").read_text().strip()
    except OSError as error:
        there = sorted(int(path.name[len("node") :]) for path in nodes.glob("node[0-9]*"))
        raise HakuError(
            f"This machine has no NUMA node {number}",
            where=str(nodes),
            cause=error.strerror,
            remedy=f"Choose one of: {', '.join(map(str, there))}" if there else "Leave numa_node out",
        ) from error
    if not cpus:
        raise HakuError(f"NUMA node {number} has no CPU", where=str(nodes), remedy="Choose another one")
    return Numa(number, cpus)


def _shortened(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:40]}…")
