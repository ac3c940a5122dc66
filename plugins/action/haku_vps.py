# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of haku_vps: keys that lie there, and how the machine is reached from there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is untyped for users
    """Reads and makes keys, and has the module do the rest."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the keys that its options `key_file` and `generate_key` lead to."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        keys = arguments.get("authorized_keys") or []
        # Read as a list, the text of one key would be split at the commas of its options.
        keys = [keys] if isinstance(keys, str) else list(keys)
        key_file, private_key = arguments.pop("key_file", None), arguments.pop("generate_key", None)
        made = False
        if key_file:
            keys.append(self._read(key_file))
        # Once sent, it would stand in the result and in the machine's journal.
        if any("PRIVATE KEY" in str(key) for key in keys):
            raise AnsibleActionFail(
                "authorized_keys or key_file has a private key. "
                "Give the public one, usually the file that ends in .pub."
            )
        if private_key:
            private_key = Path(self._loader.path_dwim(private_key))
            made = not private_key.exists()
            keys.append(self._public_key(private_key))
        if key_file or private_key or "authorized_keys" in arguments:
            arguments["authorized_keys"] = keys
        if not arguments.get("host") and not arguments.get("address"):
            arguments["host"] = self._address()
        wrap_async = self._task.async_val and not self._connection.has_native_async
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=wrap_async))
        if private_key and not result.get("failed"):
            result["private_key_file"] = str(private_key)
            result["changed"] = bool(result.get("changed") or made)
            result["actions"] = [*([f"make the key pair {private_key}"] if made else []), *result.get("actions", [])]
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _address(self) -> str:
        """By what Ansible reaches the machine, or the one that the task is delegated to."""
        try:
            address = self._connection.get_option("host")
        except (KeyError, AnsibleError):
            # A connection that goes nowhere has no such option.
            address = None
        return str(address or self._play_context.remote_addr)

    def _read(self, file: str) -> str:
        try:
            return Path(self._find_needle("files", file)).read_text(encoding="utf-8")
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            raise AnsibleActionFail(f"key_file {file} cannot be read on the controller: {error}") from error

    def _public_key(self, private_key: Path) -> str:
        """The public key that goes with a file, made if it is not there; a check makes one for itself alone."""
        if private_key.exists():
            return _public_half(private_key)
        with TemporaryDirectory(dir=None if self._task.check_mode else _made(private_key.parent)) as scratch:
            new = Path(scratch, "key")
            _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", f"haku.river {private_key.name}", "-f", str(new))
            if not self._task.check_mode:
                _move_into_place(new, private_key)
            return _public_half(new if self._task.check_mode else private_key)


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AnsibleActionFail(f"The directory {directory} for generate_key cannot be made: {error}") from error
    return directory


def _move_into_place(new: Path, private_key: Path) -> None:
    """Give a new pair its names, unless somebody else (a task for another machine) was faster."""
    try:
        give_name(new, private_key)
    except FileExistsError:
        return
    except OSError as error:
        raise AnsibleActionFail(f"The private key {private_key} cannot be written: {error.strerror}") from error
    new.with_suffix(".pub").replace(private_key.with_name(f"{private_key.name}.pub"))


def give_name(new: Path, private_key: Path) -> None:
    """Make it appear as a whole, and never in the place of another one; where there are no links, at once at least."""
    try:
        os.link(new, private_key)
    except FileExistsError:
        raise
    except OSError:
        descriptor = os.open(private_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(new.read_bytes())


def _public_half(private_key: Path) -> str:
    public_key = private_key.with_name(f"{private_key.name}.pub")
    if public_key.exists():
        return public_key.read_text(encoding="utf-8")
    return _ssh_keygen("-y", "-P", "", "-f", str(private_key))


def _ssh_keygen(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise AnsibleActionFail("generate_key needs ssh-keygen on the controller. Install OpenSSH's client.") from error
    except subprocess.CalledProcessError as error:
        raise AnsibleActionFail(f"ssh-keygen cannot make or read {arguments[-1]}: {error.stderr.strip()}") from error
    return done.stdout
