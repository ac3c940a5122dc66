# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that continues on its package is the same container to everyone but the engine, on real engines."""

from __future__ import annotations

import re
import signal
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import CHECKOUT, converge, fail, result_of, start_module, succeed, until
from tests.lab import images
from tests.lab.engines import PODMAN
from tests.lab.host import run

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


def begin(environment: Environment, *options: str | Path, command: tuple[str, ...] = ("sleep", "infinity")) -> None:
    """Start the env container anew, with these options of `docker run`."""
    environment.engine.docker("rm", "--force", "--volumes", environment.name)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.env={environment.name}")
    environment.engine.docker(
        "run", "--detach", "--name", environment.name, *labels, *options, images.BUSYBOX.name, *command
    )


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


# When something fails


@dataclass(frozen=True)
class Scene:
    """How the container is before a package that fails."""

    environment: Environment
    container_id: str

    def assert_restored(self, versions: list[int]) -> None:
        """The former container runs under its name, and nothing else is left."""
        environment = self.environment
        assert environment.inspect(environment.name)["Id"] == self.container_id
        assert environment.running
        assert containers(environment) == [environment.name]
        assert environment.versions == versions
        assert environment.references == [environment.image_of(version) for version in versions]
        assert environment.leftovers == []


def containers(environment: Environment) -> list[str]:
    """The names of all containers that may be the environment's."""
    names = environment.engine.docker("ps", "--all", "--format", "{{.Names}}").split()
    return [name for name in names if name in (environment.name, f"{environment.name}.FORMER")]


def running(environment: Environment) -> list[str]:
    """The names of the containers that run."""
    return environment.engine.docker("ps", "--filter", "status=running", "--format", "{{.Names}}").split()


def test_a_container_that_cannot_be_made_again_is_put_back(one_environment: Environment) -> None:
    engine, other = one_environment.engine, f"{one_environment.name}-other"
    engine.docker("create", "--name", other, "--volume", "/data", images.BUSYBOX.name)
    begin(one_environment, "--init", "--network=none", "--volumes-from", other)
    engine.docker("rm", other)
    scene = Scene(one_environment, one_environment.inspect(one_environment.name)["Id"])
    sentence = fail("haku_tar", **one_environment.options)
    assert sentence.startswith(f"Cannot create container {one_environment.name}: No such container: {other}")
    scene.assert_restored([])
    assert succeed("haku_tar", **one_environment.options, rebase=False)["published"]


def test_a_container_that_is_in_the_way_is_told_with_the_remedy(one_environment: Environment) -> None:
    former = f"{one_environment.name}.FORMER"
    one_environment.engine.docker("create", "--name", former, images.BUSYBOX.name)
    container = one_environment.inspect(one_environment.name)["Id"]
    assert f"docker rm --force {former}" in fail("haku_tar", **one_environment.options)
    assert one_environment.inspect(one_environment.name)["Id"] == container
    assert one_environment.running
    assert one_environment.references == []
    assert succeed("haku_tar", **one_environment.options, rebase=False)["published"]


@pytest.mark.parametrize("namespace", ["network", "pid", "ipc"])
def test_a_container_whose_namespaces_others_use_continues_as_it_is(
    one_environment: Environment, namespace: str
) -> None:
    engine, sidecar = one_environment.engine, f"{one_environment.name}-sidecar"
    begin(one_environment, "--init", "--network=none", "--ipc=shareable")
    joined = dict.fromkeys(["network"], "none") | {namespace: f"container:{one_environment.name}"}
    options = [f"--{name}={mode}" for name, mode in joined.items()]
    engine.docker("run", "--detach", "--name", sidecar, *options, images.BUSYBOX.name, "sleep", "infinity")
    container = one_environment.inspect(one_environment.name)["Id"]
    seen = converge("haku_tar", **one_environment.options)
    assert (seen.first["published"], seen.first["rebased"]) == (True, False)
    assert sidecar in str(seen.first["warnings"])
    assert one_environment.inspect(one_environment.name)["Id"] == container
    engine.docker("restart", "--time", "1", sidecar)
    engine.docker("rm", "--force", sidecar)
    one_environment.execute("echo more > /more")
    assert succeed("haku_tar", **one_environment.options)["rebased"]


@pytest.mark.parametrize(
    ("restart", "words"),
    [("no", "it ended with exit code 3"), ("unless-stopped", "it ended, and the engine started it again")],
)
def test_a_container_that_does_not_keep_running_on_its_package_is_put_back(
    one_environment: Environment, restart: str, words: str
) -> None:
    here = (
        "[ -e /host ] || hostname >/host; [ $(cat /host) = $(hostname) ] || { date >/gave-up; exit 3; }; sleep infinity"
    )
    begin(one_environment, "--init", "--network=none", f"--restart={restart}", command=("sh", "-c", here))
    one_environment.execute("dd if=/dev/urandom of=/large bs=1M count=200 2>/dev/null")
    scene = Scene(one_environment, one_environment.inspect(one_environment.name)["Id"])
    sentence = fail("haku_tar", **one_environment.options)
    assert f"does not keep running on that image: {words}" in sentence
    assert one_environment.inspect(one_environment.name)["Id"] == scene.container_id
    assert one_environment.running
    assert containers(one_environment) == [one_environment.name]
    assert one_environment.references == []
    assert succeed("haku_tar", **one_environment.options, rebase=False)["published"] is False


def test_a_container_that_cannot_start_any_more_keeps_its_name_and_files(one_environment: Environment) -> None:
    # The engine's directory is the one that is the same inside its mount namespace and outside.
    device = one_environment.engine.socket.with_name(f"{one_environment.name}-device")
    run("mknod", device, "c", "1", "3")
    begin(one_environment, "--init", "--network=none", "--device", f"{device}:/dev/given")
    one_environment.execute("echo precious > /precious")
    container = one_environment.inspect(one_environment.name)["Id"]
    device.unlink()
    sentence = fail("haku_tar", **one_environment.options)
    assert sentence.startswith(f"Cannot start container {one_environment.name}: ")
    assert str(device) in sentence
    assert one_environment.inspect(one_environment.name)["Id"] == container
    assert containers(one_environment) == [one_environment.name]
    assert one_environment.references == []
    run("mknod", device, "c", "1", "3")
    one_environment.engine.docker("start", one_environment.name)
    assert one_environment.execute("cat /precious") == "precious\n"
    assert succeed("haku_tar", **one_environment.options)["rebased"]
    one_environment.engine.docker("rm", "--force", one_environment.name)
    device.unlink()


def test_what_is_done_while_a_tarball_is_written_survives_that_it_cannot_be(one_environment: Environment) -> None:
    one_environment.execute("dd if=/dev/zero of=/large bs=1M count=64 2>/dev/null; echo before > /before")
    run("mount", "-t", "tmpfs", "-o", "size=32m", "none", one_environment.tarballs)
    try:
        with start_module("haku_tar", **one_environment.options) as packager:
            until(lambda: one_environment.leftovers)
            packager.send_signal(signal.SIGSTOP)
            one_environment.execute("echo meanwhile > /meanwhile")
            packager.send_signal(signal.SIGCONT)
            assert "No space left on device" in result_of(packager)["msg"]
    finally:
        run("umount", one_environment.tarballs)
    assert containers(one_environment) == [one_environment.name]
    assert one_environment.execute("cat /before /meanwhile") == "before\nmeanwhile\n"
    result = succeed("haku_tar", **one_environment.options)
    assert result["published"]
    assert one_environment.references == [one_environment.image_of(result["version"])]
    succeed("haku_sync", **one_environment.options)
    assert one_environment.run_image("cat /before /meanwhile") == "before\nmeanwhile\n"


SUICIDE = """
import os, signal, threading
from ansible_collections.haku.river.plugins.module_utils.engine import Engine

when, method, count = {step!r}.split()
real, left = getattr(Engine, method), int(count)
packager = os.getpid()

def die(*_arguments):
    if os.getpid() == packager:  # and not whoever it left behind to restore the container
        os.kill(packager, signal.SIGKILL)

def deadly(self, *arguments, **options):
    global left
    left -= 1
    if left == 0 and when == "before":
        die()
    if left == 0 and when == "during":
        threading.Timer({seconds}, die).start()
    answer = real(self, *arguments, **options)
    if left == 0:
        die()
    return answer

setattr(Engine, method, deadly)
"""


def killed_package(environment: Environment, tmp_path: Path, step: str, seconds: float = 0) -> None:
    """Package in a process that kills itself before, during or after its n-th call of a method of the engine."""
    (tmp_path / "sitecustomize.py").write_text(SUICIDE.format(step=step, seconds=seconds))
    path = {"PYTHONPATH": f"{CHECKOUT / '.checkout'}:{tmp_path}"}
    with start_module("haku_tar", **environment.options, environment=path) as packager:
        packager.communicate()
    assert packager.returncode == -signal.SIGKILL


@pytest.mark.parametrize("engine", ["d28c"], indirect=True)
@pytest.mark.parametrize(
    "step",
    [
        "after load 1",
        "after rename_container 1",
        "during create_container 1",
        "after create_container 1",
        "after start 1",
        "before remove_container 1",
        "after remove_container 1",
    ],
)
def test_a_packager_killed_at_any_step_costs_nothing(environment: Environment, tmp_path: Path, step: str) -> None:
    succeed("haku_tar", **environment.options)
    environment.execute("echo precious > /precious")
    killed_package(environment, tmp_path, step, seconds=0.01)
    # Whatever was left is nobody's work: somebody else brings the container back.
    until(lambda: environment.name in running(environment))
    assert environment.execute("cat /precious") == "precious\n"
    result = succeed("haku_tar", **environment.options)
    assert containers(environment) == [environment.name]
    assert environment.running
    assert environment.execute("cat /precious") == "precious\n"
    assert environment.versions == [result["version"]]
    assert environment.leftovers == []


def test_a_former_container_that_a_restart_of_the_engine_has_started_goes_all_the_same(
    one_environment: Environment, tmp_path: Path
) -> None:
    begin(one_environment, "--init", "--network=none", "--restart=always")
    # By then nobody watches over the packager any more, who would remove the former container.
    killed_package(one_environment, tmp_path, "before remove_container 1")
    one_environment.engine.docker("start", f"{one_environment.name}.FORMER")
    one_environment.execute("echo precious > /precious")
    assert succeed("haku_tar", **one_environment.options)["rebased"]
    assert containers(one_environment) == [one_environment.name]
    assert one_environment.execute("cat /precious") == "precious\n"


@pytest.mark.parametrize("engine", ["d26"], indirect=True)
@pytest.mark.parametrize("step", ["after rename_container 1", "after create_container 1"])
def test_a_stopped_container_is_put_back_by_the_next_package(
    environment: Environment, tmp_path: Path, step: str
) -> None:
    environment.execute("echo precious > /precious")
    environment.engine.docker("stop", environment.name)
    killed_package(environment, tmp_path, step)
    assert f"{environment.name}.FORMER" in containers(environment)
    assert succeed("haku_tar", **environment.options)["rebased"]
    assert containers(environment) == [environment.name]
    assert not environment.running
    environment.engine.docker("start", environment.name)
    assert environment.execute("cat /precious") == "precious\n"


FORGETFUL = """
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError

real = Engine.{method}

def forgetful(self, *arguments, **options):
    Engine.{method} = real
    real(self, *arguments, **options)
    raise EngineError("The answer was lost")

Engine.{method} = forgetful
"""


@pytest.mark.parametrize("engine", ["d26"], indirect=True)
@pytest.mark.parametrize("method", ["rename_container", "create_container", "load", "start"])
def test_an_engine_whose_answer_is_lost_has_done_no_harm(environment: Environment, tmp_path: Path, method: str) -> None:
    scene = Scene(environment, environment.inspect(environment.name)["Id"])
    (tmp_path / "sitecustomize.py").write_text(FORGETFUL.format(method=method))
    path = {"PYTHONPATH": f"{CHECKOUT / '.checkout'}:{tmp_path}"}
    assert "The answer was lost" in fail("haku_tar", **environment.options, environment=path)
    scene.assert_restored([])


LOSES_THE_DIRECTORY = """
import os
from ansible_collections.haku.river.plugins.module_utils.engine import Engine

real = Engine.{method}

def loses(self, *arguments, **options):
    Engine.{method} = real
    os.rename({directory!r}, {directory!r} + ".gone")
    return real(self, *arguments, **options)

Engine.{method} = loses
"""


@pytest.mark.parametrize("method", ["stop", "start", "remove_container"])
def test_a_directory_that_goes_away_meanwhile_is_named_and_the_container_stays(
    one_environment: Environment, tmp_path: Path, method: str
) -> None:
    succeed("haku_tar", **one_environment.options)
    one_environment.execute("echo precious > /precious")
    directory = one_environment.tarballs
    (tmp_path / "sitecustomize.py").write_text(LOSES_THE_DIRECTORY.format(method=method, directory=str(directory)))
    path = {"PYTHONPATH": f"{CHECKOUT / '.checkout'}:{tmp_path}"}
    assert str(directory) in fail("haku_tar", **one_environment.options, environment=path)
    assert containers(one_environment) == [one_environment.name]
    assert one_environment.running
    directory.with_name(f"{directory.name}.gone").rename(directory)
    assert len(one_environment.versions) == 1
    assert one_environment.execute("cat /precious") == "precious\n"
    newest = succeed("haku_tar", **one_environment.options)["version"]
    assert one_environment.versions == [newest]
    assert one_environment.leftovers == []
    assert one_environment.references == [one_environment.image_of(newest)]


@pytest.mark.parametrize("engine", ["d20"], indirect=True)
@pytest.mark.parametrize("step", ["after load 1", "after start 1"])
def test_the_next_package_removes_the_image_of_a_killed_one(
    environment: Environment, tmp_path: Path, step: str
) -> None:
    succeed("haku_tar", **environment.options)
    environment.execute("echo more > /more")
    killed_package(environment, tmp_path, step)
    until(lambda: environment.name in running(environment))
    environment.execute("echo more > /still")
    result = succeed("haku_tar", **environment.options)
    assert environment.references == [environment.image_of(result["version"])]


@pytest.mark.parametrize("engine", ["d20", "d28c"], indirect=True)
def test_without_the_container_its_image_goes_too_unless_another_needs_it(environment: Environment) -> None:
    image = environment.image_of(succeed("haku_tar", **environment.options)["version"])
    guest = f"{environment.name}-guest"
    environment.engine.docker("create", "--name", guest, image)
    environment.execute("echo more > /more")
    newer = environment.image_of(succeed("haku_tar", **environment.options)["version"])
    assert environment.references == [image, newer]
    environment.engine.docker("rm", guest)
    succeed("haku_container", name=environment.name, docker_host=environment.engine.url, state="absent")
    assert environment.references == [image]
    environment.engine.docker("image", "rm", image)


def test_two_environments_are_packaged_at_once(one_environment: Environment) -> None:
    other = Environment(one_environment.engine, f"other-{one_environment.name}", one_environment.shared)
    other.create(images.BUSYBOX.name)
    both = (one_environment, other)
    try:
        for package in range(2):
            for each in both:
                each.execute(f"echo {package} {each.name} > /name")
            started = [start_module("haku_tar", **each.options) for each in both]
            results = [result_of(process) for process in started]
            for each, result in zip(both, results, strict=True):
                assert result["rebased"], result
                assert each.versions == [result["version"]]
                assert containers(each) == [each.name]
                assert each.execute("cat /name") == f"{package} {each.name}\n"
                assert each.references == [each.image_of(result["version"])]
    finally:
        other.engine.docker("rm", "--force", other.name)
        for reference in other.references:
            other.engine.docker("image", "rm", reference)
