#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_task_info
version_added: 0.2.0
short_description: List the tasks that run and those that have ended
description:
  - Lists the tasks of all Runners that M(haku.river.haku_task) has started, from their records in the shared directory.
    Any machine that has it can tell, without an engine.
  - A record that nobody can read, because something else has written there or it is of a newer version, is passed over
    with a warning.
  - Records and outputs stay until somebody removes them, by M(haku.river.haku_task) with
    O(haku.river.haku_task#module:delete_outputs=true).
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.attributes.shared
  - haku.river.attributes.info
options:
  shared_dir:
    description:
      - The directory that Host and Runners share.
    type: path
    required: true
  task_id:
    description:
      - List this task only. One that does not exist is not listed, and not an error.
    type: str
  name:
    description:
      - List the tasks of this environment only.
    type: str
  state:
    description:
      - List the tasks in this state only, see RV(tasks[].state).
    type: str
    choices: [running, finished, lost]
seealso:
  - module: haku.river.haku_task
"""

EXAMPLES = r"""
- name: See what runs, on all Runners
  haku.river.haku_task_info:
    shared_dir: /shared
    state: running
  register: now
  run_once: true

- name: Show it
  ansible.builtin.debug:
    msg: "{{ item.runner }}: {{ item.name }}, {{ item.task_id }}, since {{ item.started }}"
  loop: "{{ now.tasks }}"
  loop_control:
    label: "{{ item.task_id }}"

- name: Find the tasks that have ended
  haku.river.haku_task_info:
    shared_dir: /shared
    state: finished
  register: past
  run_once: true

- name: Forget those of the years before
  haku.river.haku_task:
    shared_dir: /shared
    task_id: "{{ item }}"
    state: absent
    delete_outputs: true
  loop: "{{ past.tasks | selectattr('ended', 'lt', '2026') | map(attribute='task_id') }}"
  run_once: true
"""

RETURN = r"""
tasks:
  description: The tasks, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    task_id:
      description: The task's ID.
      type: str
      sample: 20260101-120000-1f8b3a7c
    name:
      description: The environment.
      type: str
      sample: python-data-science
    version:
      description: The version of the environment that the task runs in, in Unix seconds.
      type: int
      sample: 1767225600
    image_id:
      description: The ID of its image.
      type: str
      sample: sha256:7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    command:
      description: The program and its arguments. Null if the task had C(no_log).
      type: list
      elements: str
      sample: [/bin/sh, -c, nproc]
    runner:
      description: The host name of the machine that the task runs on.
      type: str
      sample: gpu01
    container:
      description: The name of the task's container there.
      type: str
      sample: haku-task-20260101-120000-1f8b3a7c
    state:
      description:
        - V(running); V(finished); or V(lost), if the supervisor was killed, so that nobody looks after the task.
        - The next task on the same Runner removes what is left of a lost one.
      type: str
      sample: running
    outcome:
      description: How the task ended, see RV(haku.river.haku_task#module:outcome). Null if it has not.
      type: str
      sample: exited
    rc:
      description: The exit code. Null if there is none.
      type: int
      sample: 0
    problem:
      description: What went wrong, in a sentence. Null if nothing did.
      type: str
      sample: The command ended with exit code 3
    started:
      description: When the task started.
      type: str
      sample: "2026-01-01T12:00:00Z"
    ended:
      description: When it ended. Null if it has not.
      type: str
      sample: "2026-01-01T12:03:20Z"
    stdout_file:
      description: The file with standard output, which can be read while the task runs.
      type: str
      sample: /shared/task_outputs/20260101-120000-1f8b3a7c.out
    stderr_file:
      description: The file with standard error.
      type: str
      sample: /shared/task_errors/20260101-120000-1f8b3a7c.err
    stdout_bytes:
      description: The size of that file. Null if it is not there.
      type: int
      sample: 6
    stderr_bytes:
      description: The size of that file. Null if it is not there.
      type: int
      sample: 0
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, report
from ansible_collections.haku.river.plugins.module_utils.task_record import described_tasks


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "shared_dir": {"type": "path", "required": True},
            "task_id": {"type": "str"},
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["running", "finished", "lost"]},
        },
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        wanted = (asked["task_id"], asked["name"], asked["state"])
        tasks, warnings = described_tasks(Path(asked["shared_dir"]), *wanted)
        return Outcome(changed=False, facts={"tasks": tasks}, warnings=warnings)

    report(module, work)


if __name__ == "__main__":
    main()
