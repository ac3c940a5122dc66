# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel has written down of processes that it killed for their memory.

An engine should tell (`OOMKilled`), but where control groups are of their first version, it may hear nothing of it.
"""

from __future__ import annotations

import ctypes
import re

# The actions of syslog(2), which glibc and musl call klogctl.
_READ_ALL, _SIZE = 3, 10
# Linux 5.0 and newer; and before. Both name the control group, and that bears the container's ID.
# https://github.com/torvalds/linux/blob/master/mm/oom_kill.c (dump_oom_victim), mm/memcontrol.c
_VICTIM = r"(oom-kill:.*task_memcg=\S*{id}|Task in \S*{id}\S* killed as a result of limit)"


def was_killed_for_memory(container_id: str) -> bool:
    """Whether the kernel's log says so; False too where it may not be read, or where the container ran elsewhere."""
    return names_victim(_kernel_log(), container_id)


def names_victim(log: str, container_id: str) -> bool:
    """Whether a process of this container is named among those that were killed."""
    return re.search(_VICTIM.format(id=re.escape(container_id)), log) is not None


def _kernel_log() -> str:
    libc = ctypes.CDLL(None)
    size = libc.klogctl(_SIZE, None, 0)
    if size <= 0:
        return ""
    buffer = ctypes.create_string_buffer(size)
    length = libc.klogctl(_READ_ALL, buffer, size)
    return buffer.raw[: max(length, 0)].decode(errors="replace")
