# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading no more of a tarball than the layers that this machine's engine lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from ansible_collections.haku.river.plugins.module_utils.ahead import ahead
from ansible_collections.haku.river.plugins.module_utils.archive import Archive, ArchivedImage, Layer
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, Refused
from ansible_collections.haku.river.plugins.module_utils.image import Image
from ansible_collections.haku.river.plugins.module_utils.storage import StorageError, has_in_content_store, stored_image
from ansible_collections.haku.river.plugins.module_utils.tarball import Blob, Stream, stream_image

# While an engine answers one more inspect, or lists all images, it loads about as many bytes.
_WORTH_AN_INSPECT_BYTES = 100_000
_WORTH_A_LISTING_BYTES = 4_000_000


@dataclass(frozen=True)
class Base:
    """The local image that a load can build on: its first `length` layers are the first ones of what is wanted."""

    image: Image | None = None
    length: int = 0


def shared_chain(wanted: Sequence[str], there: Sequence[str]) -> int:
    """How many diff IDs two images have in common from the base up, which is where engines can share layers."""
    length = 0
    for one, other in zip(wanted, there):
        if one != other:
            break
        length += 1
    return length


def missing_layers(wanted: ArchivedImage, base: Base) -> tuple[Layer, ...]:
    """The layers to load on top of a base, each once.

    One that the base has as well is among them if it also stands higher up: engines know layers by what is below.
    """
    return tuple({layer.digest: layer for layer in wanted.layers[base.length :]}.values())


def find_base(
    engine: Engine, wanted: ArchivedImage, current: Image | None, nearest: Iterable[str], thorough: bool = False
) -> Base:
    """Find the image with the longest chain of the wanted layers, the very image if it is there.

    `current` is known already. Then those are inspected whose IDs are the `nearest`, and all others that the engine
    has, as long as that can save time, or to the end if the search is to be `thorough`.
    """
    known = {current.id} if current else set()
    near = [image_id for image_id in dict.fromkeys(nearest) if image_id not in known]
    inspect_bytes = 0 if thorough else _WORTH_AN_INSPECT_BYTES
    best = _longest(engine, wanted, _as_base(current, wanted) if current else Base(), near, inspect_bytes)
    if not best.length or _left_bytes(wanted, best) > (0 if thorough else _WORTH_A_LISTING_BYTES):
        far = [image.id for image in engine.images() if image.id not in known.union(near)]
        best = _longest(engine, wanted, best, far, inspect_bytes)
    return best


def load_image(engine: Engine, archive: Archive, base: Base, reference: str, fall_back: bool) -> tuple[str, str | None]:
    """Load an image on top of a base, prove it, return its ID. If the engine can't, `fall_back` to a full load, once.

    Then the second value says why. `Refused` if there is no falling back; a result that is not proven may be left
    under `reference`.
    """
    if not base.length:
        return _load_on(engine, archive, base, reference), None
    try:
        return _load_on(engine, archive, base, reference), None
    except Refused as error:
        if not fall_back:
            raise Refused(
                f"The engine cannot load {archive.name} without the layers that it has",
                where=engine.url,
                cause=error.cause,
                remedy="Set delta: auto, which loads all layers when this happens",
            ) from error
        # What is not whole would be in the way of what is.
        engine.remove_image(reference)
        return _load_on(engine, archive, Base(), reference), error.cause


def _as_base(image: Image, wanted: ArchivedImage) -> Base:
    length = shared_chain(wanted.identity.diff_ids, image.identity.diff_ids)
    return Base(image, length) if length else Base()


def _load_on(engine: Engine, archive: Archive, base: Base, reference: str) -> str:
    """Load the layers that the base lacks; `Refused` if the engine can't, `ArchiveError` if they are damaged."""
    wanted = archive.image
    missing = missing_layers(wanted, base)
    blobs = {layer.diff_id: Blob.of_layer(layer) for layer in wanted.layers}
    if base.image:
        there = _stored_blobs(engine, base.image)
        reused = {layer.diff_id for layer in wanted.layers} - {layer.diff_id for layer in missing}
        blobs.update((diff_id, there[diff_id]) for diff_id in reused & there.keys())
    contents = ((Blob.of_layer(layer), archive.stored(layer)) for layer in missing)
    manifest = [blobs[layer.diff_id] for layer in wanted.layers]
    stream = stream_image(wanted.config, manifest, contents, reference)
    try:
        return _loaded(engine, archive, stream, reference)
    except Refused:
        # Engines compare each layer with its digest, and say of a damaged one what not everybody understands.
        for layer in missing:
            archive.prove(layer)
        raise


def _loaded(engine: Engine, archive: Archive, stream: Stream, reference: str) -> str:
    """Have the engine load a stream; `Refused` unless it then has exactly the archive's image."""
    wanted = archive.image
    with closing(ahead(stream.chunks)) as chunks:
        engine.load(replace(stream, chunks=chunks), archive.name)
    # To inspect an image takes the containerd store as long as to load some megabytes.
    if has_in_content_store(engine.description, stream.manifest_digest):
        return stream.manifest_digest
    loaded = engine.find_image(reference)
    if loaded is None or not loaded.is_one_of(wanted.identity):
        raise Refused(
            f"The engine loaded {archive.name}, but what it has is not that image",
            where=engine.url,
            cause=_difference(wanted, loaded),
            remedy="Check the engine's disk and its log (journalctl -u docker), then try again",
        )
    return loaded.id


def _difference(wanted: ArchivedImage, loaded: Image | None) -> str:
    if loaded is None:
        return "it has nothing under the name that it was given"
    there = shared_chain(wanted.identity.diff_ids, loaded.identity.diff_ids)
    if wanted.identity.diff_ids != loaded.identity.diff_ids:
        return f"it has {there} of its {len(wanted.layers)} layers"
    return f"it has the configuration {loaded.identity.configuration}, not {wanted.identity.configuration}"


def _stored_blobs(engine: Engine, image: Image) -> Mapping[str, Blob]:
    """The blobs that the engine has an image's layers as, by diff ID, as far as that can be told.

    What was pulled into the containerd image store is compressed there, and a manifest has to name what is there. Where
    the storage can't be read, the layers as such may do, and the proof tells whether they did.
    """
    try:
        return stored_image(engine.description, image.id).blobs()
    except StorageError:
        return {}


def _longest(engine: Engine, wanted: ArchivedImage, best: Base, image_ids: Sequence[str], inspect_bytes: int) -> Base:
    """The best base that is known, or a better one among these images, as one inspect is worth so many bytes."""
    for number, image_id in enumerate(image_ids):
        if _left_bytes(wanted, best) <= (len(image_ids) - number) * inspect_bytes:
            break
        try:
            image = engine.find_image(image_id)
        except EngineError:
            # Somebody may be removing it at this moment, and engines have many words for that.
            continue
        if image is None:
            continue
        if image.is_one_of(wanted.identity):
            return Base(image, len(wanted.layers))
        best = max(best, _as_base(image, wanted), key=lambda base: base.length)
    return best


def _left_bytes(wanted: ArchivedImage, base: Base) -> int:
    """How much would be loaded on top of a base."""
    if base.image and base.image.is_one_of(wanted.identity):
        return 0
    return sum(layer.size_bytes for layer in missing_layers(wanted, base))
