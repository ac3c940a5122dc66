# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packaging, on real engines."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.marks import NEEDS_PAUSE, not_on
from tests.integration.modules import converge, fail, result_of, start_module, succeed, until
from tests.lab.engines import PODMAN, RELEASES
from tests.lab.host import require, run
from tests.tarballs import document


def test_a_package_is_forecast_published_and_not_repeated(environment: Environment) -> None:
    environment.execute("echo hello > /greeting")
    seen = converge("haku_tar", **environment.options)
    assert seen.first["published"]
    assert seen.first["versions"] == environment.versions == [seen.first["version"]]
    assert seen.first["diff"] == {"before": {"versions": []}, "after": {"versions": environment.versions}}
    assert seen.second["version"] == seen.first["version"]
    assert environment.running
    assert environment.references == [environment.image_of(seen.first["version"])]
    assert environment.dangling == []
    assert environment.leftovers == []


def test_a_change_is_published_as_a_newer_version_and_the_older_goes(environment: Environment) -> None:
    first = succeed("haku_tar", **environment.options)
    environment.execute("echo hello > /greeting")
    seen = converge("haku_tar", **environment.options)
    assert seen.first["version"] > first["version"]
    assert seen.first["removed"] == [first["version"]]
    assert environment.versions == [seen.first["version"]]


@not_on(*PODMAN, reason="its service tells nothing of what has been; the next test looks at the container instead")
@pytest.mark.parametrize("rebase", [True, False])
def test_the_container_is_away_for_the_commit_only(environment: Environment, rebase: bool) -> None:
    began = environment.engine.docker("info", "--format", "{{.SystemTime}}").strip()
    result = succeed("haku_tar", **environment.options, rebase=rebase)
    ended = environment.engine.docker("info", "--format", "{{.SystemTime}}").strip()
    told = environment.engine.docker("events", "--since", began, "--until", ended, "--format", "{{json .}}")
    events = [json.loads(line) for line in told.splitlines()]
    own = [event for event in events if event["Type"] == "container" and name_of(event) in named(environment.name)]
    # The window opens at a full second, so the container's first start may be in it.
    actions = [event["Action"] for event in own]
    packaging = own[actions.index("die") :]
    life = [event for event in packaging if event["Action"] in ("die", "start")]
    assert [event["Action"] for event in life] == ["die", "start"]
    away_seconds = (life[-1]["timeNano"] - life[0]["timeNano"]) / 1e9
    assert 0 < away_seconds <= result["away_seconds"] < result["seconds"]
    written_at = environment.tarball(result["version"]).stat().st_mtime_ns
    assert written_at > life[-1]["timeNano"]


@not_on(*RELEASES, reason="their events show it, and for how long the container is away")
@pytest.mark.parametrize("rebase", [True, False])
def test_the_container_runs_again_before_its_tarball_is_written(environment: Environment, rebase: bool) -> None:
    before = environment.inspect(environment.name)["State"]["StartedAt"]
    result = succeed("haku_tar", **environment.options, rebase=rebase)
    after = environment.inspect(environment.name)["State"]["StartedAt"]
    assert after != before
    written_at = environment.tarball(result["version"]).stat().st_mtime
    assert datetime.fromisoformat(after).timestamp() < written_at
    assert 0 < result["away_seconds"] < result["seconds"]


def name_of(event: dict[str, Any]) -> str:
    return str(event["Actor"]["Attributes"]["name"])


def named(name: str) -> tuple[str, str]:
    """The names that an env container has while it is packaged."""
    return (name, f"{name}.FORMER")


@NEEDS_PAUSE
def test_pausing_keeps_the_processes(environment: Environment) -> None:
    started_at = environment.inspect(environment.name)["State"]["StartedAt"]
    environment.execute("echo hello > /greeting")
    result = succeed("haku_tar", **environment.options, consistency="pause")
    assert result["published"]
    assert result["away_seconds"] == 0
    state = environment.inspect(environment.name)["State"]
    assert (state["StartedAt"], state["Status"]) == (started_at, "running")


@pytest.mark.parametrize(
    ("command", "rebase", "state"),
    [("stop", False, "exited"), ("stop", True, "created"), ("pause", False, "paused"), ("pause", True, "paused")],
)
def test_a_container_that_does_not_run_is_not_started(
    one_environment: Environment, command: str, rebase: bool, state: str
) -> None:
    one_environment.engine.docker(command, one_environment.name)
    seen = converge("haku_tar", **one_environment.options, rebase=rebase)
    assert seen.first["published"]
    assert one_environment.inspect(one_environment.name)["State"]["Status"] == state


def test_the_newest_three_are_kept(one_environment: Environment) -> None:
    made = []
    for number in range(5):
        one_environment.execute(f"echo {number} > /number")
        made.append(succeed("haku_tar", **one_environment.options, keep=3)["version"])
    assert one_environment.versions == made[:1:-1]
    assert converge("haku_tar", **one_environment.options, keep=2).first["removed"] == [made[2]]


def test_one_version_or_all_are_removed(one_environment: Environment) -> None:
    for number in range(3):
        one_environment.execute(f"echo {number} > /number")
        succeed("haku_tar", **one_environment.options, keep=3)
    newest, middle, oldest = one_environment.versions
    options = {**one_environment.options, "state": "absent"}
    assert converge("haku_tar", **options, version=middle).first["removed"] == [middle]
    assert one_environment.versions == [newest, oldest]
    assert converge("haku_tar", **options).first["removed"] == [newest, oldest]
    assert one_environment.versions == []
    assert one_environment.running


def test_what_only_the_container_meant_stays_out_of_the_image(environment: Environment) -> None:
    succeed("haku_tar", **environment.options)
    environment.execute("echo more > /more")
    succeed("haku_tar", **environment.options)
    tarball = environment.tarball(environment.versions[0])
    (manifest,) = document(tarball, "manifest.json")
    config = document(tarball, manifest["Config"])["config"]
    image = environment.inspect(environment.name)["Config"]["Labels"]["haku.river.image"]
    base = environment.inspect(image)["Config"]
    assert config.get("Cmd") == base.get("Cmd")
    assert "Labels" not in config
    assert manifest["RepoTags"] == [environment.image]


def test_tools_that_know_no_engine_read_the_tarball(environment: Environment, tmp_path: Path) -> None:
    require("skopeo")
    version = succeed("haku_tar", **environment.options)["version"]
    source = f"docker-archive:{environment.tarball(version)}"
    config = json.loads(run("skopeo", "inspect", "--config", source))
    assert config["rootfs"]["diff_ids"] == environment.inspect(environment.image_of(version))["RootFS"]["Layers"]
    run("skopeo", "--insecure-policy", "copy", source, f"dir:{tmp_path}/copy")  # checks every digest


def test_an_unlabelled_container_is_packaged_only_if_asked(one_environment: Environment) -> None:
    image = one_environment.inspect(one_environment.name)["Config"]["Image"]
    one_environment.engine.docker("rm", "--force", one_environment.name)
    one_environment.create(image, "--label", "somebody=else")
    sentence = fail("haku_tar", **one_environment.options)
    assert "has no labels haku.river.managed=true" in sentence
    assert "adopt: true" in sentence
    assert succeed("haku_tar", **one_environment.options, adopt=True)["published"]


def test_a_container_that_would_be_lost_is_not_stopped(one_environment: Environment) -> None:
    image = one_environment.inspect(one_environment.name)["Config"]["Image"]
    one_environment.engine.docker("rm", "--force", one_environment.name)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={one_environment.name}")
    one_environment.create(image, "--rm", *labels)
    assert "consistency: pause" in fail("haku_tar", **one_environment.options)
    assert succeed("haku_tar", **one_environment.options, consistency="pause")["published"]
    assert one_environment.running


def test_a_missing_container_is_named_with_the_remedy(one_environment: Environment) -> None:
    sentence = fail("haku_tar", **{**one_environment.options, "name": "nobody"})
    assert sentence.startswith("There is no container nobody to package.")
    assert "haku_container" in sentence


@pytest.mark.parametrize("name", ["../x", "a b", "A", "x;rm -rf"])
@pytest.mark.parametrize("module", ["haku_tar", "haku_sync"])
def test_a_name_against_the_rule_is_refused_with_the_rule(module: str, name: str, tmp_path: Path) -> None:
    assert "a name is made of lower-case letters and digits" in fail(module, name=name, shared_dir=str(tmp_path))


@pytest.mark.parametrize("module", ["haku_tar", "haku_sync"])
def test_a_missing_shared_directory_is_named(one_environment: Environment, module: str) -> None:
    options = {**one_environment.options, "shared_dir": "/nowhere"}
    for check in (True, False):
        assert fail(module, check=check, **options).startswith("There is no directory /nowhere. Mount the shared")


@pytest.mark.parametrize("module", ["haku_tar", "haku_sync"])
def test_an_engine_that_does_not_answer_is_named_with_its_words(one_environment: Environment, module: str) -> None:
    options = {**one_environment.options, "docker_host": "unix:///nowhere.sock"}
    sentence = fail(module, **options)
    assert "unix:///nowhere.sock (as named): No such file or directory" in sentence


@pytest.fixture
def read_only(one_environment: Environment) -> Iterator[Environment]:
    succeed("haku_tar", **one_environment.options)
    run("mount", "--bind", one_environment.shared, one_environment.shared)
    run("mount", "--options", "remount,bind,ro", one_environment.shared)
    yield one_environment
    run("umount", one_environment.shared)


def test_a_read_only_directory_is_told_before_anything_is_stopped(read_only: Environment) -> None:
    started_at = read_only.inspect(read_only.name)["State"]["StartedAt"]
    for check in (True, False):
        for state in ("present", "absent"):
            sentence = fail("haku_tar", check=check, **read_only.options, state=state)
            assert f"Cannot write into {read_only.tarballs}: Read-only file system" in sentence
    assert read_only.inspect(read_only.name)["State"]["StartedAt"] == started_at


@pytest.fixture
def small_disk(one_environment: Environment) -> Iterator[Environment]:
    run("mount", "-t", "tmpfs", "-o", "size=5m", "none", one_environment.tarballs)
    yield one_environment
    run("umount", one_environment.tarballs)


def test_a_full_disk_loses_nothing(small_disk: Environment) -> None:
    former = succeed("haku_tar", **small_disk.options)["version"]
    small_disk.execute("dd if=/dev/zero of=/large bs=1M count=4 2>/dev/null")
    container = small_disk.inspect(small_disk.name)["Id"]
    sentence = fail("haku_tar", **small_disk.options)
    assert "No space left on device" in sentence
    assert str(small_disk.tarballs) in sentence
    assert small_disk.versions == [former]
    assert small_disk.leftovers == []
    assert small_disk.references == [small_disk.image_of(former)]
    assert small_disk.inspect(small_disk.name)["Id"] == container
    assert small_disk.running


def test_a_version_from_the_future_is_a_clear_error(one_environment: Environment) -> None:
    future = int(time.time()) + 3600
    one_environment.tarball(future).touch()
    sentence = fail("haku_tar", **one_environment.options)
    assert "is from the future" in sentence
    assert str(future) in sentence
    assert one_environment.running


def test_a_damaged_newest_version_is_replaced_with_a_warning(one_environment: Environment) -> None:
    one_environment.tarball(1767225600).write_bytes(b"no tar")
    result = succeed("haku_tar", **one_environment.options)
    assert result["published"]
    assert "it is no tar archive" in str(result["warnings"])


def test_a_packager_killed_while_the_container_is_away_brings_it_back(environment: Environment) -> None:
    with start_module("haku_tar", **environment.options) as packager:
        until(lambda: not environment.running)
        packager.send_signal(signal.SIGKILL)
    until(lambda: environment.running)
    assert environment.versions == []
    result = succeed("haku_tar", **environment.options)
    assert environment.references == [environment.image_of(result["version"])]


def test_the_next_package_cleans_up_after_one_killed_while_writing(one_environment: Environment) -> None:
    one_environment.execute("dd if=/dev/zero of=/large bs=1M count=200 2>/dev/null")
    with start_module("haku_tar", **one_environment.options) as packager:
        until(lambda: one_environment.leftovers)
        packager.send_signal(signal.SIGKILL)
    assert one_environment.leftovers
    assert one_environment.versions == []
    assert one_environment.running
    assert one_environment.references != []
    result = succeed("haku_tar", **one_environment.options)
    assert one_environment.leftovers == []
    assert one_environment.references == [one_environment.image_of(result["version"])]
    assert one_environment.dangling == []


def test_an_image_of_this_second_keeps_its_name(one_environment: Environment) -> None:
    """A package that was killed may have left it, or one into another directory."""
    engine, this_second = one_environment.engine, int(time.time()) + 1
    left = one_environment.image_of(this_second)
    engine.docker("commit", one_environment.name, left)
    user = engine.docker("create", left).strip()
    try:
        image = one_environment.inspect(left)["Id"]
        result = succeed("haku_tar", **one_environment.options)
        assert result["version"] > this_second
        assert one_environment.references == [left, one_environment.image_of(result["version"])]
        assert one_environment.inspect(left)["Id"] == image
    finally:
        engine.docker("rm", user)


def test_two_packagers_at_once_take_turns(one_environment: Environment) -> None:
    one_environment.execute("echo hello > /greeting")
    with (
        start_module("haku_tar", **one_environment.options) as one,
        start_module("haku_tar", **one_environment.options) as other,
    ):
        results = [result_of(process) for process in (one, other)]
    assert sorted(result["published"] for result in results) == [False, True]
    assert len(one_environment.versions) == 1
    assert one_environment.running
    assert one_environment.leftovers == []


def test_a_directory_that_was_only_looked_into_is_no_change(environment: Environment) -> None:
    succeed("haku_tar", **environment.options)
    environment.execute("mkdir /srv; touch /srv/file; rm -r /srv; touch /bin/file; rm /bin/file")
    seen = converge("haku_tar", **environment.options)
    assert not seen.first["changed"]
    environment.execute("chmod 700 /bin")
    assert converge("haku_tar", **environment.options).first["published"]
