# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks inside an env container, on a Host that another connection reaches."""

from __future__ import annotations

DOCUMENTATION = r"""
author: haku.river contributors (@haku-river)
name: env
short_description: Run tasks inside an env container of a remote Host
version_added: 0.1.0
description:
  - Runs tasks inside a container of an engine on another machine, the Host. The Host is reached by any connection
    plugin, with all its settings. For SSH that means user, port, key, password, jump host, common arguments and a
    shared (C(ControlPersist)) session.
  - On the Host, each command runs through C(docker exec). Nothing has to be installed in the container but a shell at
    C(/bin/sh), and C(dd) and C(wc) for files; modules need Python there, as everywhere.
  - The plugins of community.docker reach only those engines that the controller itself can reach; Docker's C(ssh://)
    addresses know nothing of Ansible's connection variables.
notes:
  - Files are copied in parts of a few MiB, so that memory stays small whatever their size, and nothing is put on the
    Host's disk. They belong to O(remote_user).
  - A command of a task has no terminal, and its standard input is empty.
  - C(become) works inside the container with whatever the image has (C(su), C(sudo)). Where the Host itself needs
    C(become) for the engine, see O(via); then C(become) inside the container has to do without a password.
options:
  container:
    description:
      - Name or ID of the container.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_haku_container
  via:
    description:
      - How the Host is reached, a dictionary of Ansible's connection variables, such as C(ansible_connection),
        C(ansible_host), C(ansible_user), C(ansible_port), C(ansible_ssh_private_key_file) and
        C(ansible_ssh_common_args).
      - The filter P(haku.river.connection_variables#filter) takes them from a host of the inventory.
      - With C(ansible_become) among them, or C(--become) on the command line, the engine's command runs by the Host's
        C(become) method; its variables (C(ansible_become_method), C(ansible_become_user), C(ansible_become_password)
        and so on) are those of this dictionary too.
      - Settings that are not in it come from the configuration and the command line, as for the Host itself.
      - When empty, the engine is the controller's own.
    type: dict
    default: {}
    vars:
      - name: ansible_haku_via
  remote_user:
    description:
      - User inside the container, a name or C(UID:GID). Without it, the image's default is used.
      - C(ansible_user) is the Host's and has no meaning here, since group variables set for machines also reach
        containers in the inventory.
    type: str
    vars:
      - name: ansible_haku_user
  docker_command:
    description:
      - The engine's command on the Host, with its arguments, for example V([podman]), V([sudo, -n, docker]) or
        V([docker, --host, unix:///run/user/1000/docker.sock]).
    type: list
    elements: str
    default: [docker]
    vars:
      - name: ansible_haku_docker_command
  pipelining:
    description:
      - Send modules through the standard input, without a temporary file in the container. This is quicker, and always
        possible, since there is no terminal.
    type: bool
    default: true
    env:
      - name: ANSIBLE_PIPELINING
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
    vars:
      - name: ansible_pipelining
      - name: ansible_haku_pipelining
"""

EXAMPLES = r"""
- name: Name a container of the Host as a machine
  ansible.builtin.add_host:
    name: python-data-science
    ansible_connection: haku.river.env
    ansible_haku_via: "{{ hostvars[groups['haku_host'][0]] | haku.river.connection_variables }}"
  no_log: true # the Host's password may be among its variables

# In an inventory, so that `ansible python-data-science -m ansible.builtin.setup` works:
#
# [haku_containers]
# python-data-science
#
# [haku_containers:vars]
# ansible_connection=haku.river.env
# ansible_haku_via="{{ hostvars[groups['haku_host'][0]] | haku.river.connection_variables }}"
"""

import re
import shlex
from pathlib import Path
from typing import Any, BinaryIO

from ansible import constants, context
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import become_loader, connection_loader
from ansible.utils.display import Display

display = Display()

OWN_NAME = "haku.river.env"
SHELL = "/bin/sh"

# What one command carries of a file. Each costs an exchange with Host and engine (about 0.2 s), and the inner
# connection holds it in memory, so it is neither small nor large. It is a multiple of dd's block.
BLOCK = 64 * 1024
PART = 64 * BLOCK

# https://github.com/moby/moby/blob/master/daemon/names/names.go
CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

# The words by which the Host's shell, its privilege escalation or the engine refuse, rather than the command in the
# container. A command may well say the same, so they only raise the suspicion; `_explain` asks the engine.
REFUSALS = re.compile(
    rb"error response from daemon|no such container|no container with name|container state improper"
    rb"|cannot connect to|permission denied|oci runtime|unable to find user|no matching entries in passwd"
    rb"|not found|password is required",
    re.IGNORECASE,
)
REFUSAL_CODES = frozenset({1, 125, 126, 127})

PASSWORD_VARIABLES = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")


class Connection(ConnectionBase):  # type: ignore[misc]  # ansible-core is untyped for users
    """`docker exec` through another connection."""

    transport = OWN_NAME
    has_pipelining = True
    # What a become plugin needs a terminal for is asking for a password, and standard input serves as well.
    has_tty = False

    def __init__(self, play_context: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(play_context, *args, **kwargs)
        self._inner: ConnectionBase | None = None
        self._host_become: Any = None

    @property
    def _container(self) -> str:
        name: str = to_text(self.get_option("container"))
        if not CONTAINER_NAME.fullmatch(name):
            raise AnsibleError(f"{name!r} cannot be a container. Name one by the variable ansible_haku_container.")
        return name

    @property
    def _host(self) -> str:
        """The Host, as messages name it."""
        via = self.get_option("via")
        name: str = to_text(via.get("inventory_hostname") or via.get("ansible_host") or "the controller")
        return name

    def _connect(self) -> Connection:
        self._connected_host()
        self._connected = True
        return self

    def _connected_host(self) -> ConnectionBase:
        """The Host's connection, made at the first use."""
        if self._inner is None:
            self._inner = self._connect_host(dict(self.get_option("via")))
            display.vvv(f"ESTABLISH CONNECTION TO CONTAINER {self._container} ON {self._host}", host=self._container)
        return self._inner

    def _connect_host(self, via: dict[str, Any]) -> ConnectionBase:
        """The Host's connection, with the options it would have if the Host itself ran a task."""
        play_context = self._play_context.copy()
        play_context.remote_addr = via.get("ansible_host", via.get("inventory_hostname"))
        play_context.remote_user = via.get("ansible_user")
        play_context.port = via.get("ansible_port")
        if play_context.password and not any(name in via for name in PASSWORD_VARIABLES):
            via["ansible_password"] = play_context.password  # of --ask-pass

        name = _inner_name(via)
        inner = connection_loader.get(name, play_context, "/dev/null", task_uuid="", ansible_playbook_pid="")
        if inner is None:
            raise AnsibleError(f"The connection plugin {name!r}, by which {self._host} is reached, was not found.")
        # A terminal would mix up the outputs and change line ends in files.
        inner.set_options(var_options={**via, "ansible_pipelining": True, "ansible_ssh_use_tty": False})
        self._host_become = _host_become(via, play_context)
        return inner

    def _on_host(self, argv: list[str], in_data: bytes | None, become: Any = None) -> tuple[int, bytes, bytes]:
        """Run a command on the Host. `become` answers the prompts of a command that escalates inside the container."""
        host = self._connected_host()
        command = shlex.join(argv)
        if self._host_become:
            become = self._host_become
            command = become.build_become_command(command, host._shell)
        host.set_become_plugin(become)
        code, stdout, stderr = host.exec_command(command, in_data=in_data, sudoable=become is not None)
        if self._host_become:  # some connections take the mark of success out of the output, and some do not
            stdout = stdout.replace(to_bytes(become.success) + b"\n", b"", 1)
        return code, stdout, stderr

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a shell command in the container; returns its exit code, output and errors."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._connect()
        display.vvv(f"EXEC {to_text(cmd)}", host=self._container)
        return self._exec(to_text(cmd, errors="surrogate_or_strict"), in_data, self.become if sudoable else None)

    def _exec(self, command: str, in_data: bytes | None = None, become: Any = None) -> tuple[int, bytes, bytes]:
        """Run a shell command in the container."""
        argv = [*self.get_option("docker_command"), "exec"]
        # Standard input is only open for someone who closes it: a command that reads it would wait for ever.
        if in_data is not None or (become and become.expect_prompt() and not self._host_become):
            argv.append("--interactive")
        if user := self.get_option("remote_user"):
            argv.append(f"--user={user}")
        argv += [self._container, SHELL, "-c", command]
        code, stdout, stderr = self._on_host(argv, in_data, become)
        if code in REFUSAL_CODES and REFUSALS.search(stderr + stdout):
            self._explain(to_text(stderr + stdout).strip())
        return code, stdout, stderr

    def _explain(self, words: str) -> None:
        """Raise a clear error if it was the Host that refused; return if the command ran and failed by itself."""
        container = f"env container {self._container}"
        docker = self.get_option("docker_command")
        inspect = ["container", "inspect", "--format={{.State.Status}}", self._container]
        code, stdout, stderr = self._on_host([*docker, *inspect], None)
        status = to_text(stdout).strip().rpartition("\n")[2]
        if code == 0 and status != "running":
            raise AnsibleConnectionFailure(
                f"The {container} on {self._host} is {status}, and tasks need a running one. "
                f"Start it there: haku.river.haku_container with name={self._container} and state=started."
            )
        if code == 0 and f'exec: "{SHELL}"' in words:
            raise AnsibleConnectionFailure(
                f"The {container} on {self._host} has no {SHELL}: {words}. Choose an image with a shell."
            )
        if code == 0 and re.search(r"unable to find user|no matching entries in passwd", words):
            raise AnsibleConnectionFailure(
                f"The {container} on {self._host} has no user {self.get_option('remote_user')}: {words}. "
                "Correct ansible_haku_user."
            )
        if code == 0:
            return
        refusal = to_text(stderr or stdout).strip()
        if re.search(r"no such (container|object)|no container with name", refusal, re.IGNORECASE):
            raise AnsibleConnectionFailure(
                f"There is no {container} on {self._host}. Create it: the playbook haku.river.create makes those of "
                "haku_environments, and the module haku.river.haku_container makes any."
            )
        raise AnsibleConnectionFailure(
            f"{shlex.join(docker)!r} on {self._host} does not reach an engine: {refusal}. Start the engine, let the "
            "Host's user use it, or set for the Host ansible_become, or ansible_haku_docker_command (for example to "
            "['sudo', '-n', 'docker'])."
        )

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of the controller into the container."""
        super().put_file(in_path, out_path)
        self._connect()
        display.vvv(f"PUT {in_path} TO {out_path}", host=self._container)
        if not Path(in_path).exists():
            raise AnsibleFileNotFound(f"There is no file {in_path!r} to copy into {self._container}.")
        with Path(in_path).open("rb") as source:
            sent, arrived = self._send(source, out_path)
        if arrived != sent:
            raise AnsibleError(f"Of {in_path}, {arrived} of {sent} bytes arrived in {self._container}. Try again.")

    def _send(self, source: BinaryIO, path: str) -> tuple[int, int]:
        """Write `source` to `path` in the container; return the bytes sent and those that are there."""
        target = shlex.quote(to_text(path, errors="surrogate_or_strict"))
        sent = 0
        while True:
            part = source.read(PART)
            # Each part has its place, so that a connection that sends one twice (the ssh plugin does, where retries
            # are set) does no harm. The first one makes the file, and empties the one that was there.
            commands = [f"dd of={target} bs={BLOCK} seek={sent // BLOCK} conv=notrunc"] if part else []
            if not sent:
                commands.insert(0, f": >{target}")
            if len(part) < PART:
                commands.append(f"wc -c <{target}")
            stdout = self._file_command(" && ".join(commands), f"write {path}", part or None)
            sent += len(part)
            if len(part) < PART:
                return sent, int(stdout)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of the container to the controller."""
        super().fetch_file(in_path, out_path)
        self._connect()
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self._container)
        source = shlex.quote(to_text(in_path, errors="surrogate_or_strict"))
        skip, count = 0, PART // BLOCK
        with Path(out_path).open("wb") as target:
            while True:
                command = f"dd if={source} bs={BLOCK} skip={skip} count={count}"
                part = self._file_command(command, f"read {in_path}")
                target.write(part)
                if len(part) < PART:
                    return
                skip += count

    def _file_command(self, command: str, purpose: str, in_data: bytes | None = None) -> bytes:
        code, stdout, stderr = self._exec(command, in_data)
        if code:
            reason = to_text(stderr or stdout).strip()
            raise AnsibleError(f"Could not {purpose} in the env container {self._container} on {self._host}: {reason}")
        return stdout

    def reset(self) -> None:
        """Nothing outlives a command: each is a session of its own in the container."""
        self.close()

    def close(self) -> None:
        """Let go of the Host."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None
        self._connected = False


def _inner_name(via: dict[str, Any]) -> str:
    """The Host's connection plugin: its variable, else the command line's or the configuration's, else SSH."""
    if not via:
        return "ansible.builtin.local"
    candidates = (via.get("ansible_connection"), context.CLIARGS.get("connection"), constants.DEFAULT_TRANSPORT)
    return next((name for name in candidates if name and name not in (OWN_NAME, "smart")), "ansible.builtin.ssh")


def _host_become(via: dict[str, Any], play_context: Any) -> Any:
    """The plugin by which the Host's user becomes one who may use the engine, if that is wanted."""
    if not via or not boolean(via.get("ansible_become", context.CLIARGS.get("become")) or False):
        return None
    name = via.get("ansible_become_method") or constants.DEFAULT_BECOME_METHOD
    become = become_loader.get(name)
    if become is None:
        raise AnsibleError(f"The become plugin {name!r}, which ansible_become_method names, was not found.")
    become.set_options(task_keys={"become_pass": play_context.become_pass}, var_options=via)
    return become
