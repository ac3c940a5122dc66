# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared directory: only whole tarballs have a name, one packager at a time, and errors name the path."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue
from ansible_collections.haku.river.plugins.module_utils.errors import CatalogueError, HakuError
from ansible_collections.haku.river.plugins.module_utils.names import TarballName
from ansible_collections.haku.river.plugins.module_utils.published import described_versions

NAME = TarballName("env", 1767225600)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "tarballs").mkdir()
    return Catalogue(str(tmp_path), "tarballs")


def names(catalogue: Catalogue) -> set[str]:
    return {path.name for path in catalogue.path.iterdir()}


def test_versions_are_listed_newest_first_and_by_environment(catalogue: Catalogue) -> None:
    for name in ("env-5.tar", "env-100.tar", "env-9.tar", "env-2-7.tar", "README", ".env-200.tar.00.part"):
        (catalogue.path / name).touch()
    (catalogue.path / "env-300.tar").mkdir()
    assert [version.timestamp for version in catalogue.versions("env")] == [100, 9, 5]
    assert list(catalogue.environments()) == ["env", "env-2"]
    assert catalogue.versions("other") == ()


def test_a_directory_has_the_identity_by_which_it_was_marked(catalogue: Catalogue) -> None:
    assert catalogue.identity is None
    (catalogue.path / ".haku-river").write_bytes(b"5f0c2b9e\n")
    assert catalogue.identity == "5f0c2b9e"


def test_versions_are_described_as_hakuriver_lists_them(catalogue: Catalogue) -> None:
    (catalogue.path / "env-5.tar").write_bytes(b"12345")
    tarball = str(catalogue.path / "env-5.tar")
    assert described_versions(catalogue) == {
        "env": {
            "latest_timestamp": 5,
            "latest_tarball": tarball,
            "all_versions": [{"timestamp": 5, "tarball": tarball, "size": 5, "created": "1970-01-01T00:00:05Z"}],
        }
    }
    assert described_versions(catalogue, "other") == {}


@pytest.mark.parametrize("container_dir", ["/etc", "../x", "a/../../x"])
def test_the_directory_of_tarballs_stays_below_the_shared_one(container_dir: str, tmp_path: Path) -> None:
    with pytest.raises(HakuError, match="leads out of shared_dir"):
        Catalogue(str(tmp_path), container_dir)


def test_a_missing_shared_directory_is_told_from_a_missing_directory_of_tarballs(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=f"There is no directory {tmp_path}/none. Mount the shared directory"):
        Catalogue(str(tmp_path / "none"), "tarballs").environments()
    with pytest.raises(CatalogueError, match=f"There is no directory {tmp_path}/tarballs"):
        Catalogue(str(tmp_path), "tarballs").environments()


def test_what_is_published_is_whole_and_nothing_else_remains(catalogue: Catalogue) -> None:
    with catalogue.partial(NAME) as file:
        file.write(b"content")
        assert catalogue.versions("env") == ()
        catalogue.publish(file, NAME)
    assert names(catalogue) == {str(NAME)}
    assert catalogue.versions("env")[0].path.read_bytes() == b"content"


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_who_may_read_the_directory_may_read_what_is_published(catalogue: Catalogue, directory: int, file: int) -> None:
    catalogue.path.chmod(directory)
    before = os.umask(0o077)
    try:
        with catalogue.partial(NAME) as partial:
            catalogue.publish(partial, NAME)
        catalogue.write_index()
    finally:
        os.umask(before)
    for name in (str(NAME), "catalogue.json"):
        assert (catalogue.path / name).stat().st_mode & 0o777 == file


def test_a_partial_file_is_gone_after_a_failure(catalogue: Catalogue) -> None:
    def fail_half_way() -> None:
        with catalogue.partial(NAME) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert names(catalogue) == set()


def test_the_partials_of_a_dead_packager_are_cleaned_and_no_others(catalogue: Catalogue) -> None:
    for name in (".env-1.tar.0a1b.part", ".env-2-1.tar.0a1b.part", "env-1.tar", ".env.lock"):
        (catalogue.path / name).touch()
    catalogue.remove_stale_partials("env")
    assert names(catalogue) == {".env-2-1.tar.0a1b.part", "env-1.tar", ".env.lock"}


def test_removing_what_is_gone_is_no_error(catalogue: Catalogue) -> None:
    catalogue.remove(catalogue.version(NAME))


def listed(catalogue: Catalogue) -> dict[str, list[dict[str, int]]]:
    environments: dict[str, list[dict[str, int]]] = json.loads((catalogue.path / "catalogue.json").read_text())[
        "environments"
    ]
    return environments


def test_the_index_for_web_servers_says_what_there_is_and_nothing_else_remains(catalogue: Catalogue) -> None:
    (catalogue.path / "env-5.tar").write_bytes(b"12345")
    (catalogue.path / "env-7.tar").write_bytes(b"7")
    (catalogue.path / "._index.00.part").touch()
    catalogue.write_index()
    assert listed(catalogue) == {"env": [{"timestamp": 7, "size": 1}, {"timestamp": 5, "size": 5}]}
    assert names(catalogue) == {"env-5.tar", "env-7.tar", "catalogue.json", "._index.lock"}
    assert list(catalogue.environments()) == ["env"]


def publish_many(directory: str, environment: str) -> None:
    catalogue = Catalogue(directory, "tarballs")
    for timestamp in range(1, 21):
        name = TarballName(environment, timestamp)
        with catalogue.partial(name) as file:
            catalogue.publish(file, name)
        catalogue.write_index()


def test_packagers_of_different_environments_do_not_lose_each_others_entries(catalogue: Catalogue) -> None:
    arguments = [(str(catalogue.shared_dir), environment) for environment in ("one", "two", "three")]
    packagers = [multiprocessing.Process(target=publish_many, args=given) for given in arguments]
    for packager in packagers:
        packager.start()
    for packager in packagers:
        packager.join()
    assert {name: len(versions) for name, versions in listed(catalogue).items()} == {"one": 20, "two": 20, "three": 20}


def test_an_index_is_written_anew_only_if_it_does_not_say_what_there_is(catalogue: Catalogue) -> None:
    (catalogue.path / "env-5.tar").touch()
    for broken in (None, "", "[]", '{"environments": {"env": [{}]}}', '{"environments": {"env": [{"timestamp": 4}]}}'):
        if broken is not None:
            (catalogue.path / "catalogue.json").write_text(broken)
        assert catalogue.refreshed_index() == ()
        assert listed(catalogue) == {"env": [{"timestamp": 5, "size": 0}]}
    before = (catalogue.path / "catalogue.json").stat()
    assert catalogue.refreshed_index() == ()
    assert (catalogue.path / "catalogue.json").stat() == before


def test_an_index_that_cannot_be_written_is_a_warning(catalogue: Catalogue) -> None:
    assert catalogue.refreshed_index() == ()
    (catalogue.path / "catalogue.json").unlink()
    (catalogue.path / "catalogue.json").mkdir()
    (warning,) = catalogue.refreshed_index()
    assert "may not see what there is now. Cannot write" in warning


def test_versions_are_found_among_very_many_files_of_others(catalogue: Catalogue) -> None:
    for number in range(1000):
        (catalogue.path / f"env-{number}-7.tar").touch()
    (catalogue.path / "env-7.tar").touch()
    assert [version.timestamp for version in catalogue.versions("env")] == [7]
    assert [version.timestamp for version in catalogue.versions("env-7")] == [7]


def hold(directory: str, held: Event) -> None:
    with Catalogue(directory, "tarballs").lock("env", 0):
        held.set()
        time.sleep(60)


@pytest.fixture
def holder(catalogue: Catalogue) -> multiprocessing.Process:
    """Another process that holds the lock."""
    held = multiprocessing.Event()
    process = multiprocessing.Process(target=hold, args=(str(catalogue.shared_dir), held), daemon=True)
    process.start()
    assert held.wait(10)
    return process


def test_a_second_packager_is_refused_and_told_who_holds_the_lock(
    catalogue: Catalogue, holder: multiprocessing.Process
) -> None:
    said = rf"Packaging env is under way.*process {holder.pid} on .*lock_timeout"
    with pytest.raises(HakuError, match=said), catalogue.lock("env", 0.3):
        pass
    with catalogue.lock("other", 0):
        pass


def test_a_lock_dies_with_its_holder(catalogue: Catalogue, holder: multiprocessing.Process) -> None:
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    with catalogue.lock("env", 10):
        pass


def test_a_lock_is_not_taken_through_a_link(catalogue: Catalogue) -> None:
    (catalogue.path / ".env.lock").symlink_to(catalogue.path / "elsewhere")
    with pytest.raises(HakuError, match="Cannot open the lock"), catalogue.lock("env", 0):
        pass
    assert not (catalogue.path / "elsewhere").exists()
