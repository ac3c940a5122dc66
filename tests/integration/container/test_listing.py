# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""haku_container_info."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp

from tests.integration.container.place import Place
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT
from tests.integration.modules import fail, succeed

pytestmark = ITS_NEIGHBOURS_SHOW_IT


def listed(place: Place, **options: Any) -> dict[str, Any]:
    result = succeed("haku_container_info", name=place.name, docker_host=place.engine.url, **options)
    assert not result["changed"]
    (container,) = result["containers"]
    found: dict[str, Any] = container
    return found


def test_an_environment_is_listed_as_docker_ps_words_it(place: Place) -> None:
    created = place.create()["container"]
    there = listed(place)
    assert there.pop("status").startswith("Up ")
    assert there.pop("size_bytes") is None
    assert there.pop("changed_since_packaged") is None
    assert there == {key: created[key] for key in ("id", "name", "image", "state", "created")}
    place.engine.docker("stop", place.name)
    assert listed(place)["status"].startswith("Exited (")


def test_the_size_is_what_the_container_adds(place: Place) -> None:
    place.create()
    place.environment.execute("head -c 5000000 /dev/urandom > /file; sync")
    assert 5_000_000 <= listed(place, size=True)["size_bytes"] < 5_500_000


def test_only_containers_of_environments_are_listed(one_place: Place) -> None:
    one_place.create()
    one_place.engine.docker(
        *("run", "--detach", "--name", f"{one_place.name}-task", *one_place.labels),
        *("--label", "haku.river.task=1", one_place.image, "sleep", "1000"),
    )
    result = succeed("haku_container_info", docker_host=one_place.engine.url)
    names = [container["name"] for container in result["containers"]]
    assert one_place.name in names
    assert f"{one_place.name}-task" not in names
    assert names == sorted(names)
    assert succeed("haku_container_info", name="no-such-env", docker_host=one_place.engine.url)["containers"] == []


def test_an_environment_without_a_version_has_changed(one_place: Place) -> None:
    one_place.create()
    assert listed(one_place, shared_dir=str(one_place.environment.shared))["changed_since_packaged"] is True
    message = fail("haku_container_info", docker_host=one_place.engine.url, shared_dir="/no/such/directory")
    assert "There is no directory /no/such/directory" in message


def test_a_container_on_its_newest_version_has_changed_when_a_file_has(place: Place) -> None:
    place.create()
    place.environment.execute("touch /packaged")
    image = f"hc-test/{place.name}:1"
    place.engine.docker("commit", place.name, image)
    place.engine.docker("rm", "--force", place.name)
    place.run("--init", "--volume", "/etc:/host/etc", image)
    version = unix_timestamp(place.environment.inspect(image)["Created"])
    assert version is not None
    place.environment.tarball(version).touch()
    shared = str(place.environment.shared)
    assert listed(place, shared_dir=shared)["changed_since_packaged"] is False
    place.environment.execute("touch /changed")
    assert listed(place, shared_dir=shared)["changed_since_packaged"] is True


def test_a_container_beside_its_newest_version_has_changed_as_far_as_can_be_told(one_place: Place) -> None:
    one_place.create()
    shared = str(one_place.environment.shared)
    one_place.environment.tarball(1_000_000_000).touch()
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is True
    one_place.environment.tarball(int(time.time()) + 1).touch()
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is False
    one_place.environment.execute("touch /changed")
    assert listed(one_place, shared_dir=shared)["changed_since_packaged"] is None
