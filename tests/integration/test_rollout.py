# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Distributing in batches and going back, on a Host and two Runners over SSH; all three are Runners here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import versions
from tests.integration.plays import CHECKOUT, Run
from tests.integration.project import ENVIRONMENT, Project
from tests.lab import images
from tests.lab.machines import MACHINES, Machine
from tests.lab.small_engine import small_engine
from tests.lab.stuck import STUCK, stuck_directory

NODES = ("node1", "node2", "node3")
FIRST, SECOND, THIRD = (1767225600 + day * 86400 for day in range(3))
LOAD = "Bring the images to the versions of this roll-out"
GOOD = "grep -q good /greeting"
NOT_ON_NODE3 = {
    "smoke_test": "! grep -q bad /greeting || ! grep -q node3 /machine",
    "smoke_test_options": {"volumes": ["/etc/hostname:/machine:ro"]},
}
"""Finds a bad version on one machine only."""


def publish(version: int, greeting: str, environment: str = ENVIRONMENT, **files: bytes) -> Path:
    """Put a version into the shared directory that says `greeting`; returns its tarball."""
    said = {"greeting": f"{greeting}\n".encode()}
    return versions.publish(MACHINES.shared / "hakuriver-containers", environment, version, {**said, **files})


def has(machine: Machine, environment: str = ENVIRONMENT) -> dict[str, str]:
    """What the images of an environment on a machine say, by tag."""
    tags = machine.docker("images", "--format", "{{.Tag}}", f"hakuriver/{environment}").split()
    run = ("run", "--rm", "--network", "none")
    return {tag: machine.docker(*run, f"hakuriver/{environment}:{tag}", "cat", "/greeting").strip() for tag in tags}


@pytest.fixture
def fleet(project: Project) -> Project:
    """Give a project whose three machines have the first version, which is good."""
    inventory = project.inventory.read_text()
    project.inventory.write_text(inventory.replace("[haku_runners]", "[haku_runners]\nnode1"))
    declare(project, smoke_test=GOOD)
    load(project, publish(FIRST, "good"))
    return project


def load(project: Project, tarball: Path) -> None:
    """Make a version the current one of all three machines."""
    for node in NODES:
        project.machines[node].docker("load", stdin=tarball)


def declare(project: Project, variables: dict[str, Any] | None = None, **keys: Any) -> None:
    """Declare the environment with these keys, and these variables of all machines."""
    project.declare({"name": ENVIRONMENT, "image": images.BUSYBOX.name, **keys}, **(variables or {}))


def everywhere(project: Project, environment: str = ENVIRONMENT) -> list[dict[str, str]]:
    return [has(project.machines[node], environment) for node in NODES]


def report(run: Run) -> str:
    """What the run showed in the end, as one line."""
    return " ".join(run.result("Show what every Runner has")["msg"].split())


def changed_on(run: Run, task: str = LOAD) -> set[str]:
    return {machine for changed, machine in run.changed if changed == task}


def failed_on(run: Run) -> dict[str, str]:
    """The machines on which the run failed in the end, and what was said of each."""
    assert run.code != 0
    return {machine: result["msg"] for task, machine, result in run.results() if task == "Say what went wrong"}


def test_a_version_that_passes_gets_everywhere_and_leaves_no_former_image(fleet: Project) -> None:
    publish(SECOND, "good too")
    forecast = fleet.run("distribute", "--check").succeeded()
    run = fleet.run("distribute").succeeded()
    assert forecast.changed == run.changed == [(LOAD, node) for node in NODES]
    assert "would become 2026-01-02 00:00:00" in report(forecast)
    assert "node3: haku-playbooks: 2026-01-01 00:00:00 became 2026-01-02 00:00:00, smoke test passed" in report(run)
    assert everywhere(fleet) == [{"base": "good too"}] * 3
    assert fleet.run("distribute").succeeded().changed == []


def test_a_canary_that_fails_its_smoke_test_stops_the_rollout(fleet: Project) -> None:
    publish(SECOND, "bad")
    run = fleet.run("distribute", "--extra-vars=haku_canaries=node3")
    assert changed_on(run) == {"node3"}
    assert everywhere(fleet) == [{"base": "good"}] * 3
    said = failed_on(run)
    assert set(said) == {"node3"}
    assert (
        f"The smoke test of {ENVIRONMENT} failed in hakuriver/{ENVIRONMENT}:base, as it ended with 1" in said["node3"]
    )
    assert f"The roll-out of {ENVIRONMENT} 2026-01-02 00:00:00 was stopped" in report(run)
    assert "On node3: The smoke test" in report(run)
    assert "node3: haku-playbooks: 2026-01-02 00:00:00 was put back to 2026-01-01 00:00:00" in report(run)


def test_a_version_that_only_a_later_batch_finds_bad_is_put_back_everywhere(fleet: Project) -> None:
    declare(fleet, {"haku_keep_images": 1}, **NOT_ON_NODE3)
    publish(SECOND, "good too")
    fleet.run("distribute").succeeded()
    # The image of the former version is all that there is of it.
    publish(THIRD, "bad")
    (MACHINES.shared / f"hakuriver-containers/{ENVIRONMENT}-{SECOND}.tar").unlink()
    run = fleet.run("distribute", "--extra-vars=haku_canaries=node2 haku_batches=1")
    assert [machine for task, machine in run.changed if task == LOAD] == ["node2", "node1", "node3"]
    assert set(failed_on(run)) == {"node3"}
    assert changed_on(run, "Put back the versions that were there before") == set(NODES)
    assert everywhere(fleet) == [{"base": "good too", str(FIRST): "good"}] * 3


def test_a_first_version_that_fails_leaves_no_image(project: Project) -> None:
    declare(project, smoke_test=GOOD)
    publish(FIRST, "bad")
    run = project.run("distribute")
    assert set(failed_on(run)) == {"node2"}
    assert "was put back to no image" in report(run)
    assert everywhere(project) == [{}] * 3


def test_where_no_version_was_current_the_former_images_stay_as_they_were(fleet: Project) -> None:
    for node in NODES:
        fleet.machines[node].docker("tag", f"hakuriver/{ENVIRONMENT}:base", f"hakuriver/{ENVIRONMENT}:{FIRST}")
        fleet.machines[node].docker("rmi", f"hakuriver/{ENVIRONMENT}:base")
    publish(SECOND, "bad")
    assert "was put back to no image" in report(fleet.run("distribute"))
    assert everywhere(fleet) == [{str(FIRST): "good"}] * 3


def test_a_runner_that_is_lost_while_it_is_put_back_keeps_the_former_image(fleet: Project) -> None:
    declare(fleet, {}, **NOT_ON_NODE3)
    publish(SECOND, "bad")
    inventory = fleet.inventory.read_text()
    away = "ansible_port='{{ 9 if haku_river_tested is defined and haku_river_put_back is not defined else 22 }}'"
    fleet.inventory.write_text(inventory.replace("\nnode3 ", f"\nnode3 {away} "))
    run = fleet.run("distribute", "--extra-vars=haku_batches=100%")
    assert "It could not be put back." in failed_on(run)["node3"]
    assert everywhere(fleet) == [{"base": "good"}, {"base": "good"}, {"base": "bad", str(FIRST): "good"}]


def test_a_bad_environment_does_not_keep_a_good_one_back(fleet: Project) -> None:
    other = f"{ENVIRONMENT}-other"
    both = [{"name": name, "image": images.BUSYBOX.name, "smoke_test": GOOD} for name in (ENVIRONMENT, other)]
    fleet.declare(*both)
    publish(SECOND, "bad")
    publish(SECOND, "good", other)
    run = fleet.run("distribute")
    assert set(failed_on(run)) == {"node1"}
    assert everywhere(fleet) == [{"base": "good"}] * 3
    assert everywhere(fleet, other) == [{"base": "good"}] * 3


@pytest.fixture
def full_engine(machines: dict[str, Machine]) -> Iterator[Path]:
    """Give an interpreter on node2 whose engine has a disk that is too small."""
    with small_engine(machines["node2"], "full", megabytes=24) as interpreter:
        yield interpreter


@pytest.fixture
def stuck(machines: dict[str, Machine]) -> Iterator[str]:
    """Give the variables that make a Runner of node3 whose shared directory is on a file server that is silent."""
    with stuck_directory(machines["node3"]) as interpreter:
        address = machines["node3"].address
        variables = f"ansible_python_interpreter={interpreter} haku_shared_dir={STUCK} haku_look_timeout=20"
        yield f"ansible_host={address} {variables}"


@pytest.fixture
def other(project: Project) -> Iterator[str]:
    """Give a directory on node2 with a newer version than any in the shared one; both are marked."""
    node2, there = project.machines["node2"], "/srv/other/hakuriver-containers"
    node2.run("install", "-D", "/dev/stdin", f"{there}/.haku-river", stdin=b"theirs")
    node2.run("install", "/dev/null", f"{there}/{ENVIRONMENT}-{THIRD}.tar")
    shared = MACHINES.shared / "hakuriver-containers"
    shared.mkdir(exist_ok=True)
    (shared / ".haku-river").write_text("ours")
    yield "/srv/other"
    node2.run("rm", "-r", "/srv/other")


def test_runners_that_are_down_or_full_or_without_the_directory_are_named_and_the_rest_is_served(
    fleet: Project, full_engine: Path, stuck: str, other: str
) -> None:
    address = fleet.machines["node2"].address
    more = [
        f"down ansible_host={address} ansible_port=9",
        f"full ansible_host={address} ansible_python_interpreter={full_engine}",
        f"apart ansible_host={address} haku_shared_dir=/not-mounted",
        f"hung {stuck}",
        f"other ansible_host={address} haku_shared_dir={other}",
        # Reached when it is looked at, and lost after that.
        f"lost ansible_host={address} ansible_port='{{{{ 9 if haku_river_look is defined else 22 }}}}'",
    ]
    inventory = fleet.inventory.read_text()
    fleet.inventory.write_text(inventory.replace("[haku_runners]", "\n".join(["[haku_runners]", *more])))
    publish(SECOND, "good too", large=bytes(40 << 20))
    run = fleet.run("distribute")
    assert everywhere(fleet) == [{"base": "good too"}] * 3
    said = failed_on(run)
    assert set(said) == {"down", "full", "apart", "hung", "other", "lost"}
    assert "Connection refused" in said["down"]
    assert "no space left on device" in said["full"]
    assert "There is no directory /not-mounted" in said["apart"]
    assert "It had not answered after 20 seconds." in said["hung"]
    assert f"{other}/hakuriver-containers is not the directory that the Host has" in said["other"]
    assert "Connection refused" in said["lost"]
    for machine, sentence in said.items():
        assert " ".join(f"{machine}: {sentence}".split()) in report(run)
    assert changed_on(run) == set(NODES)


def test_a_runner_that_fails_before_is_in_the_report_and_counts(fleet: Project) -> None:
    losing = [{"ansible.builtin.fail": {"msg": "No engine"}, "when": "inventory_hostname == 'node3'"}]
    plays = [
        {"hosts": "haku_runners", "gather_facts": False, "tasks": losing},
        {"ansible.builtin.import_playbook": str(CHECKOUT / "playbooks/distribute.yml")},
    ]
    playbook = fleet.folder / "plays.yml"
    playbook.write_text(json.dumps(plays))
    publish(SECOND, "good too")
    few = fleet.run(str(playbook), "--extra-vars=haku_max_fail_percentage=20")
    assert "The roll-out was not begun: 1 of 3 Runners could not be looked at" in report(few)
    assert everywhere(fleet) == [{"base": "good"}] * 3
    run = fleet.run(str(playbook))
    assert run.code != 0
    assert "node3: It was not looked at, as it had failed before." in report(run)
    assert everywhere(fleet) == [{"base": "good too"}] * 2 + [{"base": "good"}]


def test_a_site_tells_in_the_end_why_runners_stayed_out(project: Project, other: str) -> None:
    node2 = project.machines["node2"]
    more = [
        f"down ansible_host={node2.address} ansible_port=9",
        f"apart ansible_host={node2.address} haku_shared_dir=/not-mounted",
        f"other ansible_host={node2.address} haku_shared_dir={other}",
    ]
    inventory = project.inventory.read_text()
    project.inventory.write_text(inventory.replace("[haku_runners]", "\n".join(["[haku_runners]", *more])))
    project.declare({"name": ENVIRONMENT, "image": images.provide(images.BUSYBOX, project.machines["node1"])})
    run = project.run("haku.river.site")
    assert run.code != 0
    assert changed_on(run) == {"node2", "node3"}
    told = report(run)
    assert "down: It could not be prepared. ssh: connect to host" in told
    assert "apart: It could not be prepared. On apart there is no /not-mounted/hakuriver-containers/.haku-river" in told
    assert f"other: It could not be prepared. {other}/hakuriver-containers on other is not the directory" in told
    assert "Of 5 machines, 3 have a problem." in told


def test_a_version_that_no_canary_could_try_gets_nowhere(fleet: Project) -> None:
    inventory = fleet.inventory.read_text()
    address = fleet.machines["node2"].address
    lost = f"lost ansible_host={address} ansible_port='{{{{ 9 if haku_river_look is defined else 22 }}}}'"
    fleet.inventory.write_text(inventory.replace("[haku_runners]", f"[haku_runners]\n{lost}"))
    publish(SECOND, "good too")
    run = fleet.run("distribute", "--extra-vars=haku_canaries=lost")
    assert set(failed_on(run)) == {"lost"}
    assert "None of the canaries could try it. On lost: ssh: connect to host" in report(run)
    assert everywhere(fleet) == [{"base": "good"}] * 3


def test_a_runner_that_cannot_run_the_test_goes_back_alone(fleet: Project) -> None:
    declare(fleet, smoke_test=GOOD, smoke_test_options={"network": "only-here"})
    for node in ("node1", "node2"):
        fleet.machines[node].docker("network", "create", "only-here")
    publish(SECOND, "good too")
    run = fleet.run("distribute")
    for node in ("node1", "node2"):
        fleet.machines[node].docker("network", "rm", "only-here")
    assert set(failed_on(run)) == {"node3"}
    assert everywhere(fleet) == [{"base": "good too"}, {"base": "good too"}, {"base": "good"}]


def test_too_many_runners_out_of_order_stop_it(fleet: Project) -> None:
    inventory = fleet.inventory.read_text()
    publish(SECOND, "good too")
    apart = "apart ansible_host={} haku_shared_dir=/not-mounted".format(fleet.machines["node2"].address)
    fleet.inventory.write_text(inventory.replace("[haku_runners]", f"[haku_runners]\n{apart}"))
    run = fleet.run("distribute", "--extra-vars=haku_max_fail_percentage=20")
    assert "The roll-out was not begun: 1 of 4 Runners" in report(run)
    assert set(failed_on(run)) == {"apart"}
    assert everywhere(fleet) == [{"base": "good"}] * 3


def test_going_back_and_forward_again(fleet: Project) -> None:
    only = f"--extra-vars=haku_only={ENVIRONMENT}"
    publish(SECOND, "good too")
    load(fleet, publish(THIRD, "bad, which nobody has tested"))
    assert "Say which environment" in fleet.run("rollback").failed()
    refused = fleet.run("rollback", only, "--extra-vars=haku_version=17").failed()
    assert f"There is {THIRD} (2026-01-03 00:00:00), {SECOND} (2026-01-02 00:00:00), {FIRST}" in refused

    forecast = fleet.run("rollback", only, "--check").succeeded()
    back = fleet.run("rollback", only).succeeded()
    assert forecast.changed == back.changed
    assert changed_on(back) == set(NODES)
    assert everywhere(fleet) == [{"base": "good too"}] * 3
    assert "2026-01-03 00:00:00 became 2026-01-02 00:00:00" in report(back)

    fleet.run("rollback", only, f"--extra-vars=haku_version={FIRST}").succeeded()
    assert everywhere(fleet) == [{"base": "good"}] * 3
    assert fleet.run("rollback", only, f"--extra-vars=haku_version={FIRST}").succeeded().changed == []
    assert "no version of haku-playbooks before" in fleet.run("rollback", only).failed()

    (MACHINES.shared / f"hakuriver-containers/{ENVIRONMENT}-{THIRD}.tar").unlink()
    fleet.run("distribute").succeeded()
    assert everywhere(fleet) == [{"base": "good too"}] * 3


def test_images_that_were_kept_are_gone_back_to_although_the_shared_directory_is_away(
    fleet: Project, stuck: str
) -> None:
    for node in NODES:
        fleet.machines[node].docker("tag", f"hakuriver/{ENVIRONMENT}:base", f"hakuriver/{ENVIRONMENT}:{FIRST}")
    load(fleet, publish(SECOND, "bad, which nobody has tested"))
    inventory = fleet.inventory.read_text().replace("haku_shared_dir=/shared", "haku_shared_dir=/not-mounted")
    fleet.inventory.write_text(inventory.replace("\nnode3 ", f"\nnode3 {stuck} "))
    run = fleet.run("rollback", f"--extra-vars=haku_only={ENVIRONMENT}")
    assert [machine["base"] for machine in everywhere(fleet)] == ["good"] * 3
    said = failed_on(run)
    assert set(said) == set(NODES)
    assert "There is no directory /not-mounted" in said["node1"]
    assert "It had not answered after 20 seconds." in said["node3"]
    assert "node3: haku-playbooks: 2026-01-02 00:00:00 became 2026-01-01 00:00:00" in report(run)


def test_as_many_former_images_stay_as_asked_and_no_more_if_it_is_less_later(fleet: Project) -> None:
    declare(fleet, {"haku_keep_images": 2})
    for node in NODES:
        fleet.machines[node].docker("tag", f"hakuriver/{ENVIRONMENT}:base", f"hakuriver/{ENVIRONMENT}:{FIRST}")
    load(fleet, publish(SECOND, "good 2"))
    publish(THIRD, "good 3")
    fleet.run("distribute").succeeded()
    assert everywhere(fleet) == [{"base": "good 3", str(SECOND): "good 2", str(FIRST): "good"}] * 3
    declare(fleet, {"haku_keep_images": 1})
    forecast = fleet.run("distribute", "--check").succeeded()
    run = fleet.run("distribute").succeeded()
    assert changed_on(run, "Remove former images, but for those to keep") == set(NODES)
    assert forecast.changed == run.changed
    assert everywhere(fleet) == [{"base": "good 3", str(SECOND): "good 2"}] * 3


def test_a_limit_leaves_the_others_alone(fleet: Project) -> None:
    publish(SECOND, "bad")
    run = fleet.run("distribute", "--limit=node3", "--extra-vars=haku_canaries=node2")
    assert set(failed_on(run)) == {"node3"}
    declare(fleet)
    assert changed_on(fleet.run("distribute", "--limit=node3").succeeded()) == {"node3"}


@pytest.mark.parametrize("smoke_test", [True, {"command": "true"}, ""], ids=["a bool", "a dictionary", "nothing"])
def test_a_smoke_test_that_is_none_is_refused_before_anything_is_done(fleet: Project, smoke_test: Any) -> None:
    publish(SECOND, "good too")
    declare(fleet, smoke_test=smoke_test)
    assert "A smoke_test is" in fleet.run("distribute").failed()
    assert everywhere(fleet) == [{"base": "good"}] * 3


def test_canaries_that_are_no_runners_are_refused(fleet: Project) -> None:
    assert "haku_canaries names none" in fleet.run("distribute", "--extra-vars=haku_canaries=gpu01").failed()
