# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role engine where there is none: Docker's repository, by apt and by dnf, the keys that it trusts, and Podman."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.plays import Run, run_play
from tests.lab import docker_packages, machines as lab_machines
from tests.lab.docker_packages import Repositories
from tests.lab.host import wait_until
from tests.lab.machines import BARE, SHARED, Machine

PORT = 8000
URL = f"http://localhost:{PORT}"
NAME = "bare3"
START = "Start the engine, now and whenever the machine starts"
PODMAN_NEEDS = ("conmon", "crun", "golang-github-containers-common", "libgpgme11", "libsubid4")


@pytest.fixture(scope="module")
def repositories(bare_machines: dict[str, Machine]) -> Repositories:
    """Give the repositories, on the machines' shared directory."""
    return docker_packages.publish(BARE.shared / "docker-packages")


@pytest.fixture
def bare(repositories: Repositories) -> Iterator[Machine]:
    """Give a new machine, which serves the repositories to itself."""
    lab_machines.discard(lab_machines.running(BARE)[NAME])
    machine = lab_machines.start(BARE)[NAME]
    folder = SHARED / repositories.folder.name
    machine.run("systemd-run", "python3", "-m", "http.server", "--directory", folder, str(PORT))
    listening = ("sh", "-c", f"ss --listening --tcp --numeric | grep :{PORT}")
    wait_until(lambda: machine.succeeds(*listening), "the machine's web server", 60)
    yield machine
    lab_machines.discard(machine)
    lab_machines.start(BARE)


@pytest.fixture
def alma(bare: Machine) -> Machine:
    """Give a machine that takes itself for AlmaLinux, with dnf and rpm; what dnf does not know of is Debian's."""
    needed = (
        "dnf",
        "python3-dnf",
        "rpm",
        "gpg",
        "iptables",
        "libdevmapper1.02.1",
        "libseccomp2",
        "python3-docker",
        "tini",
    )
    bare.run("apt-get", "update")
    bare.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends", *needed)
    bare.run("tee", "/etc/redhat-release", stdin=b"AlmaLinux release 9.4 (Seafoam Ocelot)\n")
    os_release = b'NAME="AlmaLinux"\nID=almalinux\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
    bare.run("sh", "-c", "rm /etc/os-release /etc/debian_version && cat >/etc/os-release", stdin=os_release)
    bare.run("install", "-D", "/dev/stdin", "/etc/dnf/vars/releasever", stdin=b"9\n")
    bare.run("mkdir", "/etc/yum.repos.d")
    return bare


def _apply(*arguments: str, **variables: Any) -> Run:
    wanted = {"engine_source": "docker", "engine_repository_url": URL, **variables}
    task = {"ansible.builtin.import_role": {"name": "haku.river.engine"}, "vars": wanted}
    return run_play(BARE.inventory, NAME, [task], *arguments)


def test_apt_installs_dockers_packages_if_the_key_is_the_known_one(repositories: Repositories, bare: Machine) -> None:
    assert "checksum" in _apply().failed()  # the key of Docker's own repository is another
    assert not bare.succeeds("test", "-e", "/etc/apt/sources.list.d/docker.sources")

    trusted = {"engine_repository_key_checksum": repositories.checksum}
    _apply(**trusted).succeeded()
    assert bare.run("dpkg-query", "--show", "--showformat=${Status}", "docker-ce") == "install ok installed"
    assert bare.succeeds("docker", "version")
    assert _apply(**trusted).succeeded().changed == []


def test_an_installed_containerd_is_not_replaced(repositories: Repositories, bare: Machine) -> None:
    bare.run("apt-get", "update")
    bare.run("apt-get", "install", "--yes", "--no-install-recommends", "containerd")
    complaint = _apply(engine_repository_key_checksum=repositories.checksum).failed()
    assert "Packages need to be removed but remove is disabled" in complaint
    assert bare.succeeds("dpkg-query", "--show", "containerd")


def test_podman_is_given_no_options_that_it_would_not_read(alma: Machine) -> None:
    options = {"registry-mirrors": ["https://mirror.example.org"]}
    assert "which reads none of them" in _apply(engine_source="distribution", engine_daemon_options=options).failed()
    assert not alma.succeeds("test", "-e", "/etc/docker/daemon.json")


def test_dnf_installs_dockers_packages_if_the_key_is_the_known_one(repositories: Repositories, alma: Machine) -> None:
    assert "fingerprint" in _apply(engine_sdk_source="none").failed()
    assert not alma.succeeds("test", "-e", "/etc/yum.repos.d/docker-ce-stable.repo")

    trusted = {"engine_repository_key_fingerprint": repositories.fingerprint, "engine_sdk_source": "none"}
    _apply(**trusted).succeeded()
    assert alma.succeeds("rpm", "--query", "docker-ce", "containerd.io")
    assert alma.succeeds("docker", "version")
    assert _apply(**trusted).succeeded().changed == []


def test_dnf_installs_podman_where_the_distribution_has_no_docker(alma: Machine) -> None:
    alma.run("apt-get", "install", "--yes", "--no-install-recommends", *PODMAN_NEEDS)
    repository = f"[baseos]\nname=BaseOS\nbaseurl={URL}/almalinux\ngpgcheck=0\n"
    alma.run("tee", "/etc/yum.repos.d/almalinux.repo", stdin=repository.encode())
    first = _apply(engine_source="distribution").succeeded()
    assert first.changed == [("Install podman, podman-docker", NAME), (START, NAME)]
    assert alma.succeeds("rpm", "--query", "podman", "podman-docker")
    ask = "import docker; print(docker.from_env().version()['Components'][0]['Name'])"
    assert alma.run("python3", "-c", ask) == "Podman Engine\n"
    assert alma.run("systemctl", "is-enabled", "podman.socket") == "enabled\n"
    assert _apply(engine_source="distribution").succeeded().changed == []

    complaint = _apply(engine_source="distribution", engine_users=["nobody"]).failed()
    assert complaint.startswith(f"On {NAME} there is no group docker that engine_users could be put into.")


def test_other_packages_than_the_usual_can_be_named(bare: Machine) -> None:
    packages = {"engine_packages": ["docker.io=20.10"], "engine_sdk_packages": ["python3-docker=5.0"]}
    forecast = _apply("--check", engine_source="distribution", **packages).succeeded()
    assert forecast.changed == [("Install docker.io=20.10", NAME), ("Install python3-docker=5.0", NAME)]
