#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_instance
version_added: 0.2.0
short_description: Start, stop and restart a container that runs a server
description:
  - An instance is any container, usually one that runs a game or collaboration server. It is not created here, but by
    whatever you use for that, for example M(community.docker.docker_container).
  - A server is stopped the way it wants to be stopped. First O(shutdown_command) is typed into its own console. If it
    has not ended after O(grace_period), its stop signal follows (SIGTERM, unless the container has another), and after
    O(stop_timeout) SIGKILL. RV(stopped_by) tells what was needed.
  - A restart policy does not start a server again that was stopped here.
  - Also runs a program inside the container, beside the server. To type a command into the server's console, use
    M(haku.river.haku_console).
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.engine.kind
  - haku.river.attributes
  - haku.river.attributes.state
attributes:
  check_mode:
    details:
      - How a server ends, and what a program returns, is null.
  idempotent:
    support: partial
    details:
      - With O(state=restarted) or O(exec), every run changes something.
options:
  name:
    description:
      - The name or ID of the container. It has to exist.
    type: str
    required: true
  state:
    description:
      - V(started) has it run, and keep running for a second. A paused one goes on. One that ends again and again, and
        that a restart policy starts, is an error.
      - V(stopped) has it not run.
      - V(restarted) stops it as V(stopped) does if it runs, and starts it. This is a change in every run.
      - If this is not set, its state stays as it is.
    type: str
    choices: [started, stopped, restarted]
  shutdown_command:
    description:
      - The console command that ends the server. If this is empty, the console is left alone.
      - It is typed also if the server shows no prompt, after five seconds or half of O(grace_period).
      - It has to be one line, without control characters.
    type: str
    default: shutdown
  grace_period:
    description:
      - How long the server may take to end after O(shutdown_command), in seconds.
    type: int
    default: 60
  stop_timeout:
    description:
      - How long the server may take to end after its stop signal, in seconds, before it is killed.
    type: int
    default: 10
  exec:
    description:
      - A program to run inside the container, with its arguments, without a shell. O(state) is reached first.
      - The module fails if its exit code is not 0, and returns what the program wrote all the same.
    type: list
    elements: str
  exec_timeout:
    description:
      - How long to wait for the program to end, in seconds. It goes on after that.
    type: int
    default: 60
seealso:
  - module: haku.river.haku_instance_info
  - module: haku.river.haku_console
"""

EXAMPLES = r"""
- name: Start the server
  haku.river.haku_instance:
    name: resonite
    state: started

- name: Shut the server down, with time to save its worlds
  haku.river.haku_instance:
    name: resonite
    state: stopped
    grace_period: 120

- name: Stop a Minecraft server
  haku.river.haku_instance:
    name: minecraft
    state: stopped
    shutdown_command: stop

- name: Restart a server that has no console
  haku.river.haku_instance:
    name: proxy
    state: restarted
    shutdown_command: ""

- name: Look at a file inside the container
  haku.river.haku_instance:
    name: resonite
    exec: [cat, /Config/Config.json]
  register: config
"""

RETURN = r"""
instance:
  description: The instance as it is now, or in check mode would be.
  returned: success
  type: dict
  contains:
    id:
      description: The container's ID.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    name:
      description: The container's name.
      type: str
      sample: resonite
    image:
      description: The image that the container was created from.
      type: str
      sample: example/resonite-headless:latest
    status:
      description: The engine's word for what the container does.
      type: str
      sample: running
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample: [stop instance resonite]
stopped_by:
  description:
    - What was tried to stop the server, in order; the last one ended it. Null in check mode if it would be stopped.
  returned: success
  type: list
  elements: dict
  contains:
    step:
      description: V(console), V(signal) or V(kill).
      type: str
      sample: console
    what:
      description: The command or the signal.
      type: str
      sample: shutdown
    ended:
      description: Whether the server ended by it.
      type: bool
      sample: true
    seconds:
      description: How long it took, or how long it was waited for.
      type: float
      sample: 3.2
    problem:
      description: Why the console did not take the command. Null if it did.
      type: str
      sample: null
rc:
  description: The exit code of the program. Null in check mode.
  returned: when O(exec) is set
  type: int
  sample: 0
stdout:
  description: What the program wrote to standard output. Null in check mode.
  returned: when O(exec) is set
  type: str
  sample: "{}"
stderr:
  description: What the program wrote to standard error. Null in check mode.
  returned: when O(exec) is set
  type: str
  sample: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.instance import (
    INTERFACE_OPTIONS,
    Wish,
    manage_instance,
    open_interface,
)
from ansible_collections.haku.river.plugins.module_utils.instance_stop import Stopping
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["started", "stopped", "restarted"]},
        "shutdown_command": {"type": "str", "default": "shutdown"},
        "grace_period": {"type": "int", "default": 60},
        "stop_timeout": {"type": "int", "default": 10},
        "exec": {"type": "list", "elements": "str"},
        "exec_timeout": {"type": "int", "default": 60},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **INTERFACE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        wish = Wish(
            name=asked["name"],
            state=asked["state"],
            stopping=Stopping(asked["shutdown_command"], asked["grace_period"], asked["stop_timeout"]),
            program=tuple(asked["exec"] or ()),
            program_seconds=asked["exec_timeout"],
        )
        with open_interface(asked["engine"], pick(asked, ENGINE_OPTIONS)) as interface:
            return manage_instance(interface, wish, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
