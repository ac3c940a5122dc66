# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What holds for modules besides their options: by default for those that speak to an engine alone."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/haku.river.river) in C(module_defaults) to set the engine's options of all modules.
    support: full
    membership:
      - haku.river.river
"""

    SHARED = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/haku.river.shared) in C(module_defaults) to set O(shared_dir) of all modules that have it.
    support: full
    membership:
      - haku.river.shared
"""

    RIVER_AND_SHARED = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/haku.river.river) in C(module_defaults) to set the engine's options of all modules, and
        C(group/haku.river.shared) to set O(shared_dir) of all that have it.
    support: full
    membership:
      - haku.river.river
      - haku.river.shared
"""

    STATE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what it would change, without changing it.
    support: full
  diff_mode:
    description: Returns what was and what is (or, in check mode, would be), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode); this module changes nothing.
    support: full
  diff_mode:
    description: This module changes nothing, so there is no difference to show.
    support: N/A
  idempotent:
    description: This module changes nothing.
    support: full
"""
