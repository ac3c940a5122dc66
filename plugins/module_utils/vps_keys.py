# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of a VPS: those that may log in, and the one by which people know the machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError

HOST_KEY = "ssh_host_ed25519_key"
SSH_DIRECTORY = "/etc/ssh"
AUTHORIZED_KEYS = "authorized_keys"
LOGIN_DIRECTORY = "/root/.ssh"

_HEADING = "# Written by haku.river.haku_vps; what is added here by hand is lost when keys are given to it.\n"
_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+")
# sshd(8), AUTHORIZED_KEYS FILE FORMAT: options have no spaces but in double quotes.
_OPTIONS = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')
_ANY_HOST_KEY = re.compile(r"ssh_host_[A-Za-z0-9_]+_key")


def parse_keys(texts: Iterable[str]) -> tuple[str, ...]:
    """The lines of authorized_keys that the texts have, each once; `HakuError` for one that is no public key.

    Errors never show a line: it may be a private key.
    """
    lines = [line.strip() for text in texts for line in text.splitlines()]
    keys = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    for number, key in enumerate(keys, 1):
        if "PRIVATE KEY" in key:
            raise HakuError(
                "authorized_keys has a private key", remedy="Give the public one, usually the file that ends in .pub"
            )
        if public_key(key) is None:
            raise HakuError(
                f"Line {number} of authorized_keys is not a public key",
                remedy="It looks like this: ssh-ed25519 AAAA… name",
            )
    if not keys:
        raise HakuError("authorized_keys has no key, so nobody could log in", remedy="Give at least one public key")
    return keys


def check_read_by_controller(key_file: str | None, generate_key: str | None) -> None:
    """Raise `HakuError` for options that the action plugin has to turn into keys, and that get as far as a module."""
    named = "key_file" if key_file else "generate_key" if generate_key else None
    if named:
        raise HakuError(
            f"{named} is a file on the controller, where the action plugin of haku_vps did not run",
            remedy="Call the module haku.river.haku_vps, or set action_plugins beside library in ansible.cfg",
        )


def public_key(line: str) -> tuple[str, bytes] | None:
    """The type and the blob of a public key in a line of authorized_keys or of a .pub file; None if it is none."""
    if any(ord(character) < 32 and character != "\t" for character in line):
        return None
    if not _KEY_TYPE.match(line):
        options = _OPTIONS.match(line)
        line = line[options.end() :].lstrip() if options else ""
    words = line.split(None, 2)
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (ValueError, binascii.Error):
        return None
    kind = words[0].encode()
    return (words[0], blob) if blob.startswith(len(kind).to_bytes(4, "big") + kind) else None


def written_keys(keys: Iterable[str]) -> bytes:
    """The content of authorized_keys."""
    return (_HEADING + "".join(f"{key}\n" for key in keys)).encode()


def read_keys(content: bytes) -> tuple[str, ...]:
    """The keys in the content of authorized_keys, whoever wrote it."""
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def described_key(line: str) -> str:
    """A key as people compare them: its fingerprint, and the name at its end."""
    found = public_key(line)
    if found is None:
        return "not a key"
    kind, blob = found
    name = line.split(base64.b64encode(blob).decode(), 1)[-1].strip()
    return f"{fingerprint(blob)} {name or kind}"


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` has it: the SHA-256 in base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def known_hosts_line(host: str, port: int, kind: str, blob: bytes) -> str:
    """The line by which `ssh` knows the machine; sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
    place = host if port == 22 else f"[{host}]:{port}"
    return f"{place} {kind} {base64.b64encode(blob).decode()}"


def own_host_key(there: Mapping[str, bytes], former: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files to put into /etc/ssh of a new VPS so that its host keys are those of the former one, or of its own.

    `there` are the files that its image has, `former` those of the machine that it replaces. A key that comes with
    the image is one that other machines have too. It is emptied, and the empty file removed when the machine starts.
    """
    files = {}
    for name in there:
        if _ANY_HOST_KEY.fullmatch(name.removesuffix(".pub")):
            files[name] = b""
    for name in (HOST_KEY, f"{HOST_KEY}.pub"):
        if former.get(name):
            files[name] = former[name]
    return files
