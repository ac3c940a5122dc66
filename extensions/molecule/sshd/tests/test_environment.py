# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment is ready for machines that root enters by key alone, each with host keys of its own."""

from __future__ import annotations

import shlex

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://haku_host"]
ENVIRONMENT = "molecule-sshd"


def inside(host: Host, command: str) -> list[str]:
    """Run a shell command in the environment on the Host and return the lines of its output."""
    output: str = host.check_output("docker exec %s sh -c %s", ENVIRONMENT, command)
    return output.splitlines()


@pytest.mark.parametrize(
    "setting",
    [
        "authenticationmethods publickey",
        "clientaliveinterval 60",
        "kbdinteractiveauthentication no",
        "passwordauthentication no",
        "permitrootlogin without-password",
        "pubkeyauthentication yes",
    ],
)
def test_the_setting_holds_for_root(host: Host, setting: str) -> None:
    key = "/dev/shm/key"
    ask = f"ssh-keygen -q -t ed25519 -N '' -f {key}; sshd -T -h {key} -C user=root,host=h,addr=::1; rm {key}*"
    assert setting in inside(host, ask)


def test_there_are_no_host_keys(host: Host) -> None:
    assert inside(host, "find / -xdev -name 'ssh_host_*'") == []


@pytest.mark.parametrize(("path", "mode"), [("/run/sshd", "755"), ("/root/.ssh", "700")])
def test_the_directory_has_safe_modes(host: Host, path: str, mode: str) -> None:
    assert inside(host, f"stat -c '%a %U' {shlex.quote(path)}") == [f"{mode} root"]


def test_root_has_no_password_and_is_not_locked(host: Host) -> None:
    assert inside(host, "getent shadow root | cut -d: -f2") == ["*"]


def test_no_sshd_runs(host: Host) -> None:
    assert not host.check_output("docker top %s", ENVIRONMENT).count("sshd")
