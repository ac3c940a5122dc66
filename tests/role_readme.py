# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the tables of variables in the roles' README.md from meta/argument_specs.yml: `python -m tests.role_readme`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROLES = sorted(path.parents[1] for path in Path(__file__).parents[1].glob("roles/*/meta/argument_specs.yml"))

_BEGIN, _END = "<!-- variables, from meta/argument_specs.yml -->\n", "<!-- end of variables -->\n"
_PLUGIN = re.compile(r"P\(([a-z_.]+)#role\)")
_MARKUP = re.compile(r"[CVO]\(((?:[^\\)]|\\.)*)\)")


def options(role: Path) -> dict[str, dict[str, Any]]:
    """Return what the role says of its variables."""
    specification = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = specification["argument_specs"]["main"]["options"]
    return found


def rendered(role: Path) -> str:
    """Return the role's README.md as it should be: its own text, around a table that holds what `options` returns."""
    readme = (role / "README.md").read_text()
    before, rest = readme.split(_BEGIN)
    _outdated, after = rest.split(_END)
    rows = [f"| `{name}` | {_default(option)} | {_description(option)} |\n" for name, option in options(role).items()]
    table = "".join(["| variable | default | meaning |\n", "|---|---|---|\n", *rows])
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return ""
    default = option["default"]
    text = default if isinstance(default, str) and default else json.dumps(default)
    return f"`{text}`".replace("|", r"\|")


def _description(option: dict[str, Any]) -> str:
    text = "<br>".join(option["description"])
    # In GitHub's tables a bar ends the cell even within a code span.
    text = _MARKUP.sub(lambda found: f"`{_unescaped(found[1])}`", _PLUGIN.sub(r"`\1`", text))
    return text.replace("|", r"\|")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


if __name__ == "__main__":
    for path in ROLES:
        (path / "README.md").write_text(rendered(path))
