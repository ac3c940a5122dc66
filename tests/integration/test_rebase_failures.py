# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A package that fails, is killed or is not alone costs nothing: the env container is as before, on real engines."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.environment import Environment
from tests.integration.modules import CHECKOUT, converge, fail, result_of, start_module, succeed, until
from tests.integration.rebase import begin
from tests.lab import images
from tests.lab.host import run


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
