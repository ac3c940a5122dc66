#!/usr/bin/python
# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haku_vps
version_added: 0.2.0
short_description: Offer an environment on this Runner as an SSH machine
description:
  - Manages a VPS, a machine of its own that people log in to by SSH, as root and by key only. It is a container of an
    environment's image on this machine, with its own host key, at a published port.
  - The environment has to have an SSH server. The role P(haku.river.sshd#role) prepares it. Nothing is installed when a
    VPS starts, and it needs no network for that.
  - The image is brought up to date, as M(haku.river.haku_sync) does, when a new machine is made of it, and only then.
    A VPS that exists stays as it is when its environment moves on.
  - Only the options that are set are compared with a VPS that exists. Where they differ, keys, O(cpus), O(memory) and
    O(restart_policy) are changed in place, also with O(state=stopped) and O(state=restarted). All else takes a new
    machine, and therefore O(recreate=true). It is compared with O(state=present) only.
  - Where a VPS is replaced by a new machine, that has the same host key and, unless asked otherwise, the same port and
    authorized keys. The former one is kept aside until the new one answers. If anything fails, it is back.
  - A VPS counts as running when it has answered by SSH with its own host key. If it does not, the module fails with
    the last lines that its server wrote, and removes what it had made.
  - The server takes no passwords and no other keys, although the environment's configuration may allow them. Where a
    block C(Match) of that does so for root, the VPS is not started. Other users enter only if the configuration names
    them by C(AllowUsers).
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
      - What only a new machine has (its ID, its host key, a port out of a range) is null.
  idempotent:
    support: partial
    details:
      - With O(state=restarted), O(state=snapshot) and O(state=restored), every run is a change.
options:
  vps:
    description:
      - The machine's name, and its host name. Lower-case letters, digits and hyphens inside it, at most 63 characters.
      - Its container is called C(haku-vps-<vps>).
    type: str
    required: true
  name:
    description:
      - The environment.
      - Required to create a VPS and to re-create it.
    type: str
  state:
    description:
      - V(present) has the VPS run, and creates it if there is none.
      - V(stopped) has it not run. Its changes, keys and port are kept.
      - V(restarted) restarts it, or starts it if it is stopped.
      - V(absent) removes it, with all changes made inside it and its host key. Its snapshots stay, unless
        O(keep_snapshots) says otherwise.
      - V(snapshot) makes an image of it on this machine. If it runs, it is held still for that moment.
      - V(restored) goes back to O(snapshot), with the settings, port and keys that the VPS has now, and has it run.
        What was changed inside it since is lost.
    type: str
    choices: [present, stopped, restarted, absent, snapshot, restored]
    default: present
  authorized_keys:
    description:
      - The public keys that may log in, as lines of C(authorized_keys). An element may have several lines.
      - Together with O(key_file) and O(generate_key), these are all keys that may. One that was added inside the VPS is
        removed when the keys are set. To create a VPS, at least one is required.
    type: list
    elements: str
  key_file:
    description:
      - A file with public keys on the controller, for example V(~/.ssh/id_ed25519.pub).
    type: str
  generate_key:
    description:
      - A file on the controller for a private key, whose public key may log in. If it is not there, a pair of Ed25519
        keys is made, the public one in the file of that name with C(.pub), the private one readable for its owner only.
      - The private key never leaves the controller. Nobody but its owner can get at it, and no log shows it.
      - The controller needs C(ssh-keygen).
    type: str
  port:
    description:
      - The port of this machine at which the VPS is reached.
      - It stays the same when the VPS or the machine is restarted.
    type: int
  port_range:
    description:
      - Take the first port that is free out of this range, C(FIRST-LAST). A VPS that has a port in it keeps that.
      - For a new VPS the default is C(22000-22999).
    type: str
  address:
    description:
      - The address of this machine at which the VPS is reached.
      - For a new VPS the default is every address, as it is meant to be reached from elsewhere, and takes keys only.
        Docker publishes ports past most firewalls of the machine itself (ufw, firewalld).
      - With V(127.0.0.1), it is reached only through this machine, by C(ssh -J). Plays reach it only if this machine is
        the controller.
    type: str
  host:
    description:
      - By what name or address people reach this machine. RV(vps.host) and RV(vps.known_hosts) have it.
      - The default is O(address), or if that is not set, what Ansible itself reaches the machine by. Where the VPS
        answers on a loopback address only, it is always that.
    type: str
  env:
    description:
      - Environment variables of the VPS, which its sessions have too, with those of the image. The values have to be
        strings.
    type: dict
  volumes:
    description:
      - What to mount, each as C(SOURCE:TARGET) or C(SOURCE:TARGET:MODE), for example V(/shared:/shared). The source is
        an absolute path on this machine or the name of a volume.
      - Refused as targets are C(/root), C(/root/.ssh), C(/etc/ssh), C(/etc/profile.d) and what is above them, since the
        keys and settings of the VPS would be written into the source. C(/root/data) is free.
      - What is in a mount is in no snapshot.
    type: list
    elements: str
  network:
    description:
      - The network, by its name. It has to be one that publishes ports, so V(host), V(none) and V(container:NAME) are
        refused.
      - For a new VPS the default is the engine's own.
    type: str
  cpus:
    description:
      - How many CPUs the VPS may use, for example V(1.5). V(0) is no limit, and the default for a new VPS.
    type: float
  memory:
    description:
      - How much memory the VPS may use, as a number with a unit (V(512M), V(2G), powers of 1024). V(0) is no limit, and
        the default for a new VPS.
    type: str
  shm_size:
    description:
      - The size of C(/dev/shm), as a number with a unit (V(512M), V(8G), powers of 1024). Programs that share memory
        between processes, such as PyTorch's data loaders, need more than the engine's default, usually 64 MB.
      - What is in it counts as the VPS's memory.
      - For a new VPS the default is the engine's own.
    type: str
  gpus:
    description:
      - The GPUs of the VPS. V(all), a number of GPUs, or a list of their indices or UUIDs. V(0) is none, and the
        default for a new VPS.
    type: raw
  labels:
    description:
      - More labels. The values have to be strings. Those that begin with C(haku.river.) are set by the collection.
    type: dict
  restart_policy:
    description:
      - When the engine starts a VPS again that has ended, or after the engine itself was restarted.
      - For a new VPS the default is V(unless-stopped).
    type: str
    choices: ['no', on-failure, always, unless-stopped]
  shared_dir:
    description:
      - The directory that Host and Runners share, at the same path on all of them, for example an NFS mount.
      - Without this and without O(source), a new VPS is made of the image that this machine has.
    type: path
    required: false
  version:
    description:
      - The timestamp of the version to create the VPS of. The newest one if this is not set.
      - It needs O(shared_dir) or O(source).
    type: int
  keep_images:
    description:
      - How many former images of the environment stay on this machine when the image changes, see
        M(haku.river.haku_sync).
    type: int
    default: 0
  recreate:
    description:
      - Allow to replace a VPS that is not as asked by a new one, and to lose the changes made inside it. A VPS that is
        as asked stays.
    type: bool
    default: false
  snapshot:
    description:
      - The timestamp of the snapshot to go back to with O(state=restored). The newest one if this is not set.
    type: int
  keep_snapshots:
    description:
      - With O(state=snapshot) and O(state=absent), how many snapshots stay, the newest ones. All if this is not set.
      - The snapshot that the VPS was restored from stays too, until the VPS is removed or made of another image.
    type: int
  stop_timeout:
    description:
      - How long the VPS may take to stop, in seconds, before it is killed.
    type: int
    default: 10
  ready_timeout:
    description:
      - How long to wait, in seconds, until the VPS answers by SSH.
    type: int
    default: 30
  lock_timeout:
    description:
      - How long to wait, in seconds, for other work on the same VPS, or on its image, on this machine, and for another
        one that chooses a port.
    type: int
    default: 3600
seealso:
  - module: haku.river.haku_vps_info
  - module: haku.river.haku_sync
  - module: haku.river.haku_task
"""

EXAMPLES = r"""
- name: Give Alice a machine
  haku.river.haku_vps:
    vps: alice
    name: python-data-science
    shared_dir: /shared
    authorized_keys: "{{ lookup('ansible.builtin.file', 'keys/alice.pub') }}"
    cpus: 4
    memory: 16G
    volumes:
      - /shared:/shared
  register: alice

- name: Say how she gets there
  ansible.builtin.debug:
    msg: ssh -p {{ alice.vps.port }} root@{{ alice.vps.host }}

- name: Know the machine by its key
  ansible.builtin.known_hosts:
    name: "[{{ alice.vps.host }}]:{{ alice.vps.port }}"
    key: "{{ alice.vps.known_hosts }}"
  delegate_to: localhost

- name: Have the next play work on it
  ansible.builtin.add_host:
    name: "{{ alice.vps.name }}"
    groups: machines
    ansible_host: "{{ alice.vps.host }}"
    ansible_port: "{{ alice.vps.port }}"
    ansible_user: "{{ alice.vps.user }}"

- name: Make a key pair for a machine that only plays use
  haku.river.haku_vps:
    vps: builder
    name: python-data-science
    generate_key: ~/.ssh/haku-builder

- name: Keep what it is now, and the two snapshots before
  haku.river.haku_vps:
    vps: alice
    state: snapshot
    keep_snapshots: 3

- name: Go back to the last snapshot
  haku.river.haku_vps:
    vps: alice
    state: restored

- name: Remove it, and all snapshots
  haku.river.haku_vps:
    vps: alice
    state: absent
    keep_snapshots: 0
"""

RETURN = r"""
vps:
  description: The machine as it is now, or in check mode would be. Null if there is none.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: alice
    environment:
      description: The environment that it was made of.
      type: str
      sample: python-data-science
    version:
      description: The version of the environment that it was made of.
      type: int
      sample: 1767225600
    id:
      description: The container's ID. Null in check mode if the machine would be a new one.
      type: str
      sample: 7a5c1c0d1a9b0f6ce1a5fe5e1d1c7d0c0d2b3c4d5e6f708192a3b4c5d6e7f809
    image:
      description: The tag of the environment's image.
      type: str
      sample: hakuriver/python-data-science:base
    state:
      description: The engine's word for what the container does.
      type: str
      sample: running
    created:
      description: When the machine was made. Null in check mode if it would be a new one.
      type: str
      sample: "2026-01-01T00:00:00Z"
    host:
      description: By what name or address it is reached.
      type: str
      sample: gpu01
    port:
      description: The port at which it is reached. Null in check mode if it would be chosen.
      type: int
      sample: 22000
    address:
      description: The address that the port is published on. V(0.0.0.0) is every one, also those of IPv6.
      type: str
      sample: 0.0.0.0
    user:
      description: Who logs in.
      type: str
      sample: root
    host_key_fingerprint:
      description: The fingerprint of its host key, as C(ssh) shows it. Null before the machine is made.
      type: str
      sample: SHA256:R/4ZcC3MYmZ1bWz3WVmiaHCYXGl2T1ecBPuB9zJoUYc
    known_hosts:
      description: The line by which C(ssh) knows the machine. Null before the machine is made.
      type: str
      sample: "[gpu01]:22000 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBzkWkpIqFT3gs0tTK/e9i9fF7DTmyd7bIzDwuyVv3tV"
snapshots:
  description: The snapshots, newest first. In check mode, the values of one that would be taken are null.
  returned: success
  type: list
  elements: dict
  contains:
    timestamp:
      description: When it was taken, in Unix seconds. O(snapshot) takes it.
      type: int
      sample: 1767232800
    taken:
      description: The same for people.
      type: str
      sample: "2026-01-01T02:00:00Z"
    image:
      description: The image's tag on this machine.
      type: str
      sample: hakuriver/python-data-science:vps-alice-1767232800
sync:
  description:
    - What M(haku.river.haku_sync) returns of the image, if a new machine was made of it. Null if none was. Without
      O(shared_dir) and O(source), only RV(ignore:image), RV(ignore:action) and RV(ignore:version).
  returned: success
  type: dict
  sample: {"action": "none", "image": "hakuriver/python-data-science:base", "version": 1767225600}
private_key_file:
  description: The file of the private key on the controller.
  returned: if O(generate_key) is set
  type: str
  sample: /home/admin/.ssh/haku-builder
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - create and start VPS alice from image hakuriver/python-data-science:base
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.engine_options import ENGINE_OPTIONS, ENGINE_REQUIRED_TOGETHER
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    IMAGE_OPTIONS,
    check_environment_name,
    check_vps_name,
    image_reference,
)
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome, pick, report
from ansible_collections.haku.river.plugins.module_utils.source import ONE_SOURCE, SOURCE_OPTIONS, chosen_source
from ansible_collections.haku.river.plugins.module_utils.sync_view import Synchronising
from ansible_collections.haku.river.plugins.module_utils.vps import Context, manage_vps
from ansible_collections.haku.river.plugins.module_utils.vps_keys import check_read_by_controller, parse_keys
from ansible_collections.haku.river.plugins.module_utils.vps_plan import SETTINGS_OF_VPS, Wish
from ansible_collections.haku.river.plugins.module_utils.vps_port import Ports


def main() -> None:
    states = ["present", "stopped", "restarted", "absent", "snapshot", "restored"]
    options = {
        "vps": {"type": "str", "required": True},
        "name": {"type": "str"},
        "state": {"type": "str", "choices": states, "default": "present"},
        "authorized_keys": {"type": "list", "elements": "str", "no_log": False},
        "key_file": {"type": "str", "no_log": False},
        "generate_key": {"type": "str", "no_log": False},
        "port": {"type": "int"},
        "port_range": {"type": "str"},
        "address": {"type": "str"},
        "host": {"type": "str"},
        "version": {"type": "int"},
        "keep_images": {"type": "int", "default": 0},
        "recreate": {"type": "bool", "default": False},
        "snapshot": {"type": "int"},
        "keep_snapshots": {"type": "int"},
        "stop_timeout": {"type": "int", "default": 10},
        "ready_timeout": {"type": "int", "default": 30},
        "lock_timeout": {"type": "int", "default": 3600},
    }
    module = AnsibleModule(
        argument_spec={**ENGINE_OPTIONS, **SOURCE_OPTIONS, **IMAGE_OPTIONS, **SETTINGS_OF_VPS, **options},
        required_together=ENGINE_REQUIRED_TOGETHER,
        mutually_exclusive=[*ONE_SOURCE, ("port", "port_range")],
        supports_check_mode=True,
    )
    asked = module.params

    def work() -> Outcome:
        name = check_environment_name(asked["name"]) if asked["name"] is not None else None
        reference = image_reference(asked["image_prefix"], name, asked["image_tag"]) if name else None
        check_read_by_controller(asked["key_file"], asked["generate_key"])
        wish = Wish(
            vps=check_vps_name(asked["vps"]),
            environment=name,
            reference=reference,
            asked=Wish.settings(pick(asked, SETTINGS_OF_VPS)),
            keys=parse_keys(asked["authorized_keys"]) if asked["authorized_keys"] is not None else None,
            ports=Ports.from_options(asked["port"], asked["port_range"], asked["address"]),
            stop_timeout_seconds=asked["stop_timeout"],
            ready_timeout_seconds=asked["ready_timeout"],
            lock_timeout_seconds=asked["lock_timeout"],
            **pick(asked, ("state", "version", "recreate", "snapshot", "keep_snapshots")),
        )
        has_source = asked["shared_dir"] is not None or asked["source"] is not None
        if asked["version"] is not None and not has_source:
            raise HakuError("version needs a place to take it from", remedy="Set shared_dir or source")
        engine = connect(EngineSettings(**pick(asked, ENGINE_OPTIONS)))

        def bring_image() -> Outcome:
            # A module's code is compiled anew in every run, and usually there is nothing to bring.
            from ansible_collections.haku.river.plugins.module_utils.sync import synchronise

            limits = {"keep_images": asked["keep_images"], "lock_timeout_seconds": asked["lock_timeout"]}
            image = Synchronising(name or "", reference or "", asked["version"], **limits)
            source = chosen_source(pick(asked, SOURCE_OPTIONS), module.no_log_values.update)
            return synchronise(engine, source, image, module.check_mode)

        context = Context(asked["host"], bring_image if has_source else None)
        return manage_vps(engine, wish, context, module.check_mode)

    report(module, work)


if __name__ == "__main__":
    main()
