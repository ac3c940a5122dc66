# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's directory with an inventory and declarations, from which playbooks are run on a Host and two Runners."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.plays import CHECKOUT, Run, run_playbook
from tests.lab.machines import MACHINES, Machine

ENVIRONMENT = "haku-playbooks"
"""Begins the names of all environments of a project."""


@dataclass(frozen=True)
class Project:
    """A user's directory: inventory, variables, a role and a file of tasks."""

    folder: Path
    machines: dict[str, Machine]

    @property
    def inventory(self) -> Path:
        """The inventory, beside which the variables are."""
        return self.folder / "inventory.ini"

    def declare(self, *environments: dict[str, Any], **variables: Any) -> None:
        """Write the variables of all machines (JSON is YAML too)."""
        path = self.folder / "group_vars/all.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"haku_environments": environments, **variables}))

    def run(self, playbook: str, *arguments: str) -> Run:
        """Run one of the playbooks from the checkout, or one by its full name."""
        there = playbook if "." in playbook else CHECKOUT / f"playbooks/{playbook}.yml"
        roles = {"ANSIBLE_ROLES_PATH": str(self.folder / "roles")}
        return run_playbook(there, self.inventory, *arguments, environment=roles)

    def clean(self) -> None:
        """Remove what the playbooks made on the machines and on the shared directory."""
        for machine in self.machines.values():
            for container in machine.docker("ps", "--all", "--quiet", "--filter", f"name=^{ENVIRONMENT}").split():
                machine.docker("rm", "--force", "--volumes", container)
            for image in machine.docker("images", "--quiet", f"hakuriver/{ENVIRONMENT}*").split():
                machine.docker("rmi", "--force", image)
        shutil.rmtree(MACHINES.shared / "hakuriver-containers", ignore_errors=True)
