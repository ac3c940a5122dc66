# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of a VPS: what may log in, and by what people know the machine."""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.action.haku_vps import give_name
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.vps_keys import (
    HOST_KEY,
    check_read_by_controller,
    described_key,
    fingerprint,
    known_hosts_line,
    own_host_key,
    parse_keys,
    public_key,
    read_keys,
    written_keys,
)
from ansible_collections.haku.river.plugins.module_utils.vps_variables import profile, session_file

# Made by ssh-keygen, which also told the fingerprint.
ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMMqqCXqIgLXnRXWX9gjW2yVfBs9ctOqbgEGv3RnZfCz alice@laptop"
BLOB = base64.b64decode(ALICE.split()[1])


def other(kind: str) -> str:
    """A key of another type, as far as its form goes."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + bytes(range(32))
    return f"{kind} {base64.b64encode(blob).decode()}"


def test_texts_of_several_lines_become_keys_each_once() -> None:
    text = f"# two people\n\n{ALICE}\r\n  {other('ssh-rsa')} bob \n"
    assert parse_keys([text, ALICE]) == (ALICE, f"{other('ssh-rsa')} bob")


@pytest.mark.parametrize(
    "line",
    [
        ALICE,
        other("ecdsa-sha2-nistp256"),
        other("sk-ssh-ed25519@openssh.com"),
        f'from="192.0.2.0/24,10.0.0.0/8",no-pty {ALICE}',
        f'command="echo \\"a b\\"" {ALICE}',
        f"restrict\t{ALICE}",
    ],
)
def test_lines_of_authorized_keys_are_taken_as_they_are(line: str) -> None:
    assert parse_keys([line]) == (line,)


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "ssh-ed25519",
        "ssh-ed25519 not-base64!",
        "ssh-ed25519 AAAA",
        ALICE.replace("ssh-ed25519", "ssh-rsa"),
        f'command="echo {ALICE}',
        f"{ALICE}\0",
        "hunter2 hunter2 hunter2",
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(line: str) -> None:
    with pytest.raises(HakuError, match="Line 2 of authorized_keys is not a public key") as caught:
        parse_keys([ALICE, line])
    assert line not in str(caught.value).replace("ssh-ed25519 AAAA… name", "")


def test_a_private_key_is_refused_without_showing_it() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(HakuError, match=r"authorized_keys has a private key\. Give the public one") as caught:
        parse_keys([text])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("texts", [[], [""], ["# nobody\n\n"]])
def test_no_key_at_all_is_refused(texts: list[str]) -> None:
    with pytest.raises(HakuError, match="nobody could log in"):
        parse_keys(texts)


def test_what_is_written_is_read_again() -> None:
    keys = (ALICE, f"{other('ssh-rsa')} bob")
    assert read_keys(written_keys(keys)) == keys
    assert read_keys(b"\xff\n" + ALICE.encode()) == ("\ufffd", ALICE)


def test_a_key_is_described_by_its_fingerprint_and_its_name() -> None:
    assert described_key(ALICE) == f"{fingerprint(BLOB)} alice@laptop"
    assert described_key(f'from="a b" {ALICE}') == f"{fingerprint(BLOB)} alice@laptop"
    assert described_key(" ".join(ALICE.split()[:2])) == f"{fingerprint(BLOB)} ssh-ed25519"
    assert described_key("nonsense") == "not a key"


def test_a_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(BLOB) == "SHA256:g4S8MWqfP0Np1TyAV5hKpXGIO5DoZ3JR59tlCsBozpA"


def test_the_usual_port_is_not_written_into_known_hosts() -> None:
    key = public_key(ALICE)
    assert key is not None
    encoded = ALICE.split()[1]
    assert known_hosts_line("gpu01", 22, *key) == f"gpu01 ssh-ed25519 {encoded}"
    assert known_hosts_line("gpu01", 22000, *key) == f"[gpu01]:22000 ssh-ed25519 {encoded}"


def test_host_keys_that_come_with_an_image_are_emptied_and_those_of_the_former_machine_put_in() -> None:
    there = {"sshd_config": b"x", HOST_KEY: b"image", f"{HOST_KEY}.pub": b"image", "ssh_host_rsa_key": b"image"}
    assert own_host_key(there, {}) == {HOST_KEY: b"", f"{HOST_KEY}.pub": b"", "ssh_host_rsa_key": b""}
    former = {HOST_KEY: b"own", f"{HOST_KEY}.pub": b"own.pub", "sshd_config": b"y"}
    assert own_host_key(there, former) == {HOST_KEY: b"own", f"{HOST_KEY}.pub": b"own.pub", "ssh_host_rsa_key": b""}
    assert own_host_key({"sshd_config": b"x"}, {}) == {}


@pytest.mark.parametrize(("key_file", "generate_key"), [("a.pub", None), (None, "a")])
def test_a_file_of_the_controller_that_gets_as_far_as_the_module_is_an_error(
    key_file: str | None, generate_key: str | None
) -> None:
    check_read_by_controller(None, None)
    with pytest.raises(HakuError, match="is a file on the controller"):
        check_read_by_controller(key_file, generate_key)


def test_variables_reach_sessions_as_they_are() -> None:
    variables = ["PATH=/opt/conda/bin:/bin", 'QUOTE=it\'s "$HOME"', "LINES=a\nb", "EMPTY=", "HOME=/x", "A-B=c", "=x"]
    assert session_file(variables) == b'PATH=/opt/conda/bin:/bin\nQUOTE=it\'s "$HOME"\nEMPTY=\n'
    assert profile(variables).decode().splitlines() == [
        "export PATH=/opt/conda/bin:/bin",
        """export QUOTE='it'"'"'s "$HOME"'""",
        "export LINES='a",
        "b'",
        "export EMPTY=''",
    ]


def _no_links(*_paths: Path) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False])
def test_a_new_private_key_is_its_owners_alone_and_never_in_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)  # as on a memory stick, whose file system has none
    new, other, private = (tmp_path / name for name in ("new", "other", "private"))
    new.write_text("first")
    new.chmod(0o600)
    give_name(new, private)
    assert (private.read_text(), stat.S_IMODE(private.stat().st_mode)) == ("first", 0o600)
    other.write_text("second")
    with pytest.raises(FileExistsError):
        give_name(other, private)
    assert private.read_text() == "first"
