# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one normal form: same layers, same bytes; nothing written that is not proven."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import Archive, open_archive
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError
from ansible_collections.haku.river.plugins.module_utils.image import portable_configuration
from ansible_collections.haku.river.plugins.module_utils.tarball import (
    Blob,
    Stream,
    Written,
    portable_config,
    stream_image,
    write_tarball,
)

from tests.tarballs import document, hand_made, sha256, tar_of

BASE = tar_of({"bin/sh": b"shell" * 999})
CHANGE = tar_of({"etc/motd": b"welcome"})


def whole_stream(archive: Archive) -> Stream:
    blobs = [Blob.of_layer(layer) for layer in archive.image.layers]
    contents = ((Blob.of_layer(layer), archive.stored(layer)) for layer in archive.image.distinct_layers)
    return stream_image(archive.image.config, blobs, contents, "a/b:c")


def test_a_new_version_begins_with_the_bytes_of_the_one_before(tmp_path: Path) -> None:
    old = hand_made(BASE).write(tmp_path / "old").read_bytes()
    new = hand_made(BASE, CHANGE, created="2026-02-02T00:00:00Z").write(tmp_path / "new").read_bytes()
    shared = 512 + len(BASE)
    assert new[:shared] == old[:shared]
    assert new != old


class Layers:
    """Layers in memory."""

    name = "memory"

    def __init__(self, *layers: bytes) -> None:
        self._layers = {f"sha256:{sha256(layer)}": layer for layer in layers}
        self.asked: list[str] = []

    def uncompressed(self, diff_id: str) -> Iterator[bytes]:
        self.asked.append(diff_id)
        yield self._layers[diff_id]


def rewritten(former: Path, path: Path, *layers: bytes) -> tuple[Written, Layers]:
    source = Layers(*layers)
    diff_ids = [f"sha256:{sha256(layer)}" for layer in layers]
    with open_archive(former) as archive, path.open("x+b") as file:
        return write_tarball(file, b"{}", diff_ids, source, "a/b:c", archive), source


def test_what_the_former_version_begins_with_is_cloned_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    large = tar_of({"large": b"many bytes " * 100_000})
    former = hand_made(BASE, large, BASE).write(tmp_path / "former")
    written, source = rewritten(former, tmp_path / "new", BASE, large, BASE, CHANGE)
    whole, _all = rewritten(hand_made(CHANGE).write(tmp_path / "other"), tmp_path / "whole", BASE, large, BASE, CHANGE)
    assert (tmp_path / "new").read_bytes() == (tmp_path / "whole").read_bytes()
    assert source.asked == list(written.written) == [f"sha256:{sha256(CHANGE)}"]
    assert len(written.cloned) == 2
    assert written.bytes_written < 20_000 < whole.bytes_written


@pytest.mark.parametrize("layout", ["write_legacy", "write_oci"])
def test_a_former_version_of_another_layout_is_not_cloned(layout: str, tmp_path: Path) -> None:
    former = getattr(hand_made(BASE, CHANGE), layout)(tmp_path / "former")
    assert rewritten(former, tmp_path / "new", BASE, CHANGE)[0].cloned == ()


def test_layers_stand_first_and_the_index_last(tmp_path: Path) -> None:
    image = hand_made(BASE, CHANGE)
    with tarfile.open(image.write(tmp_path / "t")) as tar:
        names = tar.getnames()
    assert names[:2] == [f"blobs/sha256/{sha256(layer)}" for layer in (BASE, CHANGE)]
    assert names[2] == f"blobs/sha256/{sha256(image.config)}"
    assert names[4:] == ["index.json", "manifest.json", "oci-layout"]


def test_the_tag_is_there_for_both_image_stores(tmp_path: Path) -> None:
    path = hand_made(BASE).write(tmp_path / "t", "hakuriver/env:base")
    index, manifest = document(path, "index.json"), document(path, "manifest.json")
    assert manifest[0]["RepoTags"] == ["hakuriver/env:base"]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/hakuriver/env:base"


@pytest.mark.parametrize("layout", ["write", "write_legacy", "write_oci"])
def test_the_stream_for_an_engine_is_an_image_of_its_own(layout: str, tmp_path: Path) -> None:
    image = hand_made(BASE, CHANGE)
    path = getattr(image, layout)(tmp_path / "source")
    with open_archive(path) as archive:
        stream = whole_stream(archive)
        (tmp_path / "stream").write_bytes(b"".join(stream.chunks))
    assert (tmp_path / "stream").stat().st_size == stream.size_bytes
    with open_archive(tmp_path / "stream") as streamed:
        assert streamed.image.config == image.config
        assert [b"".join(streamed.uncompressed(layer)) for layer in streamed.image.layers] == [BASE, CHANGE]


def test_a_tarball_cut_short_meanwhile_breaks_the_stream_before_the_index(tmp_path: Path) -> None:
    path = hand_made(BASE, CHANGE).write(tmp_path / "t")
    passed: list[bytes] = []
    with open_archive(path) as archive:
        os.truncate(path, archive.image.layers[-1].offset + 1)
        with pytest.raises(ArchiveError, match="cut short"):
            passed.extend(whole_stream(archive).chunks)
    assert b"json" not in b"".join(passed)


def test_a_corrupted_layer_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = hand_made(BASE, CHANGE).write(tmp_path / "t")
    path.write_bytes(path.read_bytes().replace(b"welcome", b"WELCOME"))
    with open_archive(path) as archive:
        base, change = archive.image.layers
        archive.prove(base)
        with pytest.raises(ArchiveError, match="corrupted"):
            archive.prove(change)


def test_what_only_the_container_meant_stays_out_of_the_image() -> None:
    committed = {
        "Cmd": ["sleep", "infinity"],
        "Env": ["A=1"],
        "Labels": {"haku.river.managed": "true", "haku.river.env": "env", "team": "ml"},
    }
    assert portable_configuration(committed, {"Cmd": ["python3"]}) == {
        "Cmd": ["python3"],
        "Env": ["A=1"],
        "Labels": {"team": "ml"},
    }


def test_the_configuration_keeps_what_an_image_is_and_drops_what_an_engine_noted() -> None:
    document = {"architecture": "arm64", "variant": "v8", "os": "linux", "container": "abc", "docker_version": "20.10"}
    written = json.loads(portable_config(json.dumps(document).encode(), {"Cmd": ["sh"]}))
    assert written == {"architecture": "arm64", "variant": "v8", "os": "linux", "config": {"Cmd": ["sh"]}}


@pytest.mark.parametrize(
    ("history", "listed"),
    [
        ([], 0),
        ([{"comment": "top"}], 3),
        ([{"comment": "label", "empty_layer": True}, {"comment": "top"}], 4),
        ([{"comment": "base"}, {"comment": "below"}, {"comment": "top"}], 3),
    ],
)
def test_a_history_lists_all_layers_or_none(history: list[dict[str, Any]], listed: int) -> None:
    document = {"history": history, "rootfs": {"diff_ids": ["sha256:1", "sha256:2", "sha256:3"]}}
    written = json.loads(portable_config(json.dumps(document).encode(), {})).get("history", [])
    assert len(written) == listed
    assert written[listed - len(history) :] == history
