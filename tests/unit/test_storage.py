# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine's storage is believed as far as digests prove it, and what is wrong with it is said."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
from binascii import b2a_base64, crc32
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils import storage
from ansible_collections.haku.river.plugins.module_utils.storage import (
    StorageError,
    StoredImage,
    has_in_content_store,
    stored_image,
)

from tests.tarballs import HandMade, hand_made, sha256, tar_of

MIB = 1 << 20
FILES = {"a": b"A" * 700, "b/c": b"", "b/ü": b"two", "d/\udcff\udcfe": b"three", "large": b"L" * (3 * MIB + 5)}


def recipe(layer: bytes) -> bytes:
    """The tar-split of a tar stream: https://github.com/vbatts/tar-split#docs."""
    entries: list[dict[str, Any]] = []
    position = 0
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:", errors="surrogateescape") as tar:
        for member in tar:
            segment = layer[position : member.offset_data]
            entries.append({"type": 2, "payload": b2a_base64(segment).decode()})
            name = os.fsencode(member.name)
            try:
                named = {"name": name.decode()}
            except UnicodeDecodeError:
                named = {"name_raw": b2a_base64(name).decode()}
            entries.append({"type": 1, **named, "size": member.size, "payload": str(crc32(b""))})
            position = member.offset_data + member.size
    entries.append({"type": 2, "payload": b2a_base64(layer[position:]).decode()})
    return b"".join(json.dumps({**entry, "position": at}).encode() + b"\n" for at, entry in enumerate(entries))


@dataclass(frozen=True)
class Tree:
    """An engine's storage in a temporary directory, with one image in it."""

    root: Path
    made: HandMade
    image_id: str
    info: dict[str, Any]

    def open(self) -> StoredImage:
        return stored_image(self.info, self.image_id)

    def read(self, number: int = -1) -> bytes:
        return b"".join(self.open().uncompressed(self.made.diff_ids[number]))

    def refused(self, *words: str) -> None:
        """Reading the top layer must fail, saying these words."""
        with pytest.raises(StorageError) as refusal:
            self.read()
        for word in words:
            assert word in str(refusal.value)


def overlay(root: Path, made: HandMade) -> Tree:
    chain = ""
    for number, (layer, diff_id) in enumerate(zip(made.layers, made.diff_ids, strict=True)):
        chain = f"sha256:{sha256(f'{chain} {diff_id}'.encode())}" if chain else diff_id
        store = root / "image/overlay2/layerdb/sha256" / chain[7:]
        store.mkdir(parents=True)
        (store / "cache-id").write_text(f"cache{number}")
        (store / "tar-split.json.gz").write_bytes(gzip.compress(recipe(layer)))
        diff = root / f"overlay2/cache{number}/diff"
        diff.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(layer), errors="surrogateescape") as tar:
            tar.extractall(diff, filter="tar")
    configs = root / "image/overlay2/imagedb/content/sha256"
    configs.mkdir(parents=True)
    (configs / sha256(made.config)).write_bytes(made.config)
    return Tree(root, made, f"sha256:{sha256(made.config)}", {"Driver": "overlay2", "DockerRootDir": str(root)})


@pytest.fixture
def overlay2(tmp_path: Path) -> Tree:
    made = hand_made(tar_of({"base": b"base"}), tar_of({"file": b"content", "large": b"L" * (2 * MIB)}))
    return overlay(tmp_path, made)


def test_layers_are_put_together_as_they_were(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name, data in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("hard")
        link.type, link.linkname = tarfile.LNKTYPE, "a"
        tar.addfile(link)
        fifo = tarfile.TarInfo("fifo")
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)
    tree = overlay(tmp_path, hand_made(tar_of({"base": b"base"}), stream.getvalue(), tar_of({})))
    assert tree.open().config == tree.made.config
    assert tree.open().diff_ids == tuple(tree.made.diff_ids)
    assert [tree.read(number) for number in range(3)] == list(tree.made.layers)


def test_chunks_stay_small_whatever_the_files_are(overlay2: Tree) -> None:
    sizes = list(map(len, overlay2.open().uncompressed(overlay2.made.diff_ids[1])))
    assert max(sizes) <= 2 * MIB


def replaced_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replaced_by_link(file: Path) -> None:
    same = file.with_name("same")
    file.rename(same)
    file.symlink_to(same)


TOUCHES: dict[str, Callable[[Path], object]] = {
    "no longer has layer": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
    "is shorter than it was": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "No such file": lambda file: file.unlink(),
    "not": replaced_by_fifo,
    "symbolic links": replaced_by_link,
}


@pytest.mark.parametrize("name", ["file", "large"])
@pytest.mark.parametrize("words", TOUCHES)
def test_a_file_that_was_touched_is_noticed_and_nobody_waits(overlay2: Tree, words: str, name: str) -> None:
    TOUCHES[words](overlay2.root / "overlay2/cache1/diff" / name)
    if words == "not" and name == "file":
        words = "is shorter than it was"
    overlay2.refused(words)


def test_a_file_that_grew_is_read_as_far_as_the_layer_has_it(overlay2: Tree) -> None:
    with (overlay2.root / "overlay2/cache1/diff/file").open("ab") as file:
        file.write(b"more")
    assert overlay2.read() == overlay2.made.layers[1]


def rewrite(tree: Tree, change: Callable[[bytes], bytes]) -> None:
    """Change the recipe of the top layer."""
    for path in tree.root.glob("image/overlay2/layerdb/sha256/*/tar-split.json.gz"):
        if (path.parent / "cache-id").read_text() == "cache1":
            path.write_bytes(change(path.read_bytes()))


def instead(new: bytes) -> Callable[[bytes], bytes]:
    return lambda _old: new


def edited(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda packed: gzip.compress(gzip.decompress(packed).replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        lambda packed: packed[:-20],
        instead(b""),
        instead(b"no gzip"),
        lambda packed: packed[:40] + b"\xff" * 10 + packed[50:],
        edited(b'{"type": 1', b'{"kind": 1'),
        edited(b'"type": 1', b'"type": 3'),
        edited(b'{"type"', b"{{"),
        edited(b'"payload": "', b'"payload": "x'),
        edited(b'"name": "file"', b'"name": "../../../../secret"'),
        edited(b'"name": "file"', b'"name": "/etc/passwd"'),
        edited(b'"name": "file"', b'"size": 1'),
        instead(gzip.compress(b"[]\n")),
        instead(gzip.compress(b"\xff\n")),
    ],
)
def test_a_recipe_that_was_touched_gives_no_layer(overlay2: Tree, change: Callable[[bytes], bytes]) -> None:
    (overlay2.root / "secret").write_bytes(b"SECRET!")
    rewrite(overlay2, change)
    overlay2.refused()


@pytest.mark.parametrize("engine", ["remote", "touched", "gone", "large", "odd", "other driver"])
def test_a_storage_that_is_not_this_engine_s_is_said(overlay2: Tree, engine: str) -> None:
    info, image_id = dict(overlay2.info), overlay2.image_id
    config = overlay2.root / "image/overlay2/imagedb/content/sha256" / image_id[7:]
    if engine == "remote":
        info["DockerRootDir"] = str(overlay2.root / "nowhere")
    elif engine == "touched":
        config.write_bytes(overlay2.made.config + b" ")
    elif engine == "gone":
        config.unlink()
    elif engine == "large":
        with config.open("r+b") as file:
            file.truncate(1 << 40)
    elif engine == "odd":
        image_id = "sha256:../../../../../../etc/passwd"
    else:
        info["Driver"] = "btrfs"
    with pytest.raises(StorageError):
        stored_image(info, image_id)


def test_a_layer_of_another_image_is_refused(overlay2: Tree) -> None:
    with pytest.raises(StorageError):
        list(overlay2.open().uncompressed(f"sha256:{'0' * 64}"))


# The containerd image store


def put(blobs: Path, data: bytes) -> dict[str, Any]:
    """Store a blob; returns its descriptor."""
    (blobs / sha256(data)).write_bytes(data)
    return {"mediaType": "application/octet-stream", "digest": f"sha256:{sha256(data)}", "size": len(data)}


def blobs_of(root: Path) -> Path:
    blobs = root / "containerd/daemon/io.containerd.content.v1.content/blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs


def content(root: Path, made: HandMade, *, pack: Callable[[bytes], bytes] = bytes, index: bool = False) -> Tree:
    blobs = blobs_of(root)
    layers = [put(blobs, pack(layer)) for layer in made.layers]
    image = put(blobs, json.dumps({"config": put(blobs, made.config), "layers": layers}).encode())
    if index:
        absent = {"digest": f"sha256:{'1' * 64}", "platform": {"architecture": "arm64"}}
        other_config = hand_made(b"other").config
        no_layers = {"config": put(blobs, other_config), "layers": [{"digest": f"sha256:{'2' * 64}"}]}
        attestation = put(blobs, json.dumps({"config": put(blobs, other_config), "layers": []}).encode())
        attestation["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
        manifests = [absent, put(blobs, json.dumps(no_layers).encode()), attestation, image]
        image = put(blobs, json.dumps({"manifests": manifests}).encode())
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    info = {"Driver": "overlayfs", "DriverStatus": status, "DockerRootDir": str(root)}
    return Tree(root, made, image["digest"], info)


MADE = hand_made(tar_of({"base": b"base"}), tar_of({"large": b"L" * (2 * MIB)}))


def zipped(layer: bytes) -> bytes:
    """The same at any second, unlike what gzip makes of itself."""
    return gzip.compress(layer, mtime=0)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("pack", [bytes, zipped])
def test_blobs_are_read_whether_compressed_or_not_and_found_in_an_index(
    tmp_path: Path, pack: Callable[[bytes], bytes], index: bool
) -> None:
    tree = content(tmp_path, MADE, pack=pack, index=index)
    assert tree.open().config == MADE.config
    assert [tree.read(number) for number in range(2)] == list(MADE.layers)
    sizes = [len(pack(layer)) for layer in MADE.layers]
    assert [tree.open().blobs()[diff_id].size_bytes for diff_id in MADE.diff_ids] == sizes


def test_the_content_store_is_the_one_that_has_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker that uses the system's containerd may have started one of its own before."""
    tree = content(tmp_path / "system", MADE)
    content(tmp_path / "docker", hand_made(b"other"))
    monkeypatch.setattr(storage, "_SYSTEM_CONTENT", blobs_of(tmp_path / "system").parents[1])
    info = {**tree.info, "DockerRootDir": str(tmp_path / "docker")}
    assert stored_image(info, tree.image_id).config == MADE.config


@pytest.fixture
def known(tmp_path: Path) -> Tree:
    """An image in a content store of which it can be told whose it is."""
    tree = content(tmp_path, MADE)
    (tree.root / "engine-id").write_text("one")
    return replace(tree, info={**tree.info, "ID": "one"})


def test_what_the_content_store_has_is_known_by_its_manifest(known: Tree, overlay2: Tree) -> None:
    assert has_in_content_store(known.info, known.image_id)
    assert not has_in_content_store(known.info, f"sha256:{sha256(b'another')}")
    assert not has_in_content_store(overlay2.info, overlay2.image_id)


@pytest.mark.parametrize("change", [lambda blob: blob[:-1], None])
def test_an_image_without_one_of_its_layers_is_not_had(known: Tree, change: Callable[[bytes], bytes] | None) -> None:
    layer = blobs_of(known.root) / MADE.diff_ids[1][7:]
    blob = layer.read_bytes()
    layer.unlink()
    if change:
        layer.write_bytes(change(blob))
    assert not has_in_content_store(known.info, known.image_id)


@pytest.mark.parametrize("information", [{"ID": "other"}, {"ID": None}, {"DockerRootDir": None}])
def test_the_storage_of_another_engine_proves_nothing(known: Tree, information: dict[str, Any]) -> None:
    assert not has_in_content_store({**known.info, **information}, known.image_id)


def test_without_zstandard_a_layer_that_needs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    content(tmp_path, MADE, pack=lambda layer: b"\x28\xb5\x2f\xfd" + layer).refused("zstd")


@pytest.mark.parametrize(
    "change", [lambda blob: blob[:-9], instead(b""), lambda blob: blob[:50] + b"\xff" * 9 + blob[59:]]
)
@pytest.mark.parametrize("pack", [bytes, zipped])
def test_a_blob_that_was_touched_gives_no_layer(
    tmp_path: Path, pack: Callable[[bytes], bytes], change: Callable[[bytes], bytes]
) -> None:
    tree = content(tmp_path, MADE, pack=pack)
    blob = blobs_of(tmp_path) / sha256(pack(MADE.layers[1]))
    blob.write_bytes(change(blob.read_bytes()))
    tree.refused()


def test_which_of_several_platforms_is_meant_is_not_guessed(tmp_path: Path) -> None:
    tree, other = content(tmp_path, MADE), content(tmp_path, hand_made(b"other"))
    both = {"manifests": [{"digest": other.image_id}, {"digest": tree.image_id}]}
    with pytest.raises(StorageError, match="leads to 2 images"):
        stored_image(tree.info, put(blobs_of(tmp_path), json.dumps(both).encode())["digest"])


def test_an_index_without_an_image_whose_layers_are_here_is_said(tmp_path: Path) -> None:
    tree = content(tmp_path, MADE, index=True)
    (blobs_of(tmp_path) / MADE.diff_ids[1][7:]).unlink()
    with pytest.raises(StorageError, match="leads to no images whose layers are here"):
        tree.open()


@pytest.mark.parametrize("document", [b"[]", b"{}", b'{"config": {"digest": 5}}', b'{"config": 1, "layers": 2}', b"x"])
def test_a_manifest_that_is_none_is_said(tmp_path: Path, document: bytes) -> None:
    tree = content(tmp_path, MADE)
    with pytest.raises(StorageError):
        stored_image(tree.info, put(blobs_of(tmp_path), document)["digest"])
