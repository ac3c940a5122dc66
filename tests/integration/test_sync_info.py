# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which version of which environment a machine has, as real engines tell it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.marks import ONE_PODMAN_SHOWS_IT
from tests.integration.modules import fail, returned, run_module, succeed
from tests.lab.relay import relay

ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
"""A command that starts another one on what looks like another machine."""


def package(environment: Environment, greeting: str) -> int:
    """Publish one more version that says `greeting`; the Host keeps no image of it."""
    environment.execute(f"echo {greeting} > /greeting")
    version: int = succeed("haku_tar", **environment.options, keep=9, rebase=False)["version"]
    return version


def ask(environment: Environment, **options: Any) -> dict[str, Any]:
    """What the module says of the environment, the same in check mode and when it is asked for all of them."""
    asked = {**environment.options, **options}
    here = succeed("haku_sync_info", **asked)
    assert here["changed"] is False
    assert succeed("haku_sync_info", check=True, **asked)["environments"] == here["environments"]
    described: dict[str, Any] = here["environments"].get(environment.name, {})
    everything = succeed("haku_sync_info", **{**asked, "name": None})
    assert everything["environments"].get(environment.name, {}) == described
    return described


def test_with_nothing_here_and_nothing_published_nothing_is_told(environment: Environment) -> None:
    assert ask(environment) == {}
    assert ask(environment, shared_dir=None) == {}


def test_what_is_published_and_not_here_is_stale(environment: Environment) -> None:
    version = package(environment, "hello")
    assert ask(environment) == {
        "version": None,
        "image": environment.image,
        "image_id": None,
        "created": None,
        "size": None,
        "former_versions": [],
        "newest_version": version,
        "published_versions": [version],
        "stale": True,
    }
    assert ask(environment, shared_dir=None) == {}


def test_an_image_is_current_until_there_is_a_newer_version_or_it_is_pinned_to_an_older_one(
    environment: Environment,
) -> None:
    older = package(environment, "one")
    succeed("haku_sync", **environment.options)
    current = ask(environment)
    image = environment.inspect(environment.image)
    assert (current["version"], current["newest_version"], current["stale"]) == (older, older, False)
    assert (current["image_id"], current["size"]) == (image["Id"], image["Size"])
    assert current["created"][:19] == image["Created"][:19]

    newer = package(environment, "two")
    stale = ask(environment)
    assert (stale["version"], stale["newest_version"], stale["stale"]) == (older, newer, True)
    assert stale["published_versions"] == [newer, older]
    unknown = {"newest_version": None, "published_versions": None, "stale": None}
    assert ask(environment, shared_dir=None) == {**stale, **unknown}

    succeed("haku_sync", **environment.options)
    assert ask(environment)["stale"] is False
    succeed("haku_sync", **environment.options, version=older)
    assert ask(environment) == stale


@ONE_PODMAN_SHOWS_IT
def test_images_that_were_kept_are_told(environment: Environment) -> None:
    versions = [package(environment, greeting) for greeting in ("one", "two", "three")]
    for version in versions:
        succeed("haku_sync", **environment.options, version=version, keep_images=5)
    seen = ask(environment)
    assert (seen["version"], seen["former_versions"]) == (versions[2], [versions[1], versions[0]])
    environment.engine.docker("image", "rm", environment.image)
    seen = ask(environment, shared_dir=None)
    assert (seen["version"], seen["image_id"]) == (None, None)
    assert seen["former_versions"] == [versions[1], versions[0]]


def test_an_image_by_docker_load_counts_like_any_other(environment: Environment) -> None:
    older = package(environment, "one")
    package(environment, "two")
    environment.engine.docker("load", "--input", environment.tarball(older))
    seen = ask(environment)
    assert (seen["version"], seen["stale"]) == (older, True)


def test_a_tarball_that_is_named_by_another_time_than_its_image_is_known_by_its_content(
    environment: Environment,
) -> None:
    """As HakuRiver names its tarballs."""
    environment.execute("echo hello > /greeting")
    environment.engine.docker("commit", environment.name, environment.image)
    named = 1767225600
    environment.engine.docker("save", "--output", environment.tarball(named), environment.image)
    seen = ask(environment)
    assert (seen["version"], seen["newest_version"], seen["stale"]) == (named, named, False)
    time.sleep(1)  # an image of the same second as the newer version would count as that
    # Not the newest one any more, it is still that version.
    newer = package(environment, "two")
    seen = ask(environment)
    assert (seen["version"], seen["newest_version"], seen["stale"]) == (named, newer, True)


def test_a_damaged_tarball_is_told_of_and_is_no_hindrance(one_environment: Environment) -> None:
    older = package(one_environment, "one")
    succeed("haku_sync", **one_environment.options)
    damaged = one_environment.tarball(package(one_environment, "two"))
    damaged.write_bytes(damaged.read_bytes()[:5000])
    result = run_module("haku_sync_info", **one_environment.options)
    (seen,) = result["environments"].values()
    assert (seen["version"], seen["stale"]) == (older, True)
    assert f"Tarball {damaged} is damaged" in str(result["warnings"])


def test_an_environment_whose_tarballs_are_gone_is_not_stale(one_environment: Environment) -> None:
    version = package(one_environment, "one")
    succeed("haku_sync", **one_environment.options)
    succeed("haku_tar", **one_environment.options, state="absent")
    seen = ask(one_environment)
    assert (seen["version"], seen["newest_version"], seen["stale"]) == (version, None, False)


def test_the_engine_and_its_disk_are_told_where_they_are_this_machines(environment: Environment) -> None:
    here = succeed("haku_sync_info", **environment.options)
    assert here["engine"] == {"version": environment.engine.version, "storage": environment.engine.store}
    assert here["disk"]["path"].startswith(str(environment.engine.socket.parent))
    assert 0 < here["disk"]["free"] < here["disk"]["total"]
    with relay(environment.engine.socket) as port:
        by_network = succeed("haku_sync_info", **{**environment.options, "docker_host": f"tcp://127.0.0.1:{port}"})
    assert returned(by_network) == {**returned(here), "disk": None}
    elsewhere = run_module("haku_sync_info", **environment.options, within=ELSEWHERE)
    assert elsewhere["disk"] is None


def test_a_disk_that_cannot_be_looked_at_is_null(one_environment: Environment) -> None:
    hidden = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /mnt && mount -t tmpfs none "$0" && exec "$@"')
    directory = str(one_environment.engine.socket.parent)
    options = {**one_environment.options, "docker_host": "unix:///mnt/docker.sock"}
    assert run_module("haku_sync_info", **options, within=(*hidden, directory))["disk"] is None


def test_a_shared_directory_that_is_not_there_is_an_error(one_environment: Environment) -> None:
    options = {**one_environment.options, "shared_dir": "/not-mounted"}
    assert "There is no directory /not-mounted" in fail("haku_sync_info", **options)
    assert "cannot be the name of an environment" in fail("haku_sync_info", **{**options, "name": "../x"})
    assert "mutually exclusive" in fail("haku_sync_info", **options, source="https://storage.example.org/")


@pytest.mark.parametrize("wrong", [{"image_prefix": "A B"}, {"image_tag": "a/b"}])
def test_names_that_no_image_can_have_are_refused(one_environment: Environment, wrong: dict[str, Any]) -> None:
    assert next(iter(wrong)) in fail("haku_sync_info", **{**one_environment.options, "name": None}, **wrong)


def test_other_names_of_images_are_looked_for_as_they_are_given(one_environment: Environment) -> None:
    version = package(one_environment, "one")
    names: dict[str, Any] = {"image_prefix": "lab.example.org:5000/team", "image_tag": "stable"}
    succeed("haku_sync", **one_environment.options, **names)
    seen = ask(one_environment, **names)
    assert (seen["image"], seen["version"]) == (f"lab.example.org:5000/team/{one_environment.name}:stable", version)
    assert ask(one_environment)["version"] is None
    succeed("haku_sync", **one_environment.options, **names, state="absent")
