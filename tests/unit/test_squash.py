# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers made one mean what they meant one upon the other."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pytest
from ansible_collections.haku.river.plugins.module_utils.ahead import CHUNK_BYTES
from ansible_collections.haku.river.plugins.module_utils.errors import ArchiveError
from ansible_collections.haku.river.plugins.module_utils.squash import Squash
from ansible_collections.haku.river.plugins.module_utils.storage import StorageError, StoredImage
from ansible_collections.haku.river.plugins.module_utils.tarball import Blob

from tests.tarballs import HandMade, hand_made

# A file's content, None for a directory, or where a hard link leads.
Node = bytes | str | None
Tree = dict[str, Node]


def layer(*entries: tuple[str, Node], xattrs: Mapping[str, str] | None = None) -> bytes:
    """A layer's tar stream with these entries, in this order; a name may be a whiteout's."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, node in entries:
            entry = tarfile.TarInfo(name)
            entry.pax_headers = dict(xattrs or {})
            if node is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            elif isinstance(node, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, node
                tar.addfile(entry)
            else:
                entry.size = len(node)
                tar.addfile(entry, io.BytesIO(node))
    return stream.getvalue()


def squashed(*layers: bytes) -> tuple[bytes, Squash]:
    squash = Squash([partial(chunked, stream) for stream in layers])
    return b"".join(squash.stream()), squash


def chunked(stream: bytes) -> Iterator[bytes]:
    yield from (stream[start : start + 1000] for start in range(0, len(stream), 1000))


def unpacked(layers: Sequence[bytes]) -> Tree:
    """What a file system holds when the layers are put one upon the other, as the specification has it."""
    tree: Tree = {}
    for stream in layers:
        below, tree = tree, dict(tree)
        with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as tar:
            entries = [(entry, tar.extractfile(entry) if entry.isreg() else None) for entry in tar]
            own: Tree = {}
            for entry, file in entries:
                parent, _slash, name = entry.name.rpartition("/")
                if name == ".wh..wh..opq":
                    remove(tree, below, f"{parent}/")
                elif name.startswith(".wh."):
                    path = f"{parent}/{name[4:]}".lstrip("/")
                    remove(tree, below, f"{path}/")
                    tree.pop(path, None)
                else:
                    own[entry.name] = file.read() if file else own[entry.linkname] if entry.islnk() else None
            for path, node in own.items():
                if node is not None:
                    remove(tree, tree, f"{path}/")
                tree[path] = node
    return tree


def remove(tree: Tree, below: Tree, prefix: str) -> None:
    for path in [path for path in below if path.startswith(prefix)]:
        tree.pop(path, None)


BASE = layer(("d", None), ("d/base", b"base"), ("old", b"old"))
CASES = {
    "a file replaced": [layer(("f", b"one")), layer(("f", b"two"))],
    "a file deleted": [layer(("f", b"one")), layer((".wh.f", b""))],
    "a file of the base deleted": [layer((".wh.old", b"")), layer(("f", b"one"))],
    "a file of the base deleted and made again": [layer((".wh.old", b"")), layer(("old", b"new"))],
    "a directory of the base deleted": [layer((".wh.d", b"")), layer(("f", b"one"))],
    "a directory deleted and made again": [layer((".wh.d", b"")), layer(("d", None), ("d/new", b"new"))],
    "both in one layer": [layer((".wh.d", b""), ("d", None), ("d/new", b"new")), layer(("f", b"one"))],
    "an opaque directory": [layer(("d/x", b"x")), layer(("d", None), ("d/.wh..wh..opq", b""), ("d/y", b"y"))],
    "an opaque directory below": [layer(("d", None), ("d/.wh..wh..opq", b"")), layer(("d/y", b"y"))],
    "a directory that becomes a file": [layer(("d", b"now a file")), layer(("f", b"one"))],
    "a file that becomes a directory": [layer(("f", b"one")), layer((".wh.f", b""), ("f", None), ("f/g", b"g"))],
    "there and back": [layer((".wh.d", b""), ("d", b"file")), layer(("d", None), ("d/.wh..wh..opq", b""))],
    "hard links": [layer(("f", b"one"), ("g", "f")), layer(("h", b"two"))],
    "a hard link whose first name is replaced": [layer(("f", b"one"), ("g", "f"), ("h", "f")), layer(("f", b"two"))],
    "a hard link whose first name is deleted": [layer(("f", b"one"), ("g", "f"), ("h", "f")), layer((".wh.f", b""))],
    "a hard link of which all names are deleted": [
        layer(("f", b"1"), ("g", "f")),
        layer((".wh.f", b""), (".wh.g", b"")),
    ],
    "a name that is not UTF-8": [layer(("a\udcff", b"one")), layer(("b" * 300, b"two"))],
    "three upon each other": [layer(("f", b"one")), layer((".wh.f", b"")), layer(("f", b"three"))],
}


@pytest.mark.parametrize("case", CASES)
def test_on_the_base_the_one_layer_is_what_the_layers_are(case: str) -> None:
    stream, _squash = squashed(*CASES[case])
    assert unpacked([BASE, stream]) == unpacked([BASE, *CASES[case]])


def test_random_layers_mean_the_same_as_one() -> None:
    chance = random.Random(7)
    for _round in range(300):
        layers = [random_layer(chance) for _layer in range(chance.randint(1, 6))]
        base = random_layer(chance)
        stream, _squash = squashed(*layers)
        assert unpacked([base, stream]) == unpacked([base, *layers])


def random_layer(chance: random.Random) -> bytes:
    """A layer as an overlay file system makes them: of files, directories and deletions at some of a few paths."""
    entries: dict[str, list[tuple[str, Node]]] = {}
    for path in ("a", "a/b", "a/b/c", "a/d", "e", "e/f"):
        parent, _slash, name = path.rpartition("/")
        parents_are_directories = not parent or (parent in entries and (parent, None) in entries[parent])
        kind = chance.choice(["nothing", "file", "directory", "opaque", "deleted"])
        if not parents_are_directories or kind == "nothing":
            continue
        whiteout = (f"{parent}/.wh.{name}".lstrip("/"), b"")
        content = b"%d" % chance.randrange(1000)
        ways: dict[str, list[tuple[str, Node]]] = {
            "file": [(path, content)],
            "directory": [(path, None)],
            "opaque": [(path, None), (f"{path}/.wh..wh..opq", b"")],
            "deleted": [whiteout],
        }
        entries[path] = ways[kind]
    return layer(*(entry for group in entries.values() for entry in group))


def test_live_and_dead_weight_are_told() -> None:
    _stream, squash = squashed(layer(("f", b"x" * 1000), ("g", b"y" * 10)), layer((".wh.f", b""), ("h", b"z" * 100)))
    assert (squash.live_bytes, squash.dead_bytes) == (110, 1000)


def test_extended_attributes_stay() -> None:
    attributes = {"SCHILY.xattr.security.capability": "\x01\x00\udcff"}
    stream, _squash = squashed(layer(("f", b"one"), xattrs=attributes), layer(("g", b"two")))
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as tar:
        assert tar.getmember("f").pax_headers.items() >= attributes.items()
        assert tar.getmember("g").pax_headers == {}


def test_a_link_out_of_its_layer_is_refused() -> None:
    with pytest.raises(ArchiveError, match="a hard link in them leads out of its layer"):
        squashed(layer(("f", b"one")), layer(("g", "elsewhere")))


class Stored(StoredImage):
    """An image with one layer, in a storage that has something else."""

    name = "memory"

    def __init__(self, made: HandMade, there: bytes) -> None:
        super().__init__(made.config)
        self._there = dict.fromkeys(self.diff_ids, there)

    def _read(self, diff_id: str) -> Iterator[bytes]:
        yield from chunked(self._there[diff_id])

    def blobs(self) -> dict[str, Blob]:
        return {}


@pytest.mark.parametrize("beyond_bytes", [0, tarfile.BLOCKSIZE, 2 * tarfile.BLOCKSIZE])
def test_a_layer_is_proven_wherever_its_last_block_falls(beyond_bytes: int) -> None:
    size_bytes = CHUNK_BYTES + beyond_bytes
    content = bytes(size_bytes - 3 * tarfile.BLOCKSIZE)
    stream, corrupted = (layer(("f", first + content[1:]))[:size_bytes] for first in (b"1", b"2"))
    stored = Stored(hand_made(stream), corrupted)
    with pytest.raises(StorageError, match="no longer has layer"):
        Squash([partial(stored.uncompressed, *stored.diff_ids)])


def test_what_is_no_tar_stream_is_refused() -> None:
    with pytest.raises(ArchiveError, match="not a tar stream"):
        squashed(b"no tar" * 1000)


def test_extended_headers_without_end_are_refused() -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1
    with pytest.raises(ArchiveError, match="not a tar stream"):
        squashed((long_name.tobuf(format=tarfile.GNU_FORMAT) + bytes(tarfile.BLOCKSIZE)) * 2000)
