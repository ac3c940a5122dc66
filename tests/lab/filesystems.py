# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems other than the host's own, each in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .host import require, run

_XFS_BYTES = 512 << 20  # it refuses to be smaller than 300 MB; the file has holes
_BLOCK_BYTES = 4096
# A line of `filefrag -v`: number, logical and physical range, length in blocks, where it was expected, flags.
_EXTENT = re.compile(r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*\d+\.\.\s*\d+:\s*(?P<blocks>\d+):.*?(?P<flags>[a-z_,]*)$")


@contextmanager
def xfs(directory: Path) -> Iterator[Path]:
    """Mount a new XFS, on which files can share their blocks, in an empty directory; its own file lies beside it."""
    require("mkfs.xfs")
    file = directory.with_name(f"{directory.name}.xfs")
    with file.open("xb") as image:
        image.truncate(_XFS_BYTES)
    run("mkfs.xfs", "-q", "-m", "reflink=1", file)
    directory.mkdir()
    run("mount", "-o", "loop", file, directory)
    try:
        yield directory
    finally:
        run("umount", directory)
        file.unlink()


def shared_bytes(file: Path) -> int:
    """How much of a file lies in blocks that are other files', too."""
    require("filefrag")
    listed = run("filefrag", "-v", f"-b{_BLOCK_BYTES}", file)
    extents = [match for line in listed.splitlines() if (match := _EXTENT.match(line))]
    return sum(int(extent["blocks"]) * _BLOCK_BYTES for extent in extents if "shared" in extent["flags"])
