#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_console
version_added: 0.2.0
short_description: Type a command into a server's own console
description:
  - Types one command into the console of a server that runs in a container, and returns what the server answers. This
    is not C(docker exec), which runs a program beside the server.
  - The container needs an open standard input (C(stdin_open), C(docker run --interactive)), with or without a terminal.
  - The server has to show a prompt whenever it has read a line, also an empty one. What the prompt is, is found out; it
    ends with one of C(>), C(:), C(#), C($), C(%), C(») and C(]), and has 200 characters at most.
  - Lines of the server's log that come in the middle of an answer are part of it; RV(parsed) is free of them.
  - One command at a time is typed, whoever else uses this module for that container on this machine as the same user.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.engine.kind
  - haku.river.attributes
attributes:
  check_mode:
    description: Can run in C(check_mode).
    support: full
    details:
      - Commands that only tell something are typed in check mode as well; others are not, and what they answer is null.
      - A container that is missing, does not run or has no open standard input is an error in check mode, too.
  diff_mode:
    description: What a command changes, only the server knows.
    support: none
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing.
    support: partial
    details:
      - Commands that only tell something change nothing. With all others, every run types the command.
options:
  name:
    description:
      - The name or ID of the container.
    type: str
    required: true
  command:
    description:
      - The command, with its arguments, or without those in O(arguments).
      - Unless O(raw=true), it has to be one of Resonite's headless server, such as V(status), V(users), V(worlds),
        V(focus), V(kick), V(message), V(save) or V(shutdown). The error lists them all.
      - It has to be one line, without control characters.
    type: str
    required: true
  arguments:
    description:
      - Arguments, which are put in quotes where they have spaces.
    type: list
    elements: str
  secret_arguments:
    description:
      - Arguments that follow O(arguments) and are not shown by Ansible, such as the password of C(login).
      - A terminal shows what is typed, so that they stand in the container's log, as when people type them.
    type: list
    elements: str
  raw:
    description:
      - Type the command even if it is not a known one, as for other servers than Resonite's.
    type: bool
    default: false
  ends_server:
    description:
      - Say of a command that the server ends by it, as by the C(stop) of other servers than Resonite's; of C(shutdown)
        this is known. The server's last words are the answer then, and that it ends is no error.
      - If the server shows no prompt within five seconds, or half of O(answer_timeout), it need not have one. The
        command is typed all the same, and the end is waited for.
    type: bool
    default: false
  answer_timeout:
    description:
      - How long the answer may take, in seconds.
    type: float
    default: 10
  expect:
    description:
      - A regular expression that has to be found in the answer. If it is not, the command is typed again O(retries)
        times, and then the module fails.
    type: str
    aliases: [until]
  retries:
    description:
      - How often to try again if there is no answer, for example because the server is still starting, or if it is not
        as expected.
      - A container that is missing or has no open standard input is not tried again, and neither is one that the engine
        has had to start twice again in the meantime.
    type: int
    default: 0
  delay:
    description:
      - How long to wait before trying again, in seconds.
    type: float
    default: 1
seealso:
  - module: haku.river.haku_instance
  - module: haku.river.haku_instance_info
"""

EXAMPLES = r"""
- name: Wait until the server has started
  haku.river.haku_console:
    name: resonite
    command: status
    expect: '^Name: '
    retries: 30
    delay: 5

- name: See who is there
  haku.river.haku_console:
    name: resonite
    command: users
  register: users

- name: Say something to everybody who is
  haku.river.haku_console:
    name: resonite
    command: message
    arguments: ["{{ item.name }}", "We restart in 5 minutes"]
  loop: "{{ users.parsed | selectattr('present') }}"

- name: Save the world
  haku.river.haku_console:
    name: resonite
    command: save
    answer_timeout: 120

- name: Log in
  haku.river.haku_console:
    name: resonite
    command: login
    arguments: [bot@example.org]
    secret_arguments: ["{{ vault_password }}"]

- name: Ask a server of another kind, which has to show a prompt
  haku.river.haku_console:
    name: factory
    command: players
    raw: true

# Minecraft's own server shows no prompt. It can be told to end; to ask it, its image needs a client such as rcon-cli.
- name: Have a Minecraft server end
  haku.river.haku_console:
    name: minecraft
    command: stop
    raw: true
    ends_server: true
    answer_timeout: 120

- name: Ask a Minecraft server
  haku.river.haku_instance:
    name: minecraft
    exec: [rcon-cli, list]
"""

RETURN = r"""
answer:
  description: What the server answered, without colours. Null in check mode if the command may change something.
  returned: success
  type: str
  sample: "Name: World\nSessionID: S-87fe7d8f-6571-4c6a-938b-21c0757afab8"
answer_lines:
  description: The lines of the answer. Null if RV(answer) is.
  returned: success
  type: list
  elements: str
  sample: ["Name: World", "SessionID: S-87fe7d8f-6571-4c6a-938b-21c0757afab8"]
parsed:
  description:
    - The answer to C(status), a dictionary, or to C(users), C(worlds) or C(listbans), lists of dictionaries. Null for
      other commands.
  returned: success
  type: raw
  sample: {name: World, session_id: S-87fe7d8f-6571-4c6a-938b-21c0757afab8, current_users: 2}
attempts:
  description:
    - How often it was tried until there was this answer, with the tries in which nothing could be typed. Null if
      RV(answer) is.
  returned: success
  type: int
  sample: 1
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.console_commands import compose
from ansible_collections.haku.river.plugins.module_utils.console_run import Asking, run_console_command
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.instance import INTERFACE_OPTIONS, open_interface
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "command": {"type": "str", "required": True},
        "arguments": {"type": "list", "elements": "str"},
        "secret_arguments": {"type": "list", "elements": "str", "no_log": True},
        "raw": {"type": "bool", "default": False},
        "ends_server": {"type": "bool", "default": False},
        "answer_timeout": {"type": "float", "default": 10},
        "expect": {"type": "str", "aliases": ["until"]},
        "retries": {"type": "int", "default": 0},
        "delay": {"type": "float", "default": 1},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **INTERFACE_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        arguments = [*(asked["arguments"] or ()), *(asked["secret_arguments"] or ())]
        asking = Asking(
            name=asked["name"],
            command=compose(asked["command"], arguments),
            timeout_seconds=asked["answer_timeout"],
            delay_seconds=asked["delay"],
            **pick(asked, ("raw", "ends_server", "expect", "retries")),
        )
        with open_interface(asked["engine"], pick(asked, ENGINE_OPTIONS)) as interface:
            return run_console_command(interface, asking, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
