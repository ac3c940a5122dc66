# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action groups cover exactly the modules that have their options, which say so: others would refuse a default."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "plugins/modules").glob("haku_*.py"))
GROUPS: dict[str, list[str]] = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
MEMBERS = {
    "haku.river.attributes": {"river"},
    "haku.river.attributes.shared": {"shared"},
    "haku.river.attributes.river_and_shared": {"river", "shared"},
}


def documentation(module: Path) -> dict[str, Any]:
    for statement in ast.parse(module.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "DOCUMENTATION":
            read: dict[str, Any] = yaml.safe_load(ast.literal_eval(statement.value))
            return read
    raise LookupError(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_a_module_is_in_the_groups_whose_options_it_has(module: Path) -> None:
    documented = documentation(module)
    fragments = documented["extends_documentation_fragment"]
    has_engine = "haku.river.engine" in fragments
    has_directory = "haku.river.catalogue" in fragments or "shared_dir" in documented["options"]
    expected = {name for name, has in {"river": has_engine, "shared": has_directory}.items() if has}
    assert {name for name, members in GROUPS.items() if module.stem in members} == expected
    (told,) = [MEMBERS[fragment] for fragment in fragments if fragment in MEMBERS]
    assert told == expected


def test_the_groups_have_nothing_else() -> None:
    assert {member for members in GROUPS.values() for member in members} == {module.stem for module in MODULES}
