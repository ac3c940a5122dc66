# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines of Ansible's inventory, with all that its variables, configuration and environment say of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible import constants
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.haku.river.plugins.filter.connection_variables import connection_variables
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.plugin_utils.shell_machine import Machine, ssh_command, sudo_command


class Inventory:
    """The inventory of these sources, or the configured one; `loader` reads its files, and has the vault's secrets."""

    def __init__(self, loader: DataLoader, sources: Sequence[str] | None = None) -> None:
        self._loader = loader
        self._manager = InventoryManager(loader=self._loader, sources=list(sources or constants.DEFAULT_HOST_LIST))
        self._variables = VariableManager(loader=self._loader, inventory=self._manager)
        # Made known to the variable manager, they are among the variables of each machine.
        HostVars(inventory=self._manager, variable_manager=self._variables, loader=self._loader)

    @property
    def runners(self) -> list[str]:
        """The names of the Runners."""
        return self._group("haku_runners")

    def host(self) -> Machine:
        """The Host."""
        hosts = self._group("haku_host")
        if len(hosts) != 1:
            raise HakuError(
                f"The inventory group haku_host needs exactly one machine, and has {len(hosts)}",
                remedy="Name the inventory by -i; inventory.example.ini of the collection shows one",
            )
        return self.machine(hosts[0])

    def machine(self, name: str) -> Machine:
        """The machine of that name."""
        found = self._manager.get_host(name)
        if found is None:
            runners = ", ".join(self.runners) or "none"
            raise HakuError(
                f"The inventory has no machine {name}",
                remedy=f"Its Runners are: {runners}. Another inventory is named by -i",
            )
        return machine_of(_Templated(self._loader, self._variables.get_vars(host=found)))

    def _group(self, name: str) -> list[str]:
        names: list[str] = self._manager.get_groups_dict().get(name, [])
        return names


def machine_of(variables: Mapping[str, Any]) -> Machine:
    """The machine that these variables are of; raises `HakuError` where only Ansible could reach it."""
    name = variables["inventory_hostname"]
    said = connection_variables(variables)
    connection = _short(said.get("ansible_connection") or constants.DEFAULT_TRANSPORT)
    if connection not in ("ssh", "smart", "local"):
        raise HakuError(
            f"{name} is reached by the connection {connection}, and haku-shell knows only ssh and local",
            remedy="Set ansible_connection for it",
        )
    engine = variables.get("ansible_haku_docker_command")
    return Machine(
        name=name,
        ssh=() if connection == "local" else ssh_command(_options(connection_loader, "connection", "ssh", said)),
        become=_become(name, said),
        engine=tuple(shlex.split(engine) if isinstance(engine, str) else map(str, engine)) if engine else None,
    )


def _become(name: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    if not boolean(said.get("ansible_become", constants.DEFAULT_BECOME)):
        return ()
    method = _short(said.get("ansible_become_method") or constants.DEFAULT_BECOME_METHOD)
    if method != "sudo":
        raise HakuError(
            f"On {name}, ansible_become is done by {method}, and haku-shell knows only sudo",
            remedy="Let the user there use the engine (the group docker), or set ansible_become_method",
        )
    return sudo_command(_options(become_loader, "become", "sudo", said))


def _options(loader: Any, kind: str, plugin: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """A plugin's options as it would have them for a machine with these variables."""
    # Loading a plugin is what makes its options known to the configuration.
    loader.get(plugin, class_only=True)
    options: dict[str, Any] = constants.config.get_plugin_options(kind, plugin, variables=variables)
    return options


def _short(plugin: str) -> str:
    return plugin.rpartition("ansible.builtin.")[2]


class _Templated(Mapping[str, Any]):
    """Variables, each templated when it is asked for: another that cannot be does not matter then."""

    def __init__(self, loader: DataLoader, variables: Mapping[str, Any]) -> None:
        self._variables = variables
        self._templar = Templar(loader=loader, variables=variables)

    def __getitem__(self, name: str) -> Any:
        return self._templar.template(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)
