# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook `status`: what a Host and its Runners have, told also of those that are down."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plays import Run, run_play, run_playbook
from tests.lab import images
from tests.lab.machines import MACHINES, Machine
from tests.lab.stuck import STUCK, stuck_directory

ENVIRONMENT = "haku-status"
OTHER = f"{ENVIRONMENT}-other"
# Nobody listens there.
GONE = "gone ansible_host=127.0.0.1 ansible_port=1\n"


@dataclass(frozen=True)
class Found:
    """A fleet in which node2 has the newest version, node3 the one before, and node1, the Host, needs none."""

    inventory: Path
    older: int
    newer: int

    def add(self, lines: str, group: str = "haku_runners") -> None:
        """Add machines to a group of the inventory."""
        self.inventory.write_text(f"{self.inventory.read_text()}\n[{group}]\n{lines}")

    def status(self, *arguments: str) -> Run:
        """Run the playbook."""
        return run_playbook("haku.river.status", self.inventory, *arguments)


def table(run: Run) -> list[str]:
    """The lines that were shown in the end."""
    (shown,) = [result["msg"] for task, _machine, result in run.results() if task == "Show who has what"]
    return str(shown).splitlines()


def clean(machines: dict[str, Machine]) -> None:
    for machine in machines.values():
        for name in (ENVIRONMENT, OTHER):
            machine.docker("rm", "--force", "--volumes", name)
            for image in machine.docker("images", "--quiet", f"hakuriver/{name}").split():
                machine.docker("rmi", "--force", image)
    shutil.rmtree(MACHINES.shared / "hakuriver-containers", ignore_errors=True)


@pytest.fixture(scope="module")
def made(machines: dict[str, Machine], inventory: Path) -> Iterator[tuple[int, int]]:
    """Make two versions of an environment, and bring the machines to them."""
    clean(machines)
    (MACHINES.shared / "hakuriver-containers").mkdir()
    image = images.provide(images.BUSYBOX, machines["node1"])

    def package(greeting: str, name: str) -> int:
        container = {"name": name, "image": image, "pull": "never", "network": "none"}
        run_play(inventory, "node1", [{"haku.river.haku_container": container}]).succeeded()
        machines["node1"].docker("exec", name, "sh", "-c", f"echo {greeting} > /greeting")
        options = {"name": name, "shared_dir": "/shared", "keep": 9}
        run = run_play(inventory, "node1", [{"name": "Package", "haku.river.haku_tar": options}]).succeeded()
        return int(run.result("Package")["version"])

    def bring(hosts: str, name: str) -> None:
        sync = {"haku.river.haku_sync": {"name": name, "shared_dir": "/shared"}}
        run_play(inventory, hosts, [sync]).succeeded()

    older = package("one", ENVIRONMENT)
    package("one", OTHER)
    bring("haku_runners", ENVIRONMENT)
    bring("haku_runners", OTHER)
    newer = package("two", ENVIRONMENT)
    bring("node2", ENVIRONMENT)
    yield older, newer
    clean(machines)


@pytest.fixture
def found(made: tuple[int, int], inventory: Path, tmp_path: Path) -> Found:
    """Give a fleet to look at, with nothing declared."""
    own = tmp_path / "inventory.ini"
    shutil.copy(inventory, own)
    return Found(own, *made)


def test_the_table_says_who_has_what_and_who_is_down_and_why(found: Found) -> None:
    found.add(GONE)
    run = found.status().succeeded()
    assert run.changed == []
    lines = {line.split()[0]: line for line in table(run)[: table(run).index("")]}
    assert list(lines) == ["Machine", "(newest)", "gone", "node1", "node2", "node3"]
    assert lines["node3"].count("stale") == 1
    assert "stale" not in lines["node2"]
    assert lines["gone"].split() == ["gone", "?", "?"]
    told = " ".join(" ".join(table(run)).split())
    assert " gone: ssh: connect to host 127.0.0.1 port 1: Connection refused. " in told
    assert table(run)[-1] == "Of 4 machines, 1 has a problem, 1 is stale."


def test_the_page_is_written_where_it_was_asked_for_and_only_in_earnest(found: Found, tmp_path: Path) -> None:
    found.add(GONE)
    page = tmp_path / "status.html"
    asked = f"--extra-vars=haku_status_page={page}"
    written = [("Write the page", "node1")]
    assert found.status("--check", asked).succeeded().changed == written
    assert not page.exists()
    assert found.status(asked).succeeded().changed == written
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    for words in ("gone", "node2", "node3", ENVIRONMENT, OTHER, "Connection refused", "2 of 4 machines need attention"):
        assert words in html


def test_in_strict_mode_the_exit_status_tells(found: Found) -> None:
    complaint = found.status("--extra-vars=haku_status_strict=true").failed()
    assert complaint == "These machines need attention: node3."
    only = ["--extra-vars=haku_status_strict=true", f"--extra-vars=haku_only={OTHER}"]
    run = found.status(*only).succeeded()
    assert "nothing to do" in table(run)[-1]
    assert table(run)[0].split() == ["Machine", OTHER]


def test_a_machine_without_the_shared_directory_still_tells_what_it_has(found: Found) -> None:
    found.inventory.write_text(found.inventory.read_text().replace("node3 ", "node3 haku_shared_dir=/not-mounted "))
    run = found.status().succeeded()
    lines = table(run)
    assert any(line.startswith("node3: There is no directory /not-mounted.") for line in lines)
    (row,) = [line for line in lines if line.startswith("node3 ")]
    assert "stale" in row


def test_a_machine_with_another_directory_than_the_hosts_is_named(found: Found) -> None:
    marker = MACHINES.shared / "hakuriver-containers/.haku-river"
    marker.write_text("ours")
    other = "node3 haku_shared_dir=/shared/other haku_container_dir=tarballs "
    (MACHINES.shared / "other/tarballs").mkdir(parents=True)
    found.inventory.write_text(found.inventory.read_text().replace("node3 ", other))
    lines = table(found.status().succeeded())
    marker.unlink()
    shutil.rmtree(MACHINES.shared / "other")
    assert any(line.startswith("node3: /shared/other/tarballs is not the directory that the Host") for line in lines)
    assert lines[-1] == "Of 3 machines, 1 has a problem."


def test_a_file_server_that_does_not_answer_holds_nobody_up(found: Found, machines: dict[str, Machine]) -> None:
    with stuck_directory(machines["node3"]) as interpreter:
        stuck = f"node3 ansible_python_interpreter={interpreter} haku_shared_dir={STUCK} haku_look_timeout=20 "
        found.inventory.write_text(found.inventory.read_text().replace("node3 ", stuck))
        lines = table(found.status().succeeded())
    assert any(line.startswith("node3: It had not answered after 20 seconds.") for line in lines)
    (row,) = [line for line in lines if line.startswith("node3 ")]
    assert "stale" in row


def test_a_machine_without_an_engine_is_a_problem_with_its_cause(found: Found, machines: dict[str, Machine]) -> None:
    machines["node3"].run("systemctl", "stop", "docker.socket", "docker.service")
    try:
        run = found.status("--limit=node2,node3").succeeded()
    finally:
        machines["node3"].run("systemctl", "start", "docker.service")
    lines = table(run)
    assert [line.split()[0] for line in lines if line.startswith("node")] == ["node2", "node3", "node3:"]
    assert any(line.startswith("node3: No container engine answers") for line in lines)
    assert lines[-1] == "Of 2 machines, 1 has a problem."


def test_where_the_host_is_down_a_runner_lists_the_versions(as_files: None, found: Found) -> None:
    text = found.inventory.read_text()
    node1 = next(line for line in text.splitlines() if line.startswith("node1 "))
    found.inventory.write_text(text.replace(node1, GONE))
    run = found.status().succeeded()
    assert table(run)[-1] == "Of 3 machines, 1 has a problem, 1 is stale."
    # Ansible words it otherwise than with pipelining.
    assert "gone: ssh: connect to host 127.0.0.1 port 1: Connection refused." in table(run)
    assert any(line.startswith("(newest)  20") for line in table(run))


def test_an_inventory_without_machines_is_refused(found: Found) -> None:
    found.inventory.write_text("[other]\nnode9\n")
    assert "have no machine" in found.status().failed()


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_table_is_readable_in_the_terminal(found: Found, form: str) -> None:
    variables = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_CALLBACK_RESULT_FORMAT": form}
    run: Any = run_playbook("haku.river.status", found.inventory, environment=variables)
    assert run.code == 0
    shown = [line.strip().strip('",') for line in run.printed.splitlines()]
    rows = [line for line in shown if re.match(r"(\(newest\)|node3) +20", line)]
    assert len(rows) == 2
    assert rows[0].index("2") == rows[1].index("2", 6)
