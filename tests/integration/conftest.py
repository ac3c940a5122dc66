# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as pytest fixtures; each starts what it needs on first use, so a test starts no more than its own part."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.environment import Environment
from tests.integration.project import Project
from tests.integration.vps import Place, make_key
from tests.lab import (
    engines as lab_engines,
    images,
    machines as lab_machines,
    packages as lab_packages,
    registry as lab_registry,
)
from tests.lab.engines import PODMAN, RELEASES, Engine
from tests.lab.host import PREFIX
from tests.lab.machines import Machine
from tests.lab.packages import Packages
from tests.lab.registry import Registry
from tests.lab.session import session


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for an engine on every one that its marks do not leave out, unless it names its own."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "engine" in metafunc.fixturenames and not any("engine" in names for names in named):
        left_out = {name for mark in metafunc.definition.iter_markers("not_on") for name in mark.args}
        engines = [name for name in (*RELEASES, *PODMAN) if name not in left_out]
        metafunc.parametrize("engine", engines, indirect=True)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests run side by side that have no engine to themselves in common: each group belongs to one worker.

    Machines come first: their tests are few and long, and begun last, all other workers would wait for them.
    """
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    sizes = Counter(map(_marked_group, items))
    items.sort(key=lambda item: ("machines" not in _marked_group(item), -sizes[_marked_group(item)]))


def _marked_group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else ""


def _group(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    names = _fixtures(item)
    if "engine" in names:
        return str(item.callspec.params["engine"])
    if {"one_environment", "one_vps_place"} & names:
        return "d28"
    if "bare_machines" in names:
        return "bare machines"
    if {"podman", "podmans"} & names:
        return "podman"
    if "engines" in names:
        return "all engines"
    return "host and machines" if "machines" in names else item.path.stem


def _fixtures(item: pytest.Function) -> set[str]:
    """All that a test stands on: where a test is parametrised, pytest's own list leaves out what fixtures ask for."""
    found: set[str] = set()
    left = list(item.fixturenames)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [asked for it in item._fixtureinfo.name2fixturedefs.get(name, ()) for asked in it.argnames]
    return found


@pytest.fixture(scope="session")
def lab() -> Iterator[None]:
    """Use the lab until the end of the test session, which stops it (unless HAKU_LAB_KEEP is set)."""
    with session():
        yield


@pytest.fixture(scope="session")
def main_engine(lab: None) -> Engine:
    """Give the host's own engine, the only one with a bridge network; whatever a test makes on it, it removes."""
    return lab_engines.start_main()


@pytest.fixture(scope="session")
def engines(lab: None) -> dict[str, Engine]:
    """Give the four engines d20, d26, d28 and d28c."""
    return lab_engines.start()


@pytest.fixture(scope="session")
def podmans(lab: None) -> dict[str, Engine]:
    """Give Podman's service of root (`podman`) and of another user (`podman-rootless`)."""
    return lab_engines.start(PODMAN)


@pytest.fixture
def podman(podmans: dict[str, Engine]) -> Engine:
    """Give Podman's service of root."""
    return podmans["podman"]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give one engine; the test runs once on each, on those that its marks do not leave out, or on those it names."""
    found: dict[str, Engine] = request.getfixturevalue("podmans" if request.param in PODMAN else "engines")
    return found[request.param]


@pytest.fixture
def busybox(engine: Engine) -> str:
    """Give the name of a 2 MB base image that the test's engine has."""
    return images.provide(images.BUSYBOX, engine)


@pytest.fixture
def python_image(engine: Engine) -> str:
    """Give the name of a base image with Python, pip and apt that the test's engine has."""
    return images.provide(images.PYTHON, engine)


@pytest.fixture(scope="session")
def registry(lab: None) -> Registry:
    """Give a registry that the host's own engine can pull from."""
    return lab_registry.start()


@pytest.fixture(scope="session")
def machines(lab: None) -> dict[str, Machine]:
    """Give node1 (in haku_host), node2 and node3 (in haku_runners), each with Docker."""
    return lab_machines.start(lab_machines.MACHINES)


@pytest.fixture(scope="session")
def inventory(machines: dict[str, Machine]) -> Path:
    """Give the Ansible inventory of the machines."""
    return lab_machines.MACHINES.inventory


@pytest.fixture
def project(machines: dict[str, Machine], inventory: Path, tmp_path: Path) -> Iterator[Project]:
    """Give a user's directory without declarations; what its playbooks make on the machines goes in the end."""
    shutil.copy(inventory, tmp_path / "inventory.ini")
    project = Project(tmp_path, machines)
    project.clean()
    yield project
    project.clean()


@pytest.fixture
def as_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have plays bring their modules to machines as files, and not through the standard input of the interpreter."""
    monkeypatch.setenv("ANSIBLE_PIPELINING", "0")


@pytest.fixture(scope="session")
def bare_machines(lab: None) -> dict[str, Machine]:
    """Give bare1 (in haku_host), bare2 and bare3 (in haku_runners), which have no Docker."""
    return lab_machines.start(lab_machines.BARE)


@pytest.fixture(scope="session")
def bare_inventory(bare_machines: dict[str, Machine]) -> Path:
    """Give the Ansible inventory of the machines without Docker."""
    return lab_machines.BARE.inventory


@pytest.fixture(scope="session")
def local_packages(machines: dict[str, Machine]) -> Packages:
    """Give a package repository on the machines' shared directory, for apt and for pip."""
    folder = "packages"
    return lab_packages.publish(lab_machines.MACHINES.shared / folder, lab_machines.SHARED / folder)


@pytest.fixture
def environment(engine: Engine, busybox: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    """Give an environment with a running container on the test's engine."""
    yield from _environment(engine, busybox, request, tmp_path)


@pytest.fixture
def one_environment(
    engines: dict[str, Engine], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Environment]:
    """Give an environment on one engine, for promises that no engine has a part in."""
    engine = engines["d28"]
    yield from _environment(engine, images.provide(images.BUSYBOX, engine), request, tmp_path)


def _environment(
    engine: Engine, base_image: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Environment]:
    (tmp_path / "shared/hakuriver-containers").mkdir(parents=True)
    name = f"env-{zlib.crc32(request.node.name.encode()):08x}"
    environment = Environment(engine, name, tmp_path / "shared")
    environment.create(base_image)
    yield environment
    engine.docker("rm", "--force", "--volumes", name, f"{name}.FORMER")
    for reference in environment.references:
        engine.docker("image", "rm", reference)


@pytest.fixture
def vps_place(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give the name of a VPS on the test's engine, which reaches nothing outside."""
    yield from _vps_place(engine, request, tmp_path)


@pytest.fixture
def one_vps_place(engines: dict[str, Engine], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give the name of a VPS on one engine, for promises that no engine has a part in."""
    yield from _vps_place(engines["d28"], request, tmp_path)


@pytest.fixture
def main_vps_place(main_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give the name of a VPS on the host's own engine, with its usual network."""
    yield from _vps_place(main_engine, request, tmp_path)


def _vps_place(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    beside = engine.name in RELEASES or engine.name in PODMAN
    # The prefix tells what is the lab's on an engine that has other containers, too.
    name = f"{'' if beside else f'{PREFIX}-'}v{zlib.crc32(request.node.name.encode()):08x}"
    within = lab_engines.within_network(engine.name) if beside else ()
    place = Place(engine, name, f"env-{name}", make_key(tmp_path), within, name if beside else None)
    if place.network:
        engine.docker("network", "create", "--driver", "bridge", place.network)
    engine.docker("tag", images.provide(images.SSH, engine), place.image)
    yield place
    place.clean()
