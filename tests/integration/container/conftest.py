# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A free name for a container: on each engine, on one, on the host's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.container.place import Place, free_place
from tests.lab import images
from tests.lab.engines import Engine


@pytest.fixture
def place(engine: Engine, busybox: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on the test's engine."""
    yield from free_place(engine, busybox, request, tmp_path)


@pytest.fixture
def one_place(engines: dict[str, Engine], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on one engine, for promises that the engine's version has no part in."""
    engine = engines["d28"]
    yield from free_place(engine, images.provide(images.BUSYBOX, engine), request, tmp_path)


@pytest.fixture
def main_place(main_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a free name on the host's own engine, which reaches the registry."""
    yield from free_place(main_engine, images.provide(images.BUSYBOX, main_engine), request, tmp_path)
