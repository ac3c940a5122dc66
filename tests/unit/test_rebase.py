# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine is asked for, so that a container continues on another image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.rebase import Creation, continuation

ID = "0123456789abcdef" * 4
SHORT_ID = ID[:12]
VOLUME = "f" * 64


def answer(
    config: Mapping[str, Any] | None = None,
    host: Mapping[str, Any] | None = None,
    mounts: list[dict[str, Any]] | None = None,
    networks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What an engine says of a container; arguments are laid over what every container has."""
    return {
        "Id": ID,
        "Config": {"Image": "base:1", "Hostname": SHORT_ID, "Cmd": ["sleep"], "Entrypoint": None, **(config or {})},
        "HostConfig": {"NetworkMode": "default", "Binds": None, **(host or {})},
        "Mounts": mounts or [],
        "NetworkSettings": {"Networks": networks or {"bridge": {"EndpointID": "e", "MacAddress": "m"}}},
    }


def mount(name: str, destination: str, **more: Any) -> dict[str, Any]:
    return {"Type": "volume", "Name": name, "Destination": destination, "RW": True, **more}


def made(**parts: Any) -> Creation:
    return continuation(answer(**parts), "env:2")


def host(**parts: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = made(**parts).body["HostConfig"]
    return found


def test_the_image_is_the_new_one_and_the_label_remembers_the_first() -> None:
    body = made().body
    assert body["Image"] == "env:2"
    assert body["Labels"] == {"haku.river.image": "base:1", "haku.river.continues": ID}
    again = made(config={"Labels": {"haku.river.image": "first", "haku.river.continues": "older", "own": "label"}}).body
    assert again["Labels"] == {"haku.river.image": "first", "haku.river.continues": ID, "own": "label"}


def test_only_a_host_name_that_the_user_gave_is_given_again() -> None:
    assert "Hostname" not in made().body
    assert made(config={"Hostname": "chosen"}).body["Hostname"] == "chosen"


def test_what_belongs_to_another_network_or_machine_is_not_asked_for() -> None:
    borrowed = {"Hostname": "other", "Domainname": "test", "ExposedPorts": {"1/tcp": {}}, "MacAddress": "02:42::"}
    assert not made(config=borrowed, host={"NetworkMode": f"container:{ID}"}).body.keys() & borrowed.keys()
    of_the_host = made(config=borrowed, host={"NetworkMode": "host", "UTSMode": "host"}).body
    assert "Hostname" not in of_the_host
    assert "Domainname" not in of_the_host
    assert made(config=borrowed, host={"NetworkMode": "host"}).body["Hostname"] == "other"


def test_a_given_hardware_address_is_given_again() -> None:
    assert made(config={"MacAddress": "02:42:00:00:00:09"}).body["MacAddress"] == "02:42:00:00:00:09"


@pytest.mark.parametrize("none", [None, []])
def test_a_missing_entry_point_stays_missing_whatever_the_image_has(none: object) -> None:
    assert made(config={"Entrypoint": none}).body["Entrypoint"] == [""]


def test_an_entry_point_is_kept() -> None:
    assert made(config={"Entrypoint": ["/start"]}).body["Entrypoint"] == ["/start"]


def test_an_anonymous_volume_is_named_and_not_filled_again() -> None:
    mounts = [mount(VOLUME, "/data"), mount(VOLUME, "/read", RW=False)]
    assert host(mounts=mounts)["Binds"] == [f"{VOLUME}:/data:nocopy", f"{VOLUME}:/read:nocopy,ro"]


@pytest.mark.parametrize("bind", ["data:/data", "data:/data/", "data:/data:ro", "data:/./data"])
def test_a_named_volume_is_not_asked_for_twice(bind: str) -> None:
    assert host(host={"Binds": [bind]}, mounts=[mount("data", "/data")])["Binds"] == [bind]


@pytest.mark.parametrize("target", ["/data", "/data/"])
def test_a_mount_without_a_name_gets_the_one_that_it_has(target: str) -> None:
    asked = {"Type": "volume", "Target": target, "VolumeOptions": {"Labels": {"a": "b"}}}
    found = host(host={"Mounts": [asked]}, mounts=[mount(VOLUME, "/data")])
    assert found["Binds"] == []
    assert found["Mounts"] == [
        {"Type": "volume", "Target": target, "Source": VOLUME, "VolumeOptions": {"Labels": {"a": "b"}, "NoCopy": True}}
    ]


def test_other_mounts_are_kept_as_they_are() -> None:
    mounts = [
        {"Type": "volume", "Target": "/named", "Source": "data"},
        {"Type": "bind", "Target": "/bind", "Source": "/etc", "ReadOnly": True},
        {"Type": "tmpfs", "Target": "/ram", "TmpfsOptions": {"SizeBytes": 1}},
    ]
    found = host(host={"Mounts": mounts}, mounts=[mount("data", "/named")])
    assert (found["Mounts"], found["Binds"]) == (mounts, [])


def test_all_other_settings_are_kept() -> None:
    settings = {"Memory": 1, "RestartPolicy": {"Name": "always"}, "Devices": [{"PathOnHost": "/dev/null"}]}
    assert host(host=settings).items() >= settings.items()
    config = {"User": "1", "Env": ["A=b"], "Healthcheck": {"Test": ["NONE"]}, "StopTimeout": 3, "Tty": True}
    assert made(config=config).body.items() >= config.items()


def test_a_network_is_joined_as_asked_and_not_where_the_engine_put_the_container() -> None:
    endpoint = {
        "IPAMConfig": {"IPv4Address": "10.0.0.9"},
        "Aliases": ["web", SHORT_ID],
        "DriverOpts": {"a": "b"},
        "GwPriority": 7,
        "Links": None,
        "IPAddress": "10.0.0.9",
        "Gateway": "10.0.0.1",
        "MacAddress": "02:42:0a:00:00:09",
        "EndpointID": "e",
        "NetworkID": "n",
        "DNSNames": ["env", SHORT_ID],
    }
    asked = {
        "IPAMConfig": {"IPv4Address": "10.0.0.9"},
        "Aliases": ["web"],
        "DriverOpts": {"a": "b"},
        "GwPriority": 7,
    }
    made_anew = made(host={"NetworkMode": "first"}, networks={"first": endpoint, "second": endpoint})
    # Engines up to 24 take no more than one network when they create a container.
    assert made_anew.body["NetworkingConfig"] == {"EndpointsConfig": {"first": asked}}
    assert made_anew.networks == {"second": asked}


@pytest.mark.parametrize("mode", ["0123456789ab", "0123456789abcdef"])
def test_a_network_may_have_been_named_by_its_id(mode: str) -> None:
    networks = {"first": {"NetworkID": "0123456789abcdef", "Aliases": ["web"]}, "second": {"NetworkID": "f" * 16}}
    made_anew = made(host={"NetworkMode": mode}, networks=networks)
    assert made_anew.body["NetworkingConfig"] == {"EndpointsConfig": {mode: {"Aliases": ["web"]}}}
    assert made_anew.networks == {"second": {}}


@pytest.mark.parametrize("mode", ["default", "bridge", "host", "none"])
def test_a_network_of_the_engine_itself_needs_no_joining(mode: str) -> None:
    name = "bridge" if mode == "default" else mode
    made_anew = made(host={"NetworkMode": mode}, networks={name: {"EndpointID": "e"}, "more": {"EndpointID": "e"}})
    assert made_anew.body["HostConfig"]["NetworkMode"] == mode
    assert made_anew.body["NetworkingConfig"] == {"EndpointsConfig": {}}
    assert made_anew.networks == {"more": {}}


def test_the_answer_is_left_as_it_was() -> None:
    mounts = [{"Type": "volume", "Target": "/data"}]
    given = answer(config={"Labels": {}}, host={"Mounts": mounts}, mounts=[mount(VOLUME, "/data")])
    before = repr(given)
    continuation(given, "env:2")
    assert repr(given) == before
