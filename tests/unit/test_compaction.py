# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packages have put on a base image is compacted, however much the base tells of itself."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.compaction import count_base_layers, plan_compaction
from ansible_collections.haku.river.plugins.module_utils.storage import StoredImage
from ansible_collections.haku.river.plugins.module_utils.tarball import Blob

from tests.tarballs import hand_made, tar_of

OURS = {"created_by": "sleep infinity", "comment": "haku.river"}
THEIRS = {"created_by": "ADD rootfs.tar /"}
SETTING = {"created_by": 'CMD ["sh"]', "empty_layer": True}
OUR_SETTING = {**OURS, "empty_layer": True}

BASES: dict[str, list[dict[str, Any]]] = {
    "all": [THEIRS, SETTING, THEIRS],
    "a part": [THEIRS, SETTING],
    "settings alone": [SETTING],
    "nothing": [],
}


class InMemory(StoredImage):
    """An image of two layers of a base, and of three that packages have put on it."""

    name = "memory"

    def __init__(self, history: Sequence[dict[str, Any]]) -> None:
        made = hand_made(*(tar_of({name: name.encode()}) for name in ("b", "c", "one", "two", "three")))
        super().__init__(json.dumps({**json.loads(made.config), "history": history}).encode())
        self._made = made

    def _read(self, diff_id: str) -> Iterator[bytes]:
        yield from self._made.uncompressed(diff_id)

    def blobs(self) -> dict[str, Blob]:
        return {}


@pytest.mark.parametrize("told", BASES)
def test_a_base_whose_history_is_incomplete_is_compacted_like_any_other(told: str) -> None:
    image = InMemory([*BASES[told], OURS, OUR_SETTING, OURS, OURS])
    compaction = plan_compaction(image, max_layers=2)
    assert compaction
    compacted = compaction.written(io.BytesIO()).stored()
    assert compacted.diff_ids[:2] == image.diff_ids[:2]
    assert len(compacted.diff_ids) == 3
    *below, top = json.loads(compacted.config)["history"]
    assert below == BASES[told]
    assert top["created_by"] == "haku.river: 3 layers made one"


@pytest.mark.parametrize(
    ("history", "base_layers"),
    [
        ([THEIRS, THEIRS], 2),
        ([THEIRS, OURS], 1),
        ([OURS, OURS], 0),
        ([OURS, OURS, OURS], 0),
        ([OURS], 1),
        ([THEIRS], 2),
        ([], 2),
        (None, 2),
        ([THEIRS, OURS, OUR_SETTING, SETTING], 1),
    ],
)
def test_the_layers_of_packages_are_counted_from_the_top(history: list[dict[str, Any]], base_layers: int) -> None:
    assert count_base_layers({"history": history}, 2) == base_layers
