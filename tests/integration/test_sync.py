# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Synchronising, on real engines."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive, local_path

from tests.integration.environment import Environment
from tests.integration.marks import ONE_PODMAN_SHOWS_IT
from tests.integration.modules import converge, fail, result_of, run_module, start_module, succeed, until
from tests.lab import images
from tests.lab.engines import RELEASES, Engine
from tests.tarballs import hand_made, tar_of


def package(environment: Environment, greeting: str) -> int:
    """Publish a version that says `greeting`, beside the others; the Host keeps no image of it."""
    environment.execute(f"echo {greeting} > /greeting")
    version: int = succeed("haku_tar", **environment.options, keep=9, rebase=False)["version"]
    return version


@pytest.mark.parametrize("source", RELEASES)
def test_a_tarball_of_every_engine_loads_on_every_engine(
    source: str, engines: dict[str, Engine], tmp_path: Path
) -> None:
    (tmp_path / "hakuriver-containers").mkdir()
    packaged = Environment(engines[source], f"matrix-{source}", tmp_path)
    packaged.create(images.provide(images.BUSYBOX, packaged.engine))
    # Its own name: tests beside this one have images on the same engines, and must not have this very layer.
    packaged.execute(f"mkdir /data && echo {packaged.name} > /data/name && rm -r /bin/cat && mkfifo /data/pipe")
    succeed("haku_tar", **packaged.options, rebase=False)
    packaged.engine.docker("rm", "--force", packaged.name)
    diff_ids = set()
    for engine in engines.values():
        synchronised = packaged.on(engine)
        assert converge("haku_sync", **synchronised.options).first["action"] == "load"
        diff_ids.add(tuple(synchronised.inspect(synchronised.image)["RootFS"]["Layers"]))
        said = synchronised.run_image("read word < /data/name; echo $word; ls -d /data/pipe").split()
        assert said == [packaged.name, "/data/pipe"]
        assert synchronised.references == [synchronised.image]
        engine.docker("image", "rm", synchronised.image)
    assert len(diff_ids) == 1


@pytest.mark.parametrize("source", RELEASES)
@pytest.mark.parametrize("named", [True, False], ids=["with RepoTags", "without RepoTags"])
def test_a_tarball_that_hakuriver_wrote_loads_on_every_engine(
    source: str, named: bool, engines: dict[str, Engine], podmans: dict[str, Engine], tmp_path: Path
) -> None:
    """HakuRiver commits, saves by tag or by ID, and names the tarball after its own clock."""
    (tmp_path / "hakuriver-containers").mkdir()
    packaged = Environment(engines[source], f"hakuriver-{source}-{'tagged' if named else 'untagged'}", tmp_path)
    packaged.create(images.provide(images.BUSYBOX, packaged.engine))
    packaged.execute(f"echo {packaged.name} > /name")
    image_id = packaged.engine.docker("commit", packaged.name, packaged.image).strip()
    saved = packaged.image if named else image_id
    packaged.engine.docker("save", "--output", packaged.tarball(1767225600), saved)
    packaged.engine.docker("rm", "--force", packaged.name)
    packaged.engine.docker("image", "rm", packaged.image)
    for engine in (*engines.values(), *podmans.values()):
        synchronised = packaged.on(engine)
        seen = converge("haku_sync", **synchronised.options)
        assert (seen.first["action"], seen.first["version"]) == ("load", 1767225600)
        assert seen.second["version"] == 1767225600
        assert synchronised.run_image("cat /name").strip() == packaged.name
        assert synchronised.references == [synchronised.image]
        engine.docker("image", "rm", synchronised.image)


def test_docker_load_reads_our_tarball(environment: Environment) -> None:
    version = package(environment, "hello")
    environment.engine.docker("load", "--input", environment.tarball(version))
    assert environment.run_image("cat /greeting").strip() == "hello"
    assert converge("haku_sync", **environment.options).first["action"] == "none"


@pytest.mark.parametrize("created", [None, "0001-01-01T00:00:00Z"], ids=["missing", "zero"])
def test_an_image_without_a_time_is_loaded_once_and_followed_by_the_next(
    engine: Engine, created: str | None, tmp_path: Path
) -> None:
    (tmp_path / "hakuriver-containers").mkdir()
    environment = Environment(engine, "timeless", tmp_path)
    files = tar_of({"greeting": b"one"}), tar_of({"greeting": b"two"})
    for newest, version in enumerate((1767225600, 1767225700), start=1):
        hand_made(*files[:newest], created=created).write(environment.tarball(version))
        run = converge("haku_sync", **environment.options)
        assert (run.first["action"], run.first["version"]) == ("load", version)
        assert len(environment.inspect(environment.image)["RootFS"]["Layers"]) == newest
    engine.docker("image", "rm", environment.image)


def test_with_nothing_to_do_no_byte_is_read(environment: Environment) -> None:
    package(environment, "hello")
    run = converge("haku_sync", **environment.options)
    assert run.first["bytes_read"] > 0
    assert run.second["bytes_read"] == 0


def test_a_pinned_version_goes_back_and_no_pin_comes_forth(environment: Environment) -> None:
    older, newer = package(environment, "one"), package(environment, "two")
    assert converge("haku_sync", **environment.options).first["version"] == newer
    back = converge("haku_sync", **environment.options, version=older)
    assert back.first["diff"] == {"before": {"version": newer}, "after": {"version": older}}
    assert environment.run_image("cat /greeting").strip() == "one"
    assert converge("haku_sync", **environment.options).first["version"] == newer
    assert environment.run_image("cat /greeting").strip() == "two"
    assert environment.references == [environment.image]
    assert environment.dangling == []


def test_a_former_image_in_use_stays(environment: Environment) -> None:
    package(environment, "one")
    succeed("haku_sync", **environment.options)
    former = environment.inspect(environment.image)["Id"]
    user = environment.engine.docker("create", environment.image, "true").strip()
    package(environment, "two")
    converge("haku_sync", **environment.options)
    assert environment.inspect(former)["Id"] == former
    environment.engine.docker("rm", user)
    environment.engine.docker("image", "rm", former)


def test_an_engine_lists_all_tags_but_one(environment: Environment) -> None:
    tags = ["b", "ba", "bas", "base", "bass", "base1", "base-2", "Base", "_a", "a.b", "dev", "1795", "sync-0-1"]
    for tag in tags:
        environment.engine.docker("tag", images.BUSYBOX.name, f"hakuriver/{environment.name}:{tag}")
    engine = connect(EngineSettings(environment.engine.url))
    for left_out in ("base", "a.b", "base-2"):
        listed = engine.images(f"hakuriver/{environment.name}", besides=left_out)
        there = {reference for image in listed for reference in image.tags}
        assert there >= {f"hakuriver/{environment.name}:{tag}" for tag in tags if tag != left_out}
        assert engine.is_podman or f"hakuriver/{environment.name}:{left_out}" not in there
    environment.leave()


def test_an_image_is_removed_unless_containers_use_it(environment: Environment) -> None:
    package(environment, "hello")
    succeed("haku_sync", **environment.options)
    user = environment.engine.docker("create", "--name", f"{environment.name}-user", environment.image, "true").strip()
    options = {**environment.options, "state": "absent"}
    for check in (True, False):
        assert f"containers use it: {environment.name}-user" in fail("haku_sync", check=check, **options)
    environment.engine.docker("rm", user)
    assert converge("haku_sync", **options).first["action"] == "remove"
    assert environment.references == []


def test_a_version_that_is_not_there_is_answered_with_those_that_are(one_environment: Environment) -> None:
    version = package(one_environment, "hello")
    for check in (True, False):
        sentence = fail("haku_sync", check=check, **one_environment.options, version=1)
        assert (
            sentence
            == f"{one_environment.tarballs} has no version 1 of {one_environment.name}. Choose one of: {version}."
        )


def test_an_environment_without_a_tarball_is_answered_with_those_that_have_one(one_environment: Environment) -> None:
    package(one_environment, "hello")
    options = {**one_environment.options, "name": "nobody"}
    for check in (True, False):
        sentence = fail("haku_sync", check=check, **options)
        assert f"There is no tarball of nobody in {one_environment.tarballs}" in sentence
        assert f"it has {one_environment.name}" in sentence
    assert "nobody" not in one_environment.engine.docker("image", "ls", "--format", "{{.Repository}}")


def test_an_image_without_any_tarball_is_left_alone(one_environment: Environment) -> None:
    version = package(one_environment, "hello")
    succeed("haku_sync", **one_environment.options)
    succeed("haku_tar", **one_environment.options, state="absent")
    seen = converge("haku_sync", **one_environment.options)
    assert (seen.first["changed"], seen.first["version"]) == (False, version)


def corrupt(tarball: Path, how: str) -> None:
    """Damage a tarball in one of the ways in which disks and networks do."""
    whole = tarball.read_bytes()
    if how == "cut short":
        tarball.write_bytes(whole[: len(whole) // 2])
    elif how == "no tar":
        tarball.write_bytes(random.Random(1).randbytes(4096))
    else:
        mark = {
            "a bit of a layer": b"two\n",
            "a bit of the configuration": b'"rootfs"',
            "a bit of the index": b'"Config"',
        }
        position = whole.rindex(mark[how])
        tarball.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])


@ONE_PODMAN_SHOWS_IT
@pytest.mark.parametrize(
    "how", ["cut short", "no tar", "a bit of a layer", "a bit of the configuration", "a bit of the index"]
)
def test_a_damaged_tarball_is_refused_and_the_former_image_stays(environment: Environment, how: str) -> None:
    package(environment, "one")
    succeed("haku_sync", **environment.options)
    damaged = environment.tarball(package(environment, "two"))
    corrupt(damaged, how)
    former = environment.inspect(environment.image)["Id"]
    result = run_module("haku_sync", **environment.options)
    assert result["failed"]
    assert result["msg"].startswith(f"Tarball {damaged} is damaged: ")
    assert "pin an older version" in result["msg"]
    assert result["error"]["where"] == str(damaged)
    assert environment.inspect(environment.image)["Id"] == former
    assert environment.references == [environment.image]


def test_two_syncs_at_once_load_once(environment: Environment) -> None:
    package(environment, "hello")
    with (
        start_module("haku_sync", **environment.options) as one,
        start_module("haku_sync", **environment.options) as other,
    ):
        results = [result_of(process) for process in (one, other)]
    assert sorted(result["action"] for result in results) == ["load", "none"]
    assert environment.references == [environment.image]


def test_two_syncs_at_once_under_two_tags_load_once_and_leave_both(one_environment: Environment) -> None:
    one_environment.execute("dd if=/dev/urandom of=/large bs=1M count=64 2>/dev/null")
    package(one_environment, "hello")
    one_environment.leave()
    with (
        start_module("haku_sync", **one_environment.options) as one,
        start_module("haku_sync", **one_environment.options, image_tag="dev") as other,
    ):
        results = [result_of(process) for process in (one, other)]
    assert sorted(result["action"] for result in results) == ["load", "tag"]
    assert one_environment.references == [one_environment.image, f"hakuriver/{one_environment.name}:dev"]


def test_what_changed_while_a_sync_waited_for_another_counts(one_environment: Environment) -> None:
    """A container is made from the current image; so that one stays, under its version's tag."""
    former = package(one_environment, "one")
    succeed("haku_sync", **one_environment.options)
    package(one_environment, "two")
    engine = one_environment.engine
    lock = local_path(engine.docker("info", "--format", "{{.ID}}").strip(), f"hakuriver/{one_environment.name}")
    with exclusive(lock, 60, "a test"):
        sync = start_module("haku_sync", **one_environment.options)
        until(lambda: has_open(sync, lock))
        user = engine.docker("create", one_environment.image, "true").strip()
    result = result_of(sync)
    assert (result["former_versions"], result.get("warnings")) == ([former], None)
    assert one_environment.references == [f"hakuriver/{one_environment.name}:{former}", one_environment.image]
    engine.docker("rm", user)
    one_environment.leave()


def has_open(process: subprocess.Popen[bytes], path: Path) -> bool:
    """Whether a process has a file open, as far as can be told: it may close some other while they are looked at."""
    with suppress(FileNotFoundError):
        return path in [link.readlink() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    return False


def test_what_another_user_loads_stays_and_what_a_killed_sync_of_ones_own_left_goes(
    one_environment: Environment,
) -> None:
    package(one_environment, "hello")
    own, other = (f"hakuriver/{one_environment.name}:sync-{os.geteuid() + user}-1" for user in (0, 1))
    for reference in (own, other):
        one_environment.engine.docker("tag", images.BUSYBOX.name, reference)
    succeed("haku_sync", **one_environment.options)
    assert one_environment.references == [one_environment.image, other]
    one_environment.engine.docker("image", "rm", other)


def test_a_version_pruned_while_it_is_read_gives_way_to_the_newest(one_environment: Environment) -> None:
    """On a local file system an open tarball outlives its name; one pruned before it is opened is looked up again."""
    one_environment.execute("dd if=/dev/urandom of=/large bs=1M count=64 2>/dev/null")
    for greeting in ("one", "two", "three", "four"):
        one_environment.execute(f"echo {greeting} > /greeting")
        with (
            start_module("haku_sync", **one_environment.options) as sync,
            start_module("haku_tar", **one_environment.options, rebase=False) as pack,
        ):
            packed, synchronised = (result_of(process) for process in (pack, sync))
        assert packed["published"]
        # Before the first version there is nothing to load.
        assert synchronised.get("action") in (("load", "none") if greeting != "one" else (None, "load"))
    assert succeed("haku_sync", **one_environment.options)["version"] == one_environment.versions[0]
    assert one_environment.run_image("cat /greeting").strip() == "four"
    assert one_environment.references == [one_environment.image]


def test_a_version_that_is_here_needs_no_directory(environment: Environment) -> None:
    versions = [package(environment, greeting) for greeting in ("one", "two")]
    for version in versions:
        succeed("haku_sync", **environment.options, version=version, keep_images=1)
    gone = {**environment.options, "shared_dir": "/not-mounted"}
    assert converge("haku_sync", **gone, version=versions[0], keep_images=1).first["action"] == "tag"
    assert environment.run_image("cat /greeting").strip() == "one"
    assert "There is no directory /not-mounted" in fail("haku_sync", **gone, version=1)
    assert "There is no directory /not-mounted" in fail("haku_sync", **gone)


@ONE_PODMAN_SHOWS_IT
def test_of_a_version_only_the_image_that_was_kept_is_removed(environment: Environment) -> None:
    versions = [package(environment, greeting) for greeting in ("one", "two", "three")]
    for version in versions:
        succeed("haku_sync", **environment.options, version=version, keep_images=2)
    options = {"name": environment.name, "docker_host": environment.engine.url, "state": "absent"}
    user = environment.engine.docker("create", f"hakuriver/{environment.name}:{versions[1]}", "true").strip()
    # The current one, one that is in use, and one that never was.
    for version in (versions[2], versions[1], 1):
        assert converge("haku_sync", **options, version=version).first["action"] == "none"
    environment.engine.docker("rm", user)
    for version in versions[:2]:
        assert converge("haku_sync", **options, version=version).first["action"] == "remove"
    assert environment.references == [environment.image]
    assert environment.run_image("cat /greeting").strip() == "three"


def test_an_option_without_a_meaning_is_refused_and_not_ignored(one_environment: Environment) -> None:
    assert "only with state: absent" in fail("haku_tar", **one_environment.options, version=1)


def test_versions_are_listed_without_an_engine(one_environment: Environment) -> None:
    version = package(one_environment, "hello")
    found = succeed("haku_tar_info", shared_dir=str(one_environment.shared))
    described = found["environments"][one_environment.name]
    assert described["latest_timestamp"] == version
    assert described["all_versions"][0]["size"] == one_environment.tarball(version).stat().st_size
