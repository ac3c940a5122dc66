# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory on a file server that does not answer: whoever lists it waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .machines import Machine

STUCK = Path("/stuck")

# A kernel that waits for an NFS server keeps even those whom it should kill. This one lets them go after a while.
_SITE = f"""
import os
import time

scandir = os.scandir


def wait(path="."):
    if os.fspath(path).startswith("{STUCK}"):
        time.sleep(90)
    return scandir(path)


os.scandir = wait
"""


@contextmanager
def stuck_directory(machine: Machine) -> Iterator[Path]:
    """Give a Python interpreter on the machine to which `STUCK` is such a directory, for the length of the block."""
    site, interpreter = Path("/srv/stuck"), Path("/usr/local/bin/python3-stuck")
    machine.run("install", "-D", "/dev/stdin", site / "sitecustomize.py", stdin=_SITE.encode())
    script = f'#!/bin/sh\nexec env PYTHONPATH={site} /usr/bin/python3 "$@"\n'
    machine.run("install", "-m", "755", "/dev/stdin", interpreter, stdin=script.encode())
    try:
        yield interpreter
    finally:
        machine.run("rm", "-r", site, interpreter)
