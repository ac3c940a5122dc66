# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles' documentation says of their variables holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.role_readme import ROLES, options, rendered


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request: pytest.FixtureRequest) -> Path:
    """Give the directory of one role; the test runs once for each."""
    path: Path = request.param
    return path


def test_the_defaults_are_those_that_are_documented(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert defaults == documented


def test_every_variable_bears_the_roles_name_and_is_explained(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_")
        assert option["type"]
        assert all(sentence.endswith(".") for sentence in option["description"]), name


def test_the_readme_has_every_variable_as_documented(role: Path) -> None:
    assert (role / "README.md").read_text() == rendered(role), "run: python -m tests.role_readme"


def test_all_roles_are_documented() -> None:
    assert [role.name for role in ROLES] == sorted(path.name for path in ROLES[0].parent.iterdir())
