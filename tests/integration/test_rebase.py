# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that continues on its package is the same container to everyone but the engine, on real engines."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import fail, succeed
from tests.integration.rebase import begin
from tests.lab import images
from tests.lab.engines import PODMAN

# What may differ between a container and its continuation. All else in `docker inspect` is the same.
MAY_DIFFER = re.compile(
    "|".join(
        (
            r"Id|Created|Image|Config\.Image|GraphDriver.*|Storage.*|ImageManifestDescriptor.*",
            r"(ResolvConf|Hostname|Hosts|Log)Path",  # hold the ID
            r"State\.(Pid|StartedAt|FinishedAt|Health.*)|ExecIDs.*",
            r"Config\.Labels\.haku\.river\.(image|continues)",
            r"NetworkSettings\.(SandboxID|SandboxKey|EndpointID|Networks\.[^.]+\.EndpointID)",
            r"NetworkSettings\.Networks\.[^.]+-b\.MacAddress",  # newer engines draw one at each start
            r"NetworkSettings\.Ports\.80/tcp\.0\.HostPort",  # published at any free port
            r"HostConfig\.Mounts\.\d\.VolumeOptions\.NoCopy",  # an anonymous volume is filled but once
        )
    )
)
# Podman does not tell which addresses were asked for, and draws others.
MAY_DIFFER_ON_PODMAN = re.compile(r"NetworkSettings\.Networks\.[^.]+\.(IPAddress|MacAddress)")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """All single values of a document, each by its path; what is empty is as good as not there."""
    if isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        items = [(str(number), each) for number, each in enumerate(value)]
    else:
        return {} if value is None else {path: value}
    leaves: dict[str, Any] = {}
    for key, each in items:
        leaves.update(flat(each, f"{path}.{key}" if path else key))
    return leaves


def remembered(environment: Environment) -> dict[str, Any]:
    """What `docker inspect` says of the container, without what a continuation may have otherwise."""
    answer = environment.inspect(environment.name)
    short_id = answer["Id"][:12]
    if answer["Config"]["Hostname"] == short_id:
        answer["Config"]["Hostname"] = "(generated)"
    volumes = {mount["Name"]: mount["Destination"] for mount in answer["Mounts"] if mount["Type"] == "volume"}
    binds = answer["HostConfig"]["Binds"] or []
    # An anonymous volume is one that no setting named; the continuation has to name it.
    answer["HostConfig"]["Binds"] = [bind for bind in binds if not re.match("[0-9a-f]{64}:", bind)] or None
    for mount in answer["HostConfig"].get("Mounts") or ():
        mount.setdefault("Source", next((name for name, place in volumes.items() if place == mount["Target"]), None))
    answer["Config"]["Env"] = sorted(answer["Config"]["Env"] or ())  # Podman tells them in any order
    answer["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    for mount in answer["Mounts"]:
        mount["Mode"] = sorted(set(mount["Mode"].split(",")) - {"", "nocopy", "z"})
    for endpoint in (answer["NetworkSettings"]["Networks"] or {}).values():
        for names in ("Aliases", "DNSNames"):
            endpoint[names] = sorted(set(endpoint.get(names) or ()) - {short_id})
    may_differ = [MAY_DIFFER, *([MAY_DIFFER_ON_PODMAN] if environment.engine.name in PODMAN else [])]
    return {
        path: value
        for path, value in flat(answer).items()
        if not any(pattern.fullmatch(path) for pattern in may_differ)
    }


def changed(environment: Environment) -> bool:
    """Whether haku_container_info says that the container is not as it was packaged."""
    (container,) = succeed("haku_container_info", **environment.options)["containers"]
    return bool(container["changed_since_packaged"])


@pytest.fixture
def networks(environment: Environment) -> Iterator[tuple[str, str]]:
    """Give two networks that the container is in no more when they are removed."""
    number = zlib.crc32(environment.name.encode()) % 200
    names = (f"{environment.name}-a", f"{environment.name}-b")
    for place, name in enumerate(names):
        environment.engine.docker("network", "create", f"--subnet=10.{20 + place}.{number}.0/24", name)
    yield names
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    environment.engine.docker("network", "rm", *names)


@pytest.fixture
def volume(environment: Environment) -> Iterator[str]:
    """Give a named volume."""
    name = f"{environment.name}-data"
    environment.engine.docker("volume", "create", name)
    yield name
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    environment.engine.docker("volume", "rm", name)


def test_the_continuation_is_the_same_container(
    environment: Environment, networks: tuple[str, str], volume: str
) -> None:
    number = zlib.crc32(environment.name.encode()) % 200
    # This command line sends no address to an engine with an API as old as d20's; the unit test has it.
    mac_address = () if environment.engine.name in ("d20", *PODMAN) else ("--mac-address", "02:42:00:00:00:09")
    # A network may be named by its ID, too.
    first = networks[0]
    if environment.engine.name == "d20":
        first = environment.engine.docker("network", "inspect", "--format", "{{.Id}}", first).strip()
    begin(
        environment,
        *("--init", "--tty", "--interactive", "--hostname", "chosen", "--domainname", "example.test"),
        *("--user", "65534:65534", "--workdir", "/tmp", "--entrypoint", "/bin/sleep"),
        *("--env", "A=1", "--env", "B=two words", "--label", "some=label"),
        *("--add-host", "db:10.0.0.9", "--dns", "10.0.0.53", "--dns-search", "example.test", "--dns-option", "ndots:2"),
        *("--ulimit", "nofile=512:1024", "--sysctl", "net.ipv4.ip_unprivileged_port_start=80"),
        *("--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--security-opt", "no-new-privileges"),
        *("--group-add", "7", "--oom-score-adj", "100", "--ipc", "shareable", "--shm-size", "16m"),
        *("--tmpfs", "/scratch:size=1m", "--mount", "type=tmpfs,target=/ramdisk,tmpfs-size=1m"),
        *("--volume", "/etc:/bind:ro", "--mount", "type=bind,source=/etc,target=/mounted,readonly"),
        *("--volume", f"{volume}:/named/", "--mount", f"type=volume,source={volume},target=/second,volume-nocopy"),
        *("--volume", "/anonymous", "--mount", "type=volume,target=/unnamed,volume-label=some=label"),
        *("--publish", "127.0.0.1::80", "--publish", "127.0.0.1:18080:81", "--expose", "82"),
        *("--restart", "on-failure:3", "--stop-signal", "SIGINT", "--stop-timeout", "3"),
        *("--memory", "256m", "--memory-reservation", "128m", "--cpus", "0.5", "--pids-limit", "50"),
        *("--health-cmd", "true", "--health-interval", "1h", "--health-retries", "2"),
        *("--log-driver", "json-file", "--log-opt", "max-size=1m", "--device", "/dev/null:/dev/other:r"),
        *("--network", first, "--network-alias", "web", "--ip", f"10.20.{number}.9", *mac_address),
        command=("infinity",),
    )
    join = ("network", "connect", "--alias", "second", "--ip", f"10.21.{number}.9")
    environment.engine.docker(*join, networks[1], environment.name)
    places = ("anonymous", "unnamed", "named")
    for place in places:
        as_root(environment, f"echo in {place} > /{place}/data")
    before = remembered(environment)
    for package in range(2):
        as_root(environment, f"echo {package} > /package")
        container = environment.inspect(environment.name)["Id"]
        result = succeed("haku_tar", **environment.options, keep=5)
        assert result["rebased"], result
        assert environment.inspect(environment.name)["Id"] != container
        assert remembered(environment) == before
        assert not changed(environment)
        for place in places:
            assert as_root(environment, f"cat /{place}/data") == f"in {place}\n"
    assert as_root(environment, "cat /package") == "1\n"
    if environment.engine.name not in PODMAN:
        assert as_root(environment, "nslookup second 127.0.0.11").count(f"10.21.{number}.9") == 1
    assert environment.references == [environment.image_of(environment.versions[0])]


def as_root(environment: Environment, command: str) -> str:
    """Run a shell command in the container as its root."""
    return environment.engine.docker("exec", "--user", "0", environment.name, "sh", "-c", command)


@pytest.fixture
def base_image(environment: Environment) -> Iterator[str]:
    """Give an image that, left to itself, runs something else, and has a volume with a file in it."""
    name = f"haku-test/{environment.name}:base"
    environment.execute("mkdir /filled && echo from the image > /filled/file")
    settings = ('ENTRYPOINT ["/bin/false"]', 'VOLUME ["/filled"]', 'ENV FROM="the image"', 'LABEL from="the image"')
    changes = [f"--change={setting}" for setting in settings]
    environment.engine.docker("commit", *changes, environment.name, name)
    environment.engine.docker("rm", "--force", environment.name)
    yield name
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    environment.engine.docker("image", "rm", name)


@pytest.mark.parametrize("engine", ["d20", "d28c"], indirect=True)
def test_what_haku_container_made_is_as_asked_after_packages(environment: Environment, base_image: str) -> None:
    asked: dict[str, Any] = {
        "name": environment.name,
        "docker_host": environment.engine.url,
        "image": base_image,
        "network": "none",
        "env": {"FROM": "the user"},
        "labels": {"from": "the user"},
        "volumes": ["/etc:/host:ro"],
        "memory": "64M",
        "cpus": 0.5,
        "restart_policy": "always",
    }
    succeed("haku_container", **asked)
    environment.execute("rm /filled/file")
    before = remembered(environment)
    for package in range(2):
        environment.execute(f"echo {package} > /package")
        assert succeed("haku_tar", **environment.options)["rebased"]
        assert remembered(environment) == before
        assert environment.execute("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").startswith("/sbin/docker-init -- sleep")
        assert environment.execute("ls /filled") == ""
        assert succeed("haku_container", **asked)["changed"] is False
        assert not changed(environment)
    volumes = environment.engine.docker("volume", "ls", "--quiet").split()
    (volume,) = (mount["Name"] for mount in environment.inspect(environment.name)["Mounts"] if mount.get("Name"))
    assert volume in volumes
    removal: dict[str, Any] = {"name": environment.name, "docker_host": environment.engine.url, "state": "absent"}
    assert succeed("haku_container", **removal)["changed"]
    assert volume not in environment.engine.docker("volume", "ls", "--quiet").split()


@pytest.mark.parametrize(
    "options",
    [
        ("--network=host",),
        ("--network=host", "--uts=host", "--pid=host"),
        ("--network=none", "--hostname=chosen", "--read-only"),
        ("--network=container:{other}",),
    ],
)
def test_the_continuation_has_the_same_place_in_the_machine(
    one_environment: Environment, options: tuple[str, ...]
) -> None:
    other = f"{one_environment.name}-other"
    one_environment.engine.docker("run", "--detach", "--name", other, "--init", images.BUSYBOX.name, "sleep", "999")
    try:
        begin(one_environment, "--init", *(option.format(other=other) for option in options))
        before = remembered(one_environment)
        assert succeed("haku_tar", **one_environment.options)["rebased"]
        assert remembered(one_environment) == before
    finally:
        one_environment.engine.docker("rm", "--force", one_environment.name, other)


def test_a_paused_package_and_one_that_changes_nothing_leave_the_container(one_environment: Environment) -> None:
    container = one_environment.inspect(one_environment.name)["Id"]
    result = succeed("haku_tar", **one_environment.options, consistency="pause")
    assert (result["published"], result["rebased"]) == (True, False)
    result = succeed("haku_tar", **one_environment.options)
    assert (result["published"], result["rebased"]) == (False, False)
    assert one_environment.inspect(one_environment.name)["Id"] == container
    assert one_environment.references == []


def test_an_adopted_container_continues_without_becoming_ours(one_environment: Environment) -> None:
    engine, name = one_environment.engine, one_environment.name
    engine.docker("rm", "--force", name)
    one_environment.create(images.BUSYBOX.name, "--label", "somebody=else")
    before = remembered(one_environment)
    for package in range(2):
        one_environment.execute(f"echo {package} > /package")
        assert succeed("haku_tar", **one_environment.options, adopt=True)["rebased"]
        assert remembered(one_environment) == before
    assert "has no labels" in fail("haku_tar", **one_environment.options)
