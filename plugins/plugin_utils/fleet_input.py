# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleet data as filters get them from a play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.haku.river.plugins.plugin_utils.fleet import Fleet, parse_fleet


def read_fleet(data: Mapping[str, Any], plugin: str) -> Fleet:
    """Read fleet data; `AnsibleFilterError`, in the name of the plugin, if it is none."""
    try:
        return parse_fleet(data)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        sentence = f"haku.river.{plugin} takes fleet data, see the documentation of haku.river.fleet_table: {error!r}"
        raise AnsibleFilterError(sentence) from error
