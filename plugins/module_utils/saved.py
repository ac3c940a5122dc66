# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the layers of a committed image come from when the engine's storage cannot be read: from `docker save`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ansible_collections.haku.river.plugins.module_utils.archive import Archive, open_archive
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, EngineError


class SavedImage:
    """The layers in a tarball that the engine's own `save` wrote: any engine has them, at the cost of all of them."""

    name = "docker save"

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._layers = {layer.diff_id: layer for layer in archive.image.layers}
        self.config = archive.image.config

    def uncompressed(self, diff_id: str) -> Iterator[bytes]:
        """The layer's tar stream, in chunks; `ArchiveError` if what the engine wrote is damaged."""
        return self._archive.uncompressed(self._layers[diff_id])


@contextmanager
def saved_image(engine: Engine, reference: str, spool: BinaryIO) -> Iterator[SavedImage]:
    """Let the engine save the image into `spool`, a named file, and read its layers from there.

    Engines write layers in any order and tell the order last, so a tarball in another order needs them all first.
    """
    spool.writelines(engine.save(reference))
    spool.flush()
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(open_archive(Path(spool.name)))
        except ArchiveError as error:
            # The containerd image store leaves out what it finds damaged, and says nothing.
            raise EngineError(
                f"The engine did not save image {reference} in full",
                where=engine.url,
                cause=error.cause,
                remedy="What the engine has of the image may be damaged: check its disk and its log",
            ) from error
        yield SavedImage(archive)
