# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Smoke tests, on real engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT
from tests.integration.modules import Result, run_module, succeed
from tests.lab.engines import PODMAN

pytestmark = ITS_NEIGHBOURS_SHOW_IT


@dataclass(frozen=True)
class Tried:
    """An environment whose image is the base image."""

    environment: Environment

    def run(self, command: str | list[str], check: bool = False, **options: Any) -> Result:
        """Run a smoke test, after which no container may be left."""
        asked = {"name": self.environment.name, "docker_host": self.environment.engine.url, **options}
        result = run_module("haku_smoke_test", check=check, command=command, **asked)
        assert self.containers == []
        return result

    @property
    def containers(self) -> list[str]:
        """What there is of containers of smoke tests."""
        name = f"name={self.environment.name}.smoke-test"
        return self.environment.engine.docker("ps", "--all", "--quiet", "--filter", name).split()


@pytest.fixture
def tried(environment: Environment, busybox: str) -> Tried:
    environment.engine.docker("tag", busybox, environment.image)
    return Tried(environment)


def test_a_command_that_ends_with_0_passes(tried: Tried) -> None:
    for command in ("test -d /root && echo hello", ["echo", "hello"]):
        result = tried.run(command)
        assert not result.get("failed"), result
        assert (result["changed"], result["passed"], result["rc"], result["output"]) == (False, True, 0, "hello")
        assert result["image"] == tried.environment.image


def test_a_command_that_ends_otherwise_fails_with_its_last_line(tried: Tried) -> None:
    result = tried.run("echo one; echo two >&2; exit 3")
    assert (result["failed"], result["passed"], result["rc"]) == (True, False, 3)
    assert sorted(result["output"].split()) == ["one", "two"]
    assert f"The smoke test of {tried.environment.name} failed in {tried.environment.image}" in result["msg"]
    assert "ended with 3: " in result["msg"]


@pytest.mark.parametrize(
    ("command", "code"), [(["python3", "-V"], 127), (["/etc/passwd"], 126)], ids=["not there", "not a program"]
)
def test_a_command_that_the_image_cannot_run_fails_like_any_other(tried: Tried, command: list[str], code: int) -> None:
    result = tried.run(command)
    # Podman's init has one code for all that it cannot start, and does not say what that was.
    on_podman = tried.environment.engine.name in PODMAN
    assert (result["failed"], result["passed"], result["rc"]) == (True, False, 1 if on_podman else code)
    assert ("failed to exec pid1" if on_podman else command[0]) in result["msg"]


def test_a_command_that_does_not_end_in_time_fails(tried: Tried) -> None:
    result = tried.run("echo begun; sleep 600", test_timeout=5)
    assert (result["failed"], result["passed"], result["rc"]) == (True, False, None)
    assert "did not end within 5 s: begun" in result["msg"]


def test_it_has_no_network_and_only_the_mounts_that_are_asked_for(tried: Tried) -> None:
    assert tried.run("ls /sys/class/net")["output"].split() == ["lo"]
    read_only = "/etc/debian_version:/mnt:ro"
    assert tried.run("test -s /mnt && ! touch /mnt 2>/dev/null", volumes=[read_only])["passed"]


def test_what_is_wrong_with_the_machine_is_not_taken_for_a_bad_image(tried: Tried) -> None:
    wrong: list[dict[str, Any]] = [{"network": "nowhere"}, {"name": "nobody"}, {"gpus": "all"}]
    for options in wrong:
        result = tried.run("true", **options)
        assert result["failed"], options
        assert "passed" not in result, options


def test_a_check_runs_nothing(tried: Tried) -> None:
    result = tried.run("exit 1", check=True)
    assert (result.get("failed"), result["passed"], result["rc"]) == (None, None, None)


def test_what_a_broken_connection_left_running_is_removed_by_the_next_test(tried: Tried) -> None:
    engine, image = tried.environment.engine, tried.environment.image
    managed = ("--label", "haku.river.managed=true")
    overdue = ("--label", "haku.river.smoke-test=1")
    left = engine.docker("run", "--detach", "--network=none", *managed, *overdue, image, "sleep", "600").strip()
    succeed("haku_smoke_test", name=tried.environment.name, docker_host=engine.url, command="true")
    assert left not in engine.docker("ps", "--all", "--quiet", "--no-trunc").split()
