# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What numbers may be."""

from __future__ import annotations

import math

from ansible_collections.haku.river.plugins.module_utils.errors import HakuError


def check_from_zero(**options: float) -> None:
    """Raise `HakuError` unless each of these options is a number from 0 up."""
    for name, value in options.items():
        if not (math.isfinite(value) and value >= 0):
            raise HakuError(
                f"{name} is {value}, and cannot be below 0 or without end", remedy=f"Set {name} to 0 or more"
            )
