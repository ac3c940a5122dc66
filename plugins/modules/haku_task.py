#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_task
version_added: 0.2.0
short_description: Run a command in a fresh container of an environment
description:
  - Brings the image of an environment on this machine to the newest or a pinned version, as M(haku.river.haku_sync)
    does, and runs one command in a new container of it.
  - What the command writes goes, as it comes and byte for byte, into C(task_outputs/<task_id>.out) and
    C(task_errors/<task_id>.err) in the shared directory.
  - A supervisor, a process of its own on this machine, removes the container when the command has ended. It also does
    so when the time limit has passed, and when the module is gone, because it was killed, the connection broke, or the
    Ansible run ended. Only a task with O(detach=true) goes on without the module.
  - No shell on this machine ever sees the command.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.catalogue
  - haku.river.catalogue.web
  - haku.river.catalogue.image
  - haku.river.attributes.river_and_shared
  - haku.river.attributes.state
attributes:
  check_mode:
    details:
      - The synchronisation is forecast, and nothing is run. How the command would end is null.
  idempotent:
    support: partial
    details:
      - With O(state=present), every run runs the command, which is a change. With O(task_id), a second one is refused.
options:
  name:
    description:
      - The environment. Required with O(state=present).
    type: str
  state:
    description:
      - V(present) runs a new task.
      - V(absent) kills the task O(task_id) if it runs on this machine. What it wrote and its record stay. If it runs on
        another machine, or was lost there, there is a warning, and nothing is done.
      - A task is known, and can be killed, when its image has been brought. Before, end the Ansible run that waits.
    type: str
    choices: [present, absent]
    default: present
  task_id:
    description:
      - The name of the task, which names its files and its container. An ID that was used before is refused.
      - Letters, digits, C(_), C(.) and C(-).
      - If it is not set, one is made of the time and a random number. Required with O(state=absent).
    type: str
  command:
    description:
      - What to run. Required with O(state=present). The image's entry point is not used.
      - A list is a program and its arguments, each handed over as it is. A string is handed as it is to the image's own
        shell (C(/bin/sh -c)).
    type: raw
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount. It has to
        exist, and the module's user has to be able to write there.
      - The tarballs are below it unless O(source) is set, and the files of the tasks always are.
      - With O(source) or O(sync=false), which do without the tarballs there, it has to have O(container_dir) or
        C(task_outputs), so that nothing is written where it is not mounted.
  sync:
    description:
      - Bring the image to the wanted version first. With V(false) the task runs in the image that is there.
    type: bool
    default: true
  version:
    description:
      - The timestamp of the version to run in. The newest one if this is not set.
      - The machine's current image becomes that version, for all that comes later.
    type: int
  delta:
    description:
      - As in M(haku.river.haku_sync).
    type: str
    choices: [auto, always, never]
    default: auto
  keep_images:
    description:
      - As in M(haku.river.haku_sync). Set it to the same here and there.
    type: int
    default: 0
  lock_timeout:
    description:
      - How long to wait, in seconds, for another synchronisation of the same image on this machine. Of many tasks that
        need a new version, one loads it and the others wait.
    type: int
    default: 3600
  env:
    description:
      - Environment variables. The values have to be strings; put in quotes what YAML would read as a number or boolean.
    type: dict
  user:
    description:
      - The user, and optionally the group, to run as, by name or number. The image's own if this is not set.
    type: str
  workdir:
    description:
      - The directory to run in, an absolute path inside the container. The image's own if this is not set.
    type: str
  volumes:
    description:
      - What to mount beside the shared directory, each as C(SOURCE:TARGET) or C(SOURCE:TARGET:MODE). The source is an
        absolute path on this machine or the name of a volume.
    type: list
    elements: str
  mount_shared_dir:
    description:
      - Mount O(shared_dir) at its own path inside the container, unless O(volumes) mounts something there.
    type: bool
    default: true
  network:
    description:
      - The network, by its name, or V(bridge), V(host), V(none) or V(container:NAME). The default is the engine's own.
    type: str
  cpus:
    description:
      - How many CPUs the task may use, for example V(1.5). The default is no limit.
    type: float
  memory:
    description:
      - How much memory the task may use, as a number with a unit (V(512M), V(2G), powers of 1024). As much again may be
        swapped out, where the machine has swap. The default is no limit.
    type: str
  shm_size:
    description:
      - The size of C(/dev/shm), as a number with a unit (V(512M), V(8G), powers of 1024). Programs that share memory
        between processes, such as PyTorch's data loaders, need more than the engine's default, usually 64 MB.
      - What is in it counts as the task's memory.
    type: str
  gpus:
    description:
      - The GPUs of the task. V(all), a number of GPUs, or a list of their indices or UUIDs. The default is none.
      - The engine needs the NVIDIA Container Toolkit.
    type: raw
  numa_node:
    description:
      - Run on the CPUs and in the memory of this NUMA node of the machine.
    type: int
  init:
    description:
      - Run a small init as the container's first process, which passes signals on and reaps processes. The default is
        V(true).
    type: bool
  time_limit:
    description:
      - How long the task may run, in seconds. Then it is stopped. The default is no limit.
      - This is not O(timeout), which is how long the engine may take to answer.
    type: int
  stop_timeout:
    description:
      - How long a task that is stopped may take to end by itself, in seconds, before it is killed.
    type: int
    default: 10
  detach:
    description:
      - Return as soon as the task runs, and let it go on. M(haku.river.haku_task_info) tells how it ended.
    type: bool
    default: false
  output:
    description:
      - How much of what the task wrote to return. V(tail) is the last O(output_bytes) of each stream, V(full) all of
        it, V(none) nothing. The files have all of it in any case.
    type: str
    choices: [tail, full, none]
    default: tail
  output_bytes:
    description:
      - How much of the end of each stream to return with O(output=tail).
    type: int
    default: 65536
  delete_outputs:
    description:
      - With O(state=absent), also remove what the task wrote, and its record.
    type: bool
    default: false
notes:
  - The module fails unless the command ends with exit code 0. As with M(ansible.builtin.command), a task can decide
    otherwise by C(failed_when), for example C(failed_when=result.rc not in [0, 1]).
  - While it waits, the module writes an empty line every few seconds, so that dead connections are noticed.
seealso:
  - module: haku.river.haku_task_info
  - module: haku.river.haku_sync
"""

EXAMPLES = r"""
- name: Run a script from the shared directory in the newest version of an environment
  haku.river.haku_task:
    name: python-data-science
    shared_dir: /shared
    command: [python, /shared/projects/report.py, --year, "2026"]
    workdir: /shared/projects
    cpus: 4
    memory: 16G
    time_limit: 3600
  register: report

- name: Show the end of what it wrote
  ansible.builtin.debug:
    var: report.stdout_lines

- name: Use the image's own shell
  haku.river.haku_task:
    name: python-data-science
    shared_dir: /shared
    command: nproc && free -m | head -2

- name: Start a training on one GPU, and do not wait for it
  haku.river.haku_task:
    name: cuda-training
    shared_dir: /shared
    task_id: resnet-7
    command: [python, /shared/resnet/train.py]
    gpus: 1
    detach: true

- name: Wait for it
  haku.river.haku_task_info:
    shared_dir: /shared
    task_id: resnet-7
  register: training
  until: training.tasks[0].state != 'running'
  retries: 1440
  delay: 60

- name: Or kill it
  haku.river.haku_task:
    shared_dir: /shared
    task_id: resnet-7
    state: absent
"""

RETURN = r"""
task_id:
  description: The task's ID. Null in check mode if one would be made.
  returned: always
  type: str
  sample: 20260101-120000-1f8b3a7c
name:
  description: The environment.
  returned: when O(state=present)
  type: str
  sample: python-data-science
image:
  description: The image's tag on this machine.
  returned: when O(state=present)
  type: str
  sample: hakuriver/python-data-science:base
image_id:
  description: The ID of the image that the task ran in. Null in check mode if it would be loaded.
  returned: when O(state=present)
  type: str
  sample: sha256:7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
version:
  description: The version of the environment that the task ran in, in Unix seconds.
  returned: when O(state=present)
  type: int
  sample: 1767225600
sync:
  description: What M(haku.river.haku_sync) returns of the synchronisation. Null with O(sync=false).
  returned: when O(state=present)
  type: dict
  sample: {action: load, bytes_read: 3155425, seconds: 14.2}
command:
  description: The program and its arguments. Null if the task has C(no_log).
  returned: when O(state=present)
  type: list
  elements: str
  sample: [/bin/sh, -c, nproc]
runner:
  description: The host name of the machine that the task ran on.
  returned: when O(state=present)
  type: str
  sample: gpu01
container:
  description: The name of the task's container. As soon as the task has ended, there is none.
  returned: always
  type: str
  sample: haku-task-20260101-120000-1f8b3a7c
state:
  description:
    - V(finished), or with O(detach=true) V(running).
    - With O(state=absent) V(finished), V(absent) if nothing is known of such a task, or V(running) if it runs on
      another machine, or was lost there.
  returned: always
  type: str
  sample: finished
outcome:
  description:
    - How the task ended. Null if it has not.
    - V(exited), by itself, whatever its exit code.
    - V(oom_killed), it needed more memory than it may use.
    - V(timed_out), O(time_limit) had passed.
    - V(killed), by O(state=absent), by the removal of its container, or because the machine shut down.
    - V(abandoned), the module was gone.
    - V(output_lost), what it wrote could not be stored, for example because the shared directory was full.
    - V(engine_lost), the engine ended or was restarted.
    - V(lost), its supervisor was killed.
  returned: when O(state=present)
  type: str
  sample: exited
rc:
  description: The exit code. 128 and the number of the signal if a signal ended the task. Null if nobody knows it.
  returned: when O(state=present)
  type: int
  sample: 0
problem:
  description: The sentence that the module failed with. Null if it did not.
  returned: when O(state=present)
  type: str
  sample: The command ended with exit code 3
stdout:
  description:
    - What the task wrote to standard output, as far as O(output) asks for it.
    - Bytes that are not UTF-8 are shown as C(\xff).
  returned: when O(state=present)
  type: str
  sample: hello
stdout_lines:
  description: The same in lines.
  returned: when O(state=present)
  type: list
  elements: str
  sample: [hello]
stderr:
  description: What the task wrote to standard error, in the same way.
  returned: when O(state=present)
  type: str
  sample: ""
stderr_lines:
  description: The same in lines.
  returned: when O(state=present)
  type: list
  elements: str
  sample: []
stdout_file:
  description: The file with all of standard output.
  returned: when O(state=present)
  type: str
  sample: /shared/task_outputs/20260101-120000-1f8b3a7c.out
stderr_file:
  description: The file with all of standard error.
  returned: when O(state=present)
  type: str
  sample: /shared/task_errors/20260101-120000-1f8b3a7c.err
stdout_bytes:
  description: The size of that file.
  returned: when O(state=present)
  type: int
  sample: 6
stderr_bytes:
  description: The size of that file.
  returned: when O(state=present)
  type: int
  sample: 0
started:
  description: When the task started.
  returned: when O(state=present)
  type: str
  sample: "2026-01-01T12:00:00Z"
ended:
  description: When it ended. Null if it has not.
  returned: when O(state=present)
  type: str
  sample: "2026-01-01T12:03:20Z"
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import IMAGE_OPTIONS, image_reference
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.source import SOURCE_OPTIONS, chosen_source
from ansible_collections.haku.river.plugins.module_utils.task import TASK_OPTIONS, Task, check_task_id, new_task_id
from ansible_collections.haku.river.plugins.module_utils.task_image import (
    TASK_IMAGE_OPTIONS,
    WantedImage,
    provide_image,
)
from ansible_collections.haku.river.plugins.module_utils.task_record import TaskFiles, check_in_use
from ansible_collections.haku.river.plugins.module_utils.task_run import RUNNING_OPTIONS, Running, remove_task, run_task


def main() -> None:
    options = {
        "name": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "task_id": {"type": "str"},
        "delete_outputs": {"type": "bool", "default": False},
    }
    # The output goes into the shared directory, wherever the tarball comes from.
    where_from = {**ENGINE_OPTIONS, **SOURCE_OPTIONS, **CATALOGUE_OPTIONS, **IMAGE_OPTIONS, **TASK_IMAGE_OPTIONS}
    module = AnsibleModule(
        argument_spec={**where_from, **TASK_OPTIONS, **RUNNING_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        required_if=[("state", "present", ("name", "command")), ("state", "absent", ("task_id",))],
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        files = TaskFiles(Path(asked["shared_dir"]), check_task_id(asked["task_id"] or new_task_id()))
        settings = EngineSettings(**pick(asked, ENGINE_OPTIONS))
        if asked["state"] == "absent":
            return remove_task(
                connect(settings), files, asked["stop_timeout"], asked["delete_outputs"], module.check_mode
            )
        reference = image_reference(asked["image_prefix"], asked["name"], asked["image_tag"])
        wanted = WantedImage(asked["name"], reference, **pick(asked, TASK_IMAGE_OPTIONS))
        wish = Running(
            Task.from_options(files.task_id, asked["name"], files.shared_dir, pick(asked, TASK_OPTIONS)),
            files,
            reference,
            **pick(asked, RUNNING_OPTIONS),
            secret=module.no_log,
            is_named=asked["task_id"] is not None,
        )
        source = chosen_source(pick(asked, SOURCE_OPTIONS), module.no_log_values.update)
        engine = connect(settings)
        if asked["source"] is not None or not asked["sync"]:
            check_in_use(files.shared_dir, asked["container_dir"])
        return run_task(
            engine, lambda: provide_image(engine, source, wanted, module.check_mode), wish, module.check_mode
        )

    report(module, work)


if __name__ == "__main__":
    main()
