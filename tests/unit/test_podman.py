# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Podman's answers in Docker's words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils import podman
from ansible_collections.haku.river.plugins.module_utils.image import Identity, Image

ID = "0" * 64


def answer(**host: Any) -> dict[str, Any]:
    networks = host.pop("networks", {})
    return {
        "Image": ID,
        "State": {"Status": "stopped"},
        "Config": {
            "Hostname": "abc",
            "Env": ["Z=1", "container=podman", "HOSTNAME=abc", "HOME=/root", "A=1"],
            "StopSignal": "15",
            "WorkingDir": "/",
        },
        "HostConfig": {"NetworkMode": "bridge", **host},
        "NetworkSettings": {"Networks": networks},
    }


def test_a_container_is_told_in_docker_s_words() -> None:
    told = podman.container_answer(answer(NanoCpus=5 * 10**8, CpuQuota=50_000, CpuPeriod=100_000))
    assert (told["Image"], told["State"]["Status"]) == (f"sha256:{ID}", "exited")
    assert told["Config"]["Env"] == ["A=1", "HOME=/root", "Z=1"]
    assert (told["Config"]["StopSignal"], told["Config"]["WorkingDir"]) == ("", "")
    assert (told["HostConfig"]["CpuQuota"], told["HostConfig"]["CpuPeriod"]) == (0, 0)
    limits = [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}]
    told = podman.container_answer(answer(Ulimits=limits))
    assert told["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    devices = [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/other", "CgroupPermissions": ""}]
    told = podman.container_answer(answer(Devices=devices))
    assert told["HostConfig"]["Devices"] == [{**devices[0], "CgroupPermissions": "rwm"}]


@pytest.mark.parametrize(
    ("networks", "mode"), [({"podman": {}}, "bridge"), ({"own": {}}, "own"), ({"podman": {}, "own": {}}, "bridge")]
)
def test_a_network_is_told_by_its_name(networks: dict[str, Any], mode: str) -> None:
    told = podman.container_answer(answer(networks=networks))
    assert told["HostConfig"]["NetworkMode"] == mode
    assert "podman" not in told["NetworkSettings"]["Networks"]


@pytest.mark.parametrize(
    ("policy", "status"), [("always", "restarting"), ("unless-stopped", "restarting"), ("no", "exited"), ("", "exited")]
)
def test_a_container_that_may_be_started_again_is_not_at_rest(policy: str, status: str) -> None:
    told = podman.container_answer(answer(RestartPolicy={"Name": policy, "MaximumRetryCount": 0}))
    assert told["State"]["Status"] == status


def test_images_have_the_names_that_people_write() -> None:
    tags = ["docker.io/library/debian:12", "docker.io/hakuriver/env:base", "quay.io/a/b:1", "<none>:<none>"]
    told = podman.image_answer({"Id": ID, "RepoTags": tags})
    assert told["RepoTags"] == ["debian:12", "hakuriver/env:base", "quay.io/a/b:1"]
    assert told["Id"] == f"sha256:{ID}"


def test_an_image_says_nothing_of_what_only_the_process_meant() -> None:
    config = {"Env": ["A=1", "HOME=/root", "TERM=xterm"], "Cmd": ["sh"]}
    assert podman.image_configuration(config, {"Volumes": {"/data": {}}, "Env": ["TERM=dumb"]}) == {
        "Env": ["A=1", "TERM=xterm"],
        "Cmd": ["sh"],
        "Volumes": {"/data": {}},
    }


def test_an_update_keeps_the_policy_and_asks_for_shares_of_time() -> None:
    policy = {"Name": "always"}
    assert podman.update({"NanoCpus": 5 * 10**8}, policy) == {
        "CpuPeriod": 100_000,
        "CpuQuota": 50_000,
        "RestartPolicy": policy,
    }
    assert podman.update({"RestartPolicy": {"Name": "no"}}, policy) == {"RestartPolicy": {"Name": "no"}}


@pytest.mark.parametrize(
    ("info", "ignored"),
    [
        ({"CgroupVersion": "1", "CgroupDriver": "systemd", "SecurityOptions": ["name=rootless"]}, True),
        ({"CgroupVersion": "2", "CgroupDriver": "cgroupfs", "SecurityOptions": ["name=rootless"]}, True),
        ({"CgroupVersion": "2", "CgroupDriver": "systemd", "SecurityOptions": ["name=rootless"]}, False),
        ({"CgroupVersion": "1", "CgroupDriver": "cgroupfs", "SecurityOptions": []}, False),
    ],
)
def test_who_ignores_limits(info: dict[str, Any], ignored: bool) -> None:
    assert podman.limits_ignored(info) is ignored


def test_a_refused_load_is_told_by_the_format_that_it_has() -> None:
    words = "failed to load image: none:\n * oci: open x: not a directory\n * oci-archive: blob is missing\n * dir: no"
    assert podman.load_refusal(words) == "blob is missing"
    assert podman.load_refusal("no space left on device") == "no space left on device"


def test_what_podman_never_tells_is_no_difference() -> None:
    told = {"Cmd": ["sh"]}
    image = Image("x", Identity(("a",), told), 1, (), 1, podman.UNTOLD)
    assert image.is_one_of(Identity(("a",), {**told, "Healthcheck": {"Test": ["NONE"]}}))
    assert not image.is_one_of(Identity(("a",), {**told, "User": "1"}))
    assert not image.is_one_of(Identity(("b",), told))
