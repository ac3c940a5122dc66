# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as pytest fixtures; each starts what it needs on first use, so a test starts no more than its own part."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.environment import Environment
from tests.lab import (
    engines as lab_engines,
    images,
    machines as lab_machines,
    packages as lab_packages,
    registry as lab_registry,
)
from tests.lab.engines import RELEASES, Engine
from tests.lab.machines import Machine
from tests.lab.packages import Packages
from tests.lab.registry import Registry
from tests.lab.session import session


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests run side by side that have no engine to themselves in common: each group belongs to one worker."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    if "engine" in item.fixturenames:
        return str(item.callspec.params["engine"])
    if "one_environment" in item.fixturenames:
        return "d28"
    return "all engines" if "engines" in item.fixturenames else "host and machines"


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


@pytest.fixture(params=RELEASES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Give one engine; the test runs once on each of the four."""
    return engines[request.param]


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


@pytest.fixture(scope="session")
def bare_machines(lab: None) -> dict[str, Machine]:
    """Give bare1 (in haku_host) and bare2 (in haku_runners), which have no Docker."""
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
    """Give an environment with a running container; the test runs once on each of the four engines."""
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
