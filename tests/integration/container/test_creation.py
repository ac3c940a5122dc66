# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Creating the container of an environment: its settings, what is refused, and the image it is made from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.container.place import Place
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT, NEEDS_LIMITS
from tests.integration.modules import converge, fail, succeed
from tests.lab import images
from tests.lab.engines import Engine
from tests.lab.registry import Registry

pytestmark = ITS_NEIGHBOURS_SHOW_IT


def test_a_container_is_created_as_forecast_and_once(place: Place) -> None:
    seen = converge("haku_container", image=place.image, **place.options)
    there = place.inspect()
    assert seen.first["container"] == {
        "id": there["Id"],
        "name": place.name,
        "image": place.image,
        "state": "running",
        "created": f"{there['Created'][:19]}Z",
        "managed": True,
    }
    assert seen.first["actions"] == [f"create and start container {place.name} from image {place.image}"]
    assert seen.second["container"] == seen.first["container"]
    assert seen.second["actions"] == []


def test_check_mode_creates_nothing(place: Place) -> None:
    forecast = succeed("haku_container", check=True, image=place.image, **place.options)
    assert forecast["changed"]
    assert place.containers == []


def test_a_new_container_sleeps_under_an_init_and_comes_back_after_a_reboot(place: Place) -> None:
    place.create()
    there = place.inspect()
    # Podman writes an entry point that is taken away as an empty string.
    entry_point = [word for word in there["Config"]["Entrypoint"] or [] if word]
    assert entry_point + there["Config"]["Cmd"] == ["sleep", "infinity"]
    assert there["HostConfig"]["Init"]
    assert there["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    labels = {label: value for label, value in there["Config"]["Labels"].items() if label.startswith("haku.river.")}
    del labels["haku.river.lab.recipe"]
    assert labels == {
        "haku.river.managed": "true",
        "haku.river.env": place.name,
        "haku.river.image": place.image,
    }


def test_the_entry_point_of_the_image_does_not_run(place: Place) -> None:
    image = f"hc-test/{place.name}:failing"
    place.engine.docker("create", "--name", place.name, place.image)
    place.engine.docker("commit", "--change", 'ENTRYPOINT ["false"]', place.name, image)
    place.engine.docker("rm", place.name)
    converge("haku_container", image=image, **place.options)
    assert place.state == "running"


@NEEDS_LIMITS
def test_every_setting_reaches_the_container_and_is_recognised_there(place: Place) -> None:
    seen = converge(
        "haku_container",
        image=place.image,
        command="sh -c 'echo \"$GREETING, world\" > /greeting; sleep 1000'",
        init=False,
        env={"GREETING": "hello", "EMPTY": "", "SUM": "a=b"},
        volumes=[f"{place.name}-data:/data/", "/etc:/host/etc:ro"],
        cpus=0.5,
        memory="64M",
        shm_size="96M",
        labels={"team": "a"},
        restart_policy="on-failure",
        **place.options,
    )
    assert seen.first["diff"]["before"] == {"state": "absent"}
    assert seen.first["diff"]["after"]["memory"] == 64 << 20
    assert place.environment.execute("cat /greeting; echo $EMPTY$SUM") == "hello, world\na=b\n"
    place.environment.execute("touch /data/file")
    with pytest.raises(Exception, match="Read-only file system"):
        place.environment.execute("touch /host/etc/file")
    there = place.inspect()
    assert there["HostConfig"]["NanoCpus"] == 500_000_000
    assert there["HostConfig"]["Memory"] == 64 << 20
    assert place.environment.execute("df -m /dev/shm").splitlines()[-1].split()[1] == "96"
    assert there["Config"]["Labels"]["team"] == "a"


def test_present_creates_and_does_not_start(one_place: Place) -> None:
    seen = converge("haku_container", state="present", image=one_place.image, **one_place.options)
    assert seen.first["container"]["state"] == one_place.state == "created"
    seen = converge("haku_container", state="stopped", **one_place.options)
    assert not seen.first["changed"]
    converge("haku_container", state="started", **one_place.options)
    assert one_place.state == "running"


def test_the_network_of_another_container_is_recognised(one_place: Place) -> None:
    other = f"{one_place.name}-other"
    one_place.engine.docker("run", "--detach", "--network", "none", "--name", other, one_place.image, "sleep", "1000")
    converge("haku_container", image=one_place.image, **{**one_place.options, "network": f"container:{other}"})
    message = fail("haku_container", **{**one_place.options, "network": "container:nobody"})
    assert "There is no container nobody, whose network is asked for" in message


def test_a_command_that_keeps_failing_is_an_error_with_its_last_words(place: Place) -> None:
    command = ["sh", "-c", "echo starting; echo no such file: settings.ini >&2; exit 3"]
    message = fail("haku_container", image=place.image, command=command, **place.options)
    assert "does not keep running" in message
    assert "ended with exit code 3 and last wrote: " in message
    assert "no such file: settings.ini" in message
    assert place.containers == []


def test_a_command_that_ends_well_but_at_once_is_an_error(one_place: Place) -> None:
    message = fail("haku_container", image=one_place.image, command="true", restart_policy="no", **one_place.options)
    assert "`true` ended with exit code 0. Give it a command" in message
    assert one_place.containers == []


def test_a_command_that_does_not_exist_is_an_error_that_names_it(place: Place) -> None:
    message = fail("haku_container", image=place.image, command="nonsense --now", **place.options)
    assert "nonsense" in message
    assert place.containers == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no image to create it from"),
        ({"image": "hc-test/nowhere:1", "pull": "never"}, "has no image hc-test/nowhere:1, and pull is never"),
        ({"image": "x", "env": {"VERSION": 3.10}}, "The value of VERSION in env is 3.1, a float and not a string"),
        ({"image": "x", "env": {"DEBUG": True}}, "The value of DEBUG in env is True, a bool and not a string"),
        ({"image": "x", "labels": {"haku.river.task": "1"}}, "The label haku.river.task is not free"),
        ({"image": "x", "volumes": ["data"]}, "'data' in volumes is not SOURCE:TARGET"),
        ({"image": "x", "memory": "much"}, "memory 'much' is not a size"),
        ({"image": "x", "shm_size": "0"}, "shm_size '0' is not a size"),
        ({"image": "x", "gpus": "some"}, "gpus 'some' means nothing"),
        ({"image": "x", "command": "sh -c 'open"}, "cannot be split into arguments"),
    ],
)
def test_what_cannot_be_is_refused_in_check_mode_too(one_place: Place, options: dict[str, Any], words: str) -> None:
    for check in (True, False):
        assert words in fail("haku_container", check=check, **one_place.options, **options)
    assert one_place.containers == []


@pytest.mark.parametrize("name", ["../x", "a b", "A", "x;rm -rf", "", "a.FORMER"])
def test_a_name_that_is_no_environment_is_refused_with_the_rule(engines: dict[str, Engine], name: str) -> None:
    message = fail("haku_container", name=name, image="x", docker_host=engines["d28"].url)
    assert "cannot be the name of an environment: a name is made of" in message


def test_a_name_that_begins_the_id_of_another_container_means_no_container(one_place: Place) -> None:
    one_place.run(one_place.image, "sleep", "1000")
    beginning = one_place.inspect()["Id"][:16]
    result = succeed("haku_container", state="absent", name=beginning, docker_host=one_place.engine.url)
    assert not result["changed"]
    assert one_place.state == "running"


# Images


def test_a_missing_image_is_pulled_and_only_that_tag(main_place: Place, registry: Registry) -> None:
    repository = f"hc/{main_place.name}"
    image = registry.push(images.BUSYBOX, f"{repository}:latest")
    registry.push(images.BUSYBOX, f"{repository}:other")
    name = image.rpartition(":")[0]
    try:
        seen = converge("haku_container", image=name, **main_place.options)
        assert seen.first["actions"][0] == f"pull image {name}"
        assert not converge("haku_container", image=image, **main_place.options).first["changed"]
        there = main_place.engine.docker("image", "ls", "--format", "{{.Tag}}", name)
        assert there.split() == ["latest"]
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", image)


def test_an_image_is_pulled_by_its_digest(main_place: Place, registry: Registry) -> None:
    image = registry.push(images.BUSYBOX, f"hc/{main_place.name}:1")
    main_place.engine.docker("pull", image)
    digest = main_place.engine.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image).strip()
    main_place.engine.docker("image", "rm", image)
    try:
        seen = converge("haku_container", image=digest, **main_place.options)
        assert seen.first["actions"][0] == f"pull image {digest}"
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", digest)


def test_always_pulls_for_a_new_container_and_for_no_other(main_place: Place, registry: Registry) -> None:
    image = registry.push(images.BUSYBOX, f"hc/{main_place.name}:1")
    main_place.engine.docker("pull", image)
    options = {"image": image, "pull": "always", **main_place.options}
    try:
        assert converge("haku_container", **options).first["actions"][0] == f"pull image {image}"
        seen = converge("haku_container", recreate=True, **options)
        assert not seen.first["changed"]
        seen = converge("haku_container", recreate=True, init=False, **options)
        assert seen.first["actions"][0] == f"pull image {image}"
    finally:
        main_place.engine.docker("rm", "--force", main_place.name)
        main_place.engine.docker("image", "rm", "--force", image)


def test_an_image_that_the_registry_lacks_is_its_error_and_touches_nothing(
    main_place: Place, registry: Registry
) -> None:
    main_place.create()
    before = main_place.inspect()
    image = f"{registry.address}/hc/nothing:1"
    message = fail("haku_container", image=image, recreate=True, **main_place.options)
    assert f"Cannot pull image {image}" in message
    assert "manifest unknown" in message
    after = main_place.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_a_container_that_continues_on_a_committed_image_is_still_of_the_asked_one(place: Place) -> None:
    place.create()
    committed = f"hc-test/{place.name}:1"
    place.environment.execute("touch /kept")
    place.engine.docker("commit", place.name, committed)
    place.engine.docker("rm", "--force", place.name)
    place.run("--init", committed)
    seen = converge("haku_container", image=place.image, command="sleep infinity", **place.options)
    assert not seen.first["changed"]
    assert seen.first["container"]["image"] == place.image
