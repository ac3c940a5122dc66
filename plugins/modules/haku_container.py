#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_container
version_added: 0.1.0
short_description: Create, start, stop and remove the container of an environment
description:
  - Manages the long-lived container that an environment is on the Host. It has the environment's name and the labels
    C(haku.river.managed=true), C(haku.river.env=<name>) and C(haku.river.image=<image>).
  - Only the options that are set are compared with a container that exists. Where they differ, O(restart_policy),
    O(cpus) and O(memory) are changed in place. All else takes a new container, which has none of the changes made
    inside the former one, and therefore the permission of O(recreate=true).
  - A new container is made of what the options say and, for options that are not set, of the defaults given below, not
    of the former container's settings. The image alone is kept if O(image) is not set. Diff mode lists all that
    changes.
  - When a container is made anew, the former one is kept aside until the new one runs. If anything fails, it is back
    under its name, and started if it ran.
  - A container that was started has to keep running for a second. If it does not, the module fails with the exit code
    and the last lines of the container's log.
author:
  - haku.river contributors (@haku-river)
extends_documentation_fragment:
  - haku.river.engine
  - haku.river.attributes
  - haku.river.attributes.state
attributes:
  check_mode:
    details:
      - The ID and the time of creation of a container that does not exist yet are null.
      - Nothing is pulled, so whether the registry has the image remains to be seen.
  idempotent:
    support: partial
    details:
      - With O(state=restarted), every run restarts the container.
options:
  name:
    description:
      - The environment, and so the name of its container.
      - Lower-case letters and digits, parted by single dots, one or two underscores, or hyphens.
    type: str
    required: true
  state:
    description:
      - V(present) creates the container if there is none, and leaves one that exists running or not, as it is.
      - V(started) also has it run. A paused container goes on; one that keeps failing is restarted.
      - V(stopped) also has it not run. Its changes are kept.
      - V(restarted) restarts it, or starts one that is stopped or new. This is a change in every run.
      - V(absent) stops and removes it, with all changes made inside it and its anonymous volumes. Tarballs and
        images stay, but for the one that only this container continues on after a package.
    type: str
    choices: [present, started, stopped, restarted, absent]
    default: started
  image:
    description:
      - The image to create the container from, by tag (V(latest) if it has none), digest or ID.
      - Required to create a container. For one that exists, this is compared with the name that it was created from,
        whatever image a tag with that name has become, or the container continues on after it was packaged.
    type: str
  pull:
    description:
      - When to pull the image for a new container. A container that needs none never causes a pull.
      - V(missing) pulls it if the engine does not have it, V(always) every time, V(never) not at all.
      - The credentials are those of C(docker login) for the user on the managed machine.
    type: str
    choices: [missing, always, never]
    default: missing
  command:
    description:
      - The command that keeps the container running. The image's entry point is not used.
      - A list of arguments, or a string that is split into arguments at spaces, with quotes as in a shell. There is no
        shell, unless you name one, as in V([sh, -c, 'sleep "$SECONDS_TO_SLEEP"']).
      - For a new container the default is C(sleep infinity).
    type: raw
  init:
    description:
      - Run a small init as the container's first process. It passes signals on, so that stopping takes a moment rather
        than O(stop_timeout), and reaps the processes that shells leave behind.
      - For a new container the default is V(true).
    type: bool
  env:
    description:
      - Environment variables. The values have to be strings; put in quotes what YAML would read as a number or boolean.
      - The image and the container may have others; only these are compared.
    type: dict
  volumes:
    description:
      - What to mount, each as C(SOURCE:TARGET) or C(SOURCE:TARGET:MODE). The source is an absolute path on the managed
        machine or the name of a volume.
      - The container has to have exactly these mounts, if this is set. What is in a mount is not packaged.
    type: list
    elements: str
  network:
    description:
      - The network, by its name, or V(bridge), V(host), V(none) or V(container:NAME).
      - For a new container the default is the engine's own.
    type: str
  cpus:
    description:
      - How many CPUs the container may use, for example V(1.5). V(0) is no limit.
      - For a new container the default is no limit. Lifting a limit takes a new container.
    type: float
  memory:
    description:
      - How much memory the container may use, as a number with a unit (V(512M), V(2G), powers of 1024). V(0) is no
        limit. As much again may be swapped out, where the machine has swap.
      - For a new container the default is no limit. Lifting a limit takes a new container.
    type: str
  shm_size:
    description:
      - The size of C(/dev/shm), as a number with a unit (V(512M), V(8G), powers of 1024). Programs that share memory
        between processes, such as PyTorch's data loaders, need more than the engine's default, usually 64 MB.
      - What is in it counts as the container's memory.
      - For a new container the default is the engine's own.
    type: str
    version_added: 0.2.0
  gpus:
    description:
      - The GPUs of the container. V(all), a number of GPUs, or a list of their indices or UUIDs. V(0) is none.
      - The engine needs the NVIDIA Container Toolkit.
      - For a new container the default is none.
    type: raw
  labels:
    description:
      - More labels. The values have to be strings. Those that begin with C(haku.river.) are set by the collection.
      - The image and the container may have others; only these are compared.
    type: dict
  restart_policy:
    description:
      - When the engine starts the container again that has ended, or after the engine itself was restarted.
      - For a new container the default is V(unless-stopped).
    type: str
    choices: ['no', on-failure, always, unless-stopped]
  stop_timeout:
    description:
      - How long the container may take to stop, in seconds, before it is killed.
    type: int
    default: 10
  recreate:
    description:
      - Allow to replace a container that is not as asked by a new one, and to lose the changes made inside it. A
        container that is as asked stays.
      - M(haku.river.haku_tar) packages those changes first.
    type: bool
    default: false
  adopt:
    description:
      - Act on a container of that name although it does not have the labels of a managed one.
      - Labels cannot be added to a container that exists, so it remains unmanaged, and every module that acts on it
        needs O(adopt=true) again. With O(recreate=true) as well, it is replaced by a new container that is managed.
    type: bool
    default: false
seealso:
  - module: haku.river.haku_container_info
  - module: haku.river.haku_tar
  - module: community.docker.docker_container
    description: Manages containers of any other kind.
"""

EXAMPLES = r"""
- name: Create an environment from a public image, and have it run
  haku.river.haku_container:
    name: python-data-science
    image: python:3.9-slim

- name: Give it limits, a mount and a GPU
  haku.river.haku_container:
    name: python-data-science
    image: python:3.9-slim
    cpus: 4
    memory: 16G
    gpus: 1
    env:
      PIP_CACHE_DIR: /cache/pip
    volumes:
      - /srv/pip-cache:/cache/pip
      - /shared:/shared:ro

- name: Move it to another base image, and give up what was changed inside it
  haku.river.haku_container:
    name: python-data-science
    image: python:3.12-slim
    recreate: true

- name: Stop it
  haku.river.haku_container:
    name: python-data-science
    state: stopped

- name: Replace a container that somebody made by hand with a managed one
  haku.river.haku_container:
    name: python-data-science
    image: python:3.12-slim
    adopt: true
    recreate: true

- name: Remove it
  haku.river.haku_container:
    name: python-data-science
    state: absent
"""

RETURN = r"""
name:
  description: The environment.
  returned: success
  type: str
  sample: python-data-science
container:
  description: The container as it is now, or in check mode would be. Null if there is none.
  returned: success
  type: dict
  contains:
    id:
      description: The container's ID. Null in check mode if the container would be created.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    name:
      description: The container's name, which is the environment's.
      type: str
      sample: python-data-science
    image:
      description: The image that was asked for when the container was created.
      type: str
      sample: python:3.9-slim
    state:
      description: The engine's word for what the container does.
      type: str
      sample: running
    created:
      description: When the container was created. Null in check mode if it would be created.
      type: str
      sample: "2026-01-01T00:00:00Z"
    managed:
      description: Whether the container has the labels of a managed one.
      type: bool
      sample: true
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - pull image python:3.9-slim
    - create and start container python-data-science from image python:3.9-slim
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.container import Desired, manage_container
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.names import check_environment_name
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.settings import SETTINGS_OPTIONS, Settings


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "state": {
            "type": "str",
            "choices": ["present", "started", "stopped", "restarted", "absent"],
            "default": "started",
        },
        "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
        "stop_timeout": {"type": "int", "default": 10},
        "recreate": {"type": "bool", "default": False},
        "adopt": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **SETTINGS_OPTIONS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        desired = Desired(
            name=check_environment_name(asked["name"]),
            asked=Settings.from_options(pick(asked, SETTINGS_OPTIONS)),
            stop_timeout_seconds=asked["stop_timeout"],
            **pick(asked, ("state", "pull", "recreate", "adopt")),
        )
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))
        return manage_container(engine, desired, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
