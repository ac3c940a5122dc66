# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tarballs are read by their index, in every layout, and refused when anything in them is not as it should be."""

from __future__ import annotations

import json
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import ArchivedImage, open_archive
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError, Vanished

from tests.tarballs import TIMESTAMP, HandMade, add, hand_made, tar_of

BASE = tar_of({"bin/sh": b"shell" * 999})
CHANGE = tar_of({"etc/motd": b"welcome"})
IMAGE = hand_made(BASE, CHANGE, Cmd=["sh"], Env=["A=1"])

LAYOUTS = {
    "normal": lambda image, path: image.write(path),
    "legacy": lambda image, path: image.write_legacy(path),
    "oci": lambda image, path: image.write_oci(path),
    "oci without manifest.json": lambda image, path: image.write_oci(path, docker_manifest=False),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "env-1.tar"


def read(path: Path) -> tuple[ArchivedImage, list[bytes]]:
    """The image, and its layers' tar streams."""
    with open_archive(path) as archive:
        return archive.image, [b"".join(archive.uncompressed(layer)) for layer in archive.image.layers]


def refusal(path: Path) -> str:
    with pytest.raises(ArchiveError) as refused:
        read(path)
    return str(refused.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_image(layout: str, path: Path) -> None:
    LAYOUTS[layout](IMAGE, path)
    image, layers = read(path)
    assert image.config == IMAGE.config
    assert image.identity.diff_ids == tuple(IMAGE.diff_ids)
    assert image.identity.configuration == {"Cmd": ["sh"], "Env": ["A=1"]}
    assert image.timestamp == TIMESTAMP
    assert layers == [BASE, CHANGE]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_that_repeats_is_read_once_and_stands_twice(layout: str, path: Path) -> None:
    LAYOUTS[layout](hand_made(BASE, CHANGE, BASE), path)
    image, layers = read(path)
    assert layers == [BASE, CHANGE, BASE]
    assert len(image.distinct_layers) == 2


@pytest.mark.parametrize("created", [None, "", "0001-01-01T00:00:00Z", "yesterday"])
def test_an_image_without_a_time_is_an_image(created: str | None, path: Path) -> None:
    hand_made(BASE, created=created).write(path)
    image, _layers = read(path)
    assert image.timestamp is None


def test_the_index_is_read_without_the_layers(path: Path) -> None:
    hand_made(tar_of({"big": bytes(9 << 20)}), CHANGE).write(path)
    with open_archive(path) as archive:
        assert archive.size_bytes > 9 << 20
        assert archive.bytes_read < 16 << 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_flipped_bit_never_gives_another_image(layout: str, path: Path) -> None:
    """Wherever the bit is: the tarball is refused, or the bit was one that means nothing (padding, a time stamp)."""
    LAYOUTS[layout](IMAGE, path)
    whole = path.read_bytes()
    expected = read(path)[0].identity
    refused = 0
    chosen = random.Random(1)
    for _attempt in range(400):
        position = chosen.randrange(len(whole))
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << chosen.randrange(8)]) + whole[position + 1 :])
        try:
            image, layers = read(path)
        except ArchiveError:
            refused += 1
        else:
            assert (image.identity, layers) == (expected, [BASE, CHANGE]), f"bit flipped at {position}"
    assert refused > 100


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tarball_cut_anywhere_is_refused(layout: str, path: Path) -> None:
    LAYOUTS[layout](IMAGE, path)
    whole = path.read_bytes()
    with open_archive(path) as archive:
        layers_end = max(layer.offset + layer.size_bytes for layer in archive.image.layers)
    content_end = len(whole.rstrip(b"\0"))
    for length in (0, 1, 511, 512, 513, layers_end // 2, layers_end, content_end - 1, content_end):
        path.write_bytes(whole[:length])
        assert "damaged" in refusal(path), f"cut at {length} of {len(whole)}"


@pytest.mark.parametrize("part", ["layer", "configuration", "index"])
def test_corruption_is_named_with_the_tarball_and_the_way_out(part: str, path: Path) -> None:
    IMAGE.write(path)
    mark = {"layer": b"welcome", "configuration": b'"A=1"', "index": b'"Config"'}[part]
    path.write_bytes(path.read_bytes().replace(mark, mark[:-2] + b"!" + mark[-1:]))
    sentence = refusal(path)
    assert str(path) in sentence
    assert "package the environment again, or pin an older version" in sentence


@pytest.mark.parametrize("content", [b"", b"no tar", b"x" * 4096, bytes(10240), json.dumps({"a": 1}).encode() * 500])
def test_what_is_no_tar_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_a_tar_that_holds_no_image_is_refused(path: Path) -> None:
    path.write_bytes(tar_of({"etc/passwd": b"root"}))
    assert "it is no image" in refusal(path)


def test_a_tarball_that_is_gone_is_told_from_a_damaged_one(path: Path) -> None:
    with pytest.raises(Vanished):
        read(path)


def test_hostile_names_lead_nowhere(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_bytes(BASE)
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        add(tar, "../../etc/cron.d/x", b"* * * * * root true")
        image = hand_made(BASE)
        add(tar, "config", image.config)
        add(tar, "manifest.json", json.dumps([{"Config": "config", "Layers": ["layer.tar"]}]).encode())
    assert "is missing from it" in refusal(path)


def test_links_in_a_circle_are_refused(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "manifest.json"
        tar.addfile(link)
    assert "is not a file" in refusal(path)


def test_a_name_that_stands_twice_is_refused(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        add(tar, "manifest.json", b"[]")
        add(tar, "./manifest.json", b"[]")
    assert "stands in it twice" in refusal(path)


def test_a_huge_header_is_refused_before_it_fills_the_memory(path: Path) -> None:
    huge = 300 << 20
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, huge
    with path.open("wb") as file:
        file.write(header.tobuf(format=tarfile.GNU_FORMAT))
        file.truncate(huge)
    tracemalloc.start()
    try:
        assert "extended header" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_extended_headers_without_end_are_refused(path: Path) -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1
    path.write_bytes((long_name.tobuf(format=tarfile.GNU_FORMAT) + bytes(tarfile.BLOCKSIZE)) * 2000)
    assert "damaged" in refusal(path)


def test_a_map_of_a_sparse_file_that_is_cut_short_is_refused(path: Path) -> None:
    sparse = tarfile.TarInfo("layer.tar")
    sparse.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(sparse.tobuf(format=tarfile.GNU_FORMAT))
    header[482] = 1  # the map goes on in the next block
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(header)
    assert "damaged" in refusal(path)


def test_json_nested_without_end_is_refused(path: Path) -> None:
    path.write_bytes(tar_of({"manifest.json": b"[" * 200_000}))
    assert "not JSON" in refusal(path)


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[]",
        b"[1]",
        b"[{}, {}]",
        b'[{"Config": 1, "Layers": []}]',
        b'[{"Config": "c", "Layers": [7]}]',
        b'[{"Config": "c", "Layers": ["l", "l"]}]',
        b'[{"Config": "list", "Layers": []}]',
        b'[{"Config": "rootless", "Layers": []}]',
        b"\xff",
    ],
)
def test_a_manifest_of_the_wrong_shape_is_refused(manifest: bytes, path: Path) -> None:
    documents = {"c": hand_made(BASE).config, "l": BASE, "list": b"[]", "rootless": b'{"rootfs": {"diff_ids": ["x"]}}'}
    path.write_bytes(tar_of({"manifest.json": manifest, **documents}))
    assert "damaged" in refusal(path)


def test_two_descriptions_that_disagree_are_refused(path: Path, tmp_path: Path) -> None:
    other: HandMade = hand_made(CHANGE)
    other.write_oci(tmp_path / "other.tar")
    IMAGE.write_oci(path)
    with (
        tarfile.open(path) as tar,
        tarfile.open(tmp_path / "other.tar") as second,
        tarfile.open(tmp_path / "m", "w") as mixed,
    ):
        taken = set()
        for source, wanted in ((tar, "manifest.json"), (second, "index.json"), (tar, "blobs"), (second, "blobs")):
            for entry in source.getmembers():
                if entry.name.startswith(wanted) and entry.name not in taken:
                    taken.add(entry.name)
                    mixed.addfile(entry, source.extractfile(entry))
    assert "name different images" in refusal(tmp_path / "m")
