# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role resonite: a server as the published images run it, whose worlds are saved before anything that ends it."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.integration.modules import fail, succeed
from tests.integration.plays import Run, run_play, run_playbook
from tests.lab import console_double, images
from tests.lab.engines import Engine
from tests.lab.host import remove
from tests.lab.registry import Registry

PASSWORD, STEAM = "h0rse-battery", "st3am-staple"
SECRETS = (PASSWORD, STEAM)
BEFORE_AN_END = ["Save each world", "Shut the server down"]
ROLE = {"name": "Apply the role", "ansible.builtin.include_role": {"name": "haku.river.resonite"}}


def on(engine: str) -> pytest.MarkDecorator:
    """Run a test on one engine, where none has a part in what it promises: several share the work."""
    return pytest.mark.parametrize("engine", [engine], indirect=True)


def configuration(*worlds: str) -> dict[str, Any]:
    """A configuration with these worlds."""
    return {
        "loginCredential": "bot@example.org",
        "loginPassword": PASSWORD,
        "startWorlds": [{"isEnabled": True, "sessionName": world} for world in worlds],
    }


@dataclass(frozen=True)
class Place:
    """An engine, and the name of a server that there is not yet; `folder` is seen by the engine as well."""

    engine: Engine
    name: str
    folder: Path
    inventory: Path

    @property
    def image(self) -> str:
        """The name of its image."""
        return f"lab.example/{self.name}:latest"

    @property
    def config(self) -> Path:
        """The file that the server has its configuration from."""
        return self.folder / "Config/Config.json"

    @property
    def record(self) -> list[str]:
        """What the server has noted so far."""
        return (self.folder / "Logs/record.log").read_text().splitlines()

    @property
    def found(self) -> dict[str, Any]:
        """What the engine says of the container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", self.name))[0]
        return found

    def publish(self, version: int, image: str | None = None) -> None:
        """Make an image as the published ones are, with the console double for a server."""
        maker = f"{self.name}-maker"
        self.engine.docker("create", "--name", maker, images.provide(images.PYTHON, self.engine))
        self.engine.docker("cp", console_double.__file__, f"{maker}:/server.py")
        changes = [
            "ENV RESONITE=1",
            f"ENV VERSION={version}",
            'VOLUME ["/Config", "/Logs"]',
            'CMD ["python3", "/server.py"]',
        ]
        repository, _colon, tag = (image or self.image).rpartition(":")
        # Not the command line: Podman does not understand its way to say this.
        APIClient(self.engine.url).commit(maker, repository, tag, changes=changes)
        self.engine.docker("rm", maker)

    def keywords(self, **variables: Any) -> dict[str, Any]:
        """Those of a play that applies the role; variables that are None are left out."""
        usual = {
            "resonite_name": self.name,
            "resonite_image": self.image,
            "resonite_dir": str(self.folder),
            "resonite_folders": {"Logs": "/Logs"},
            "resonite_network_mode": "none",
            "resonite_secret_env": {"STEAMLOGIN": f"steamer {STEAM}"},
            "resonite_config": configuration("First", "Second World"),
            "resonite_start_retries": 20,
            "resonite_start_delay": 1,
        }
        given = {name: value for name, value in {**usual, **variables}.items() if value is not None}
        return {"vars": given, "environment": {"DOCKER_HOST": self.engine.url}}

    def apply(self, *arguments: str, **variables: Any) -> Run:
        """Apply the role."""
        run = run_play(self.inventory, "localhost", [ROLE], *arguments, **self.keywords(**variables))
        for secret in SECRETS:
            assert secret not in run.printed
        return run

    def see(self, **variables: Any) -> str:
        """Apply the role; returns what Ansible prints unless it is told how, errors of hidden tasks among it."""
        playbook = self.inventory.with_name("seen.json")
        play = {"hosts": "localhost", "gather_facts": False, "tasks": [ROLE], **self.keywords(**variables)}
        playbook.write_text(json.dumps([play]))
        environment = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
        return run_playbook(playbook, self.inventory, environment=environment).printed

    def converge(self, **variables: Any) -> list[str]:
        """Forecast, apply and apply again; returns what was changed, which was forecast, and not changed twice."""
        forecast = self.apply("--check", "--diff", **variables).succeeded()
        first = self.apply("--diff", **variables).succeeded()
        assert forecast.changed == first.changed
        assert self.apply(**variables).succeeded().changed == []
        return [task for task, _machine in first.changed]

    def ask(self, command: str) -> Any:
        """Type a command into the server's console; returns the answer as data."""
        options: dict[str, Any] = {"name": self.name, "docker_host": self.engine.url}
        return succeed("haku_console", command=command, answer_timeout=30, **options)["parsed"]

    def clean(self) -> None:
        """Remove all that is of the server."""
        for container in (self.name, f"{self.name}-maker"):
            if self.engine.docker("ps", "--all", "--quiet", "--filter", f"name=^/?{container}$"):
                self.engine.docker("rm", "--force", "--volumes", container)
        for image in self.engine.docker("images", "--quiet", "--filter", f"reference={self.image}").split():
            self.engine.docker("rmi", "--force", image)
        remove(self.folder)


def _place(engine: Engine, folder: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    name = f"resonite-{zlib.crc32(request.node.name.encode()):08x}"
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(
        f"localhost ansible_connection=local ansible_pipelining=true ansible_python_interpreter={sys.executable}\n"
    )
    place = Place(engine, name, folder / name, inventory)
    place.clean()
    place.publish(1)
    yield place
    place.clean()


@pytest.fixture
def place(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give an engine with an image; the test names the engine."""
    yield from _place(engine, engine.socket.parent / "shared", request, tmp_path)


# Having a server


@on("d28")
def test_a_server_runs_and_is_updated(place: Place) -> None:
    place.apply().succeeded()
    assert place.apply().succeeded().changed == []
    former = place.engine.docker("images", "--quiet", "--no-trunc", place.image).strip()
    place.publish(2)
    place.apply().succeeded()
    assert place.record == ["start 1", "save First", "save Second World", "shutdown", "start 2"]
    place.engine.docker("rmi", former)


@pytest.fixture
def podman_place(podman: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give the same on Podman."""
    yield from _place(podman, podman.socket.parent / "shared", request, tmp_path)


def test_a_server_runs_and_is_updated_on_podman(podman_place: Place) -> None:
    podman_place.apply().succeeded()
    assert podman_place.apply().succeeded().changed == []
    former = podman_place.engine.docker("images", "--quiet", "--no-trunc", podman_place.image).strip()
    podman_place.publish(2)
    podman_place.apply().succeeded()
    podman_place.engine.docker("rmi", "--force", former)
    assert podman_place.record == ["start 1", "save First", "save Second World", "shutdown", "start 2"]


@on("podman-rootless")
def test_an_engine_without_root_is_refused_before_anything_is_done(place: Place) -> None:
    sentence = place.apply().failed()
    assert f"{place.name} on localhost needs an engine that runs as root: user 2000 in a container" in sentence
    assert not place.folder.exists()
    assert place.name not in place.engine.docker("ps", "--all", "--format", "{{.Names}}").split()


@on("d26")
def test_a_server_runs_as_the_published_images_do(place: Place) -> None:
    assert place.converge() == [
        "Make the server's directory",
        "Make the folders that it writes to",
        "Write the configuration",
        "Have the container",
    ]
    found = place.found
    wanted = {"Tty": True, "OpenStdin": True, "StopSignal": "SIGINT", "User": "2000:2000"}
    assert {key: found["Config"][key] for key in wanted} == wanted
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    mounts = {it["Destination"]: it["RW"] for it in found["Mounts"]}
    assert mounts == {"/Config": False, "/Logs": True}
    stat = place.config.stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (2000, 2000, 0o400)
    assert [world["name"] for world in place.ask("worlds")] == ["First", "Second World"]
    assert place.record == ["start 1"]


@on("d28c")
def test_a_configuration_can_come_from_a_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text('{"loginPassword":"' + PASSWORD + '", "startWorlds":\n[{"sessionName": "Wörld"}]}\n')
    place.converge(resonite_config=None, resonite_config_file=str(file))
    assert place.config.read_bytes() == file.read_bytes()
    assert [world["name"] for world in place.ask("worlds")] == ["Wörld"]


@pytest.mark.parametrize(
    "variables",
    [{"resonite_config": None}, {"resonite_config_file": "x.json"}, {"resonite_config": [PASSWORD]}],
    ids=["none", "both", "no dictionary"],
)
@on("d20")
def test_there_has_to_be_one_configuration(place: Place, variables: dict[str, Any]) -> None:
    complaint = place.apply("-vvv", **variables).failed()
    assert "resonite_config" in complaint
    assert not place.folder.exists()


# Updating it


@pytest.fixture
def started(place: Place) -> Place:
    """Give a server that runs."""
    place.apply().succeeded()
    return place


@on("d26")
def test_a_newer_image_is_an_update(started: Place) -> None:
    found, former = started.found, started.engine.docker("images", "--quiet", "--no-trunc", started.image).strip()
    started.publish(2)
    assert started.converge() == [*BEFORE_AN_END, "Have the container"]
    assert started.record == ["start 1", "save First", "save Second World", "shutdown", "start 2"]
    assert started.found["Id"] != found["Id"]
    started.engine.docker("rmi", former)


@on("d28c")
def test_another_configuration_needs_no_new_container(started: Place) -> None:
    found = started.found
    assert started.converge(resonite_config=configuration("Third")) == [
        *BEFORE_AN_END,
        "Write the configuration",
        "Have the container",
    ]
    assert started.record == ["start 1", "save First", "save Second World", "shutdown", "start 1"]
    assert [world["name"] for world in started.ask("worlds")] == ["Third"]
    assert started.found["Id"] == found["Id"]


@on("d20")
def test_what_differs_is_put_right_and_named(started: Place) -> None:
    variables: dict[str, Any] = {"resonite_env": {"LOGS": "5"}, "resonite_volumes": ["/etc/hostname:/etc/name:ro"]}
    said = started.apply("--check", **variables).succeeded().result("Say why the container is replaced")
    assert said["msg"] == f"{started.name} gets a new container. What differs: env, volume_binds"
    assert started.converge(**variables) == [*BEFORE_AN_END, "Have the container"]
    assert "LOGS=5" in started.found["Config"]["Env"]
    # What is not declared any more goes again.
    assert started.converge() == [*BEFORE_AN_END, "Have the container"]
    assert "LOGS=5" not in started.found["Config"]["Env"]
    assert "/etc/name" not in [mount["Destination"] for mount in started.found["Mounts"]]


@on("d26")
def test_what_can_be_changed_in_place_leaves_the_server_alone(started: Place) -> None:
    assert started.converge(resonite_restart_policy="no") == ["Have the container"]
    assert started.found["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert started.record == ["start 1"]


@pytest.fixture
def main_place(main_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give the same on the host's own engine, the only one that reaches the registry."""
    yield from _place(main_engine, tmp_path, request, tmp_path)


def test_a_newer_image_of_the_registry_is_an_update(main_place: Place, registry: Registry) -> None:
    docker, image = main_place.engine.docker, f"{registry.address}/{main_place.name}:latest"

    def push() -> None:
        docker("tag", main_place.image, image)
        docker("push", image)

    variables = {"resonite_image": image, "resonite_pull": "always"}
    push()
    docker("rmi", image)
    try:
        assert main_place.converge(**variables)[0] == "Pull the image"
        docker("tag", image, f"{image}-former")
        main_place.publish(2)
        push()
        docker("tag", f"{image}-former", image)
        # A check asks no registry.
        assert main_place.apply("--check", **variables).succeeded().changed == []
        run = main_place.apply(**variables).succeeded()
        assert [task for task, _machine in run.changed] == ["Pull the image", *BEFORE_AN_END, "Have the container"]
        assert main_place.record[-2:] == ["shutdown", "start 2"]
        assert main_place.apply(**variables).succeeded().changed == []
    finally:
        docker("rm", "--force", "--volumes", main_place.name)
        docker("rmi", "--force", image, f"{image}-former")


# Other states


@on("d28c")
def test_a_server_is_restarted_stopped_started_and_removed(started: Place) -> None:
    restart = started.apply(resonite_state="restarted").succeeded()
    assert [task for task, _machine in restart.changed] == [*BEFORE_AN_END, "Have the container"]
    ended = ["save First", "save Second World", "shutdown"]
    assert started.record == ["start 1", *ended, "start 1"]

    assert started.converge(resonite_state="stopped") == BEFORE_AN_END
    assert started.found["State"]["Status"] == "exited"
    assert started.record[5:] == ended

    assert started.converge() == ["Have the container"]
    assert started.record[8:] == ["start 1"]

    assert started.converge(resonite_state="absent", resonite_config=None) == [
        *BEFORE_AN_END,
        "Remove the container",
        "Remove the configuration",
    ]
    assert started.record[9:] == ended
    assert not started.config.exists()
    assert "no instance" in fail("haku_console", name=started.name, docker_host=started.engine.url, command="status")


@on("d26")
def test_a_paused_server_is_saved_as_well(started: Place) -> None:
    started.engine.docker("pause", started.name)
    started.apply("--check", resonite_state="stopped").succeeded()
    assert started.found["State"]["Status"] == "paused"
    run = started.apply(resonite_state="stopped").succeeded()
    assert [task for task, _machine in run.changed] == ["Let the paused server go on", *BEFORE_AN_END]
    assert started.record == ["start 1", "save First", "save Second World", "shutdown"]


@on("d20")
def test_what_the_console_says_when_a_server_ends_is_not_shown(place: Place) -> None:
    # A world's name is in the prompt, and in the list of the worlds.
    variables: dict[str, Any] = {"resonite_config": configuration(PASSWORD), "resonite_env": {"SHUTDOWN": "600"}}
    place.apply(**variables).succeeded()
    run = place.apply("-vvv", resonite_state="stopped", resonite_grace_period=5, **variables).succeeded()
    assert place.record == ["start 1", f"save {PASSWORD}", "shutdown", "SIGINT"]
    said = run.result("Say that it did not shut itself down")["msg"]
    assert said.startswith(f"{place.name} on localhost was ended by SIGINT. The console of ")
    assert "has not answered 'shutdown' in 5 s" in said


# What goes wrong


@on("d20")
def test_a_server_that_gives_up_is_told_with_its_last_words_but_without_secrets(place: Place) -> None:
    variables: dict[str, Any] = {"resonite_config": {"loginPassword": PASSWORD}, "resonite_restart_policy": "no"}
    complaint = place.apply("-vvv", "--diff", **variables).complaints[-1]
    assert f"{place.name} on localhost does not answer. {place.name} does not keep running" in complaint
    assert "Logging in with ********, to Steam with ******** ********" in complaint
    assert "The configuration names no worlds" in complaint
    seen = place.see(**variables)
    assert "does not answer" in seen
    assert not [secret for secret in SECRETS if secret in seen]
    # A server that fails has nothing to save; the next run mends it.
    assert place.converge() == ["Write the configuration", "Have the container"]


@on("d26")
def test_a_server_that_does_not_answer_is_told_and_ended_only_when_its_worlds_need_not_be_saved(
    place: Place,
) -> None:
    slow = {"resonite_env": {"BOOT": "600"}, "resonite_start_retries": 0}
    run = place.apply("-vvv", "--diff", **slow)
    assert run.code != 0
    assert (
        f"{place.name} on localhost does not answer. The console of {place.name} shows no prompt"
        in (run.complaints[-1])
    )
    assert "It is running, and its log ends with: " in run.complaints[-1]

    before = place.config.read_bytes()
    other = {**slow, "resonite_config": configuration("Other")}
    run = place.apply(**other)
    assert run.code != 0
    assert (
        f"The worlds of {place.name} on localhost could not be saved, so it goes on as it is." in (run.complaints[-1])
    )
    assert f"The console of {place.name} shows no prompt" in run.complaints[-1]
    assert "To end it without saving, set resonite_save to false." in run.complaints[-1]
    assert place.found["State"]["Status"] == "running"
    assert place.config.read_bytes() == before
    assert place.record == ["start 1"]

    changed = place.converge(resonite_save=False, resonite_grace_period=1)
    assert changed == ["Shut the server down", "Have the container"]
    assert place.record == ["start 1", "SIGINT", "start 1"]


@on("d28")
def test_a_server_with_a_world_that_it_does_not_save_goes_on(place: Place) -> None:
    unsaved = {"resonite_env": {"UNSAVED": "First"}}
    place.apply(**unsaved).succeeded()
    run = place.apply(resonite_state="stopped", **unsaved)
    assert run.code != 0
    assert "The server answered 'save' with: Cannot save focused world!" in run.complaints[-1]
    assert place.found["State"]["Status"] == "running"
    assert place.record == ["start 1", "save Second World"]

    place.apply(resonite_state="stopped", resonite_save_failure="(?!)", **unsaved).succeeded()
    assert place.record == ["start 1", "save Second World", "save Second World", "shutdown"]


@on("d28c")
def test_a_container_that_the_engine_refuses_is_told_without_secrets(place: Place) -> None:
    refused = [f"/{PASSWORD}:relative"]
    run = place.apply("-vvv", "--diff", resonite_volumes=refused)
    assert run.code != 0
    assert f"{place.name} on localhost cannot be had as declared: Error creating container" in run.complaints[-1]
    seen = place.see(resonite_volumes=refused)
    assert "cannot be had as declared" in seen
    assert PASSWORD not in seen


@on("d20")
def test_an_image_that_is_not_there_is_told_before_anything_ends(started: Place) -> None:
    complaint = started.apply(resonite_image="lab.example/none:1", resonite_pull="never").complaints[-1]
    assert "Cannot find image with name lab.example/none:1" in complaint
    assert started.record == ["start 1"]
