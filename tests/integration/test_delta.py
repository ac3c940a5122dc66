# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading only what is missing, on real engines: the image is the very same, or else a full load follows."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import open_archive
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.delta import Base, load_image
from ansible_collections.haku.river.plugins.module_utils.errors import Refused
from ansible_collections.haku.river.plugins.module_utils.storage import has_in_content_store
from ansible_collections.haku.river.plugins.module_utils.tarball import LAYER_TYPE, Blob, stream_image

from tests.integration.environment import Environment
from tests.integration.marks import ONE_PODMAN_SHOWS_IT
from tests.integration.modules import converge, fail, run_module, succeed
from tests.lab import images
from tests.lab.engines import Engine
from tests.tarballs import add, hand_made, sha256

PULLED = "haku-test/pulled:1"
LISTING = "find /bin /root /tmp /var $(ls -d /greeting /new /large) -exec ls -ldn {} + ; sha1sum /greeting"


def package(environment: Environment, greeting: str) -> int:
    """Publish a version that says `greeting`, beside the others."""
    environment.execute(f"echo {greeting} > /greeting")
    version: int = succeed("haku_tar", **environment.options, keep=9)["version"]
    return version


def contents(environment: Environment, tmp_path: Path) -> tuple[Any, ...]:
    """All that makes an image: layers as the engine saves them, each proven; configuration; files."""
    saved = tmp_path / "saved.tar"
    environment.engine.docker("save", "--output", saved, environment.image)
    with open_archive(saved) as archive:
        for layer in archive.image.layers:
            for _chunk in archive.uncompressed(layer):
                pass
        identity = archive.image.identity
    saved.unlink()
    inspected = environment.inspect(environment.image)
    return identity, inspected["RootFS"]["Layers"], inspected["Created"], environment.run_image(LISTING)


def test_an_update_reads_the_new_layer_only_and_gives_the_very_image(environment: Environment, tmp_path: Path) -> None:
    environment.execute("dd if=/dev/urandom of=/large bs=1M count=20 2>/dev/null")
    older = package(environment, "one")
    environment.execute("rm /bin/tac; mkdir /new; ln /greeting /new/link; mkfifo /new/pipe")
    newer = package(environment, "two")
    environment.leave()
    first = converge("haku_sync", **environment.options, version=older).first
    assert first["layers_reused"] == 1, "the public base image is there"
    update = converge("haku_sync", **environment.options).first
    assert (update["version"], update["layers_loaded"], update["layers_reused"]) == (newer, 1, 2)
    assert update["fallback"] is None
    assert update["bytes_read"] < 256 << 10 < update["bytes_total"]
    assert environment.references == [environment.image]
    by_delta = contents(environment, tmp_path)
    environment.engine.docker("image", "rm", environment.image)
    full = converge("haku_sync", **environment.options, delta="never").first
    assert (full["layers_loaded"], full["layers_reused"]) == (3, 0)
    assert contents(environment, tmp_path) == by_delta


@ONE_PODMAN_SHOWS_IT
def test_a_content_store_tells_what_its_engine_has_by_the_image_id(environment: Environment) -> None:
    package(environment, "one")
    environment.leave()
    image_id = succeed("haku_sync", **environment.options)["image_id"]
    assert environment.inspect(environment.image)["Id"] == image_id
    info = connect(EngineSettings(docker_host=environment.engine.url)).description
    assert has_in_content_store(info, image_id) == (environment.engine.store == "containerd")


@ONE_PODMAN_SHOWS_IT
def test_another_environment_on_the_same_base_counts(environment: Environment, tmp_path: Path) -> None:
    environment.execute("dd if=/dev/urandom of=/large bs=1M count=20 2>/dev/null")
    package(environment, "one")
    environment.leave()
    succeed("haku_sync", **environment.options)
    other = Environment(environment.engine, f"{environment.name}-other", environment.shared)
    other.create(environment.image)
    other.execute("echo other > /greeting")
    succeed("haku_tar", **other.options)
    other.leave()
    seen = converge("haku_sync", **other.options)
    environment.engine.docker("image", "rm", environment.image)
    assert (seen.first["layers_loaded"], seen.first["layers_reused"]) == (1, 2)
    assert other.run_image("cat /greeting; stat -c %s /large").split() == ["other", str(20 << 20)]
    assert len(contents(other, tmp_path)[1]) == 3
    other.leave()


@ONE_PODMAN_SHOWS_IT
def test_a_base_that_goes_meanwhile_leads_to_a_full_load_once(environment: Environment, tmp_path: Path) -> None:
    """Between the look and the load nobody can be held still, so the look is what is made up here."""
    environment.execute("echo unique to this test > /unique")
    version = package(environment, "one")
    environment.leave()
    engine = connect(EngineSettings(docker_host=environment.engine.url))
    base = engine.find_image(images.BUSYBOX.name)
    reference = f"hakuriver/{environment.name}:sync-1"
    with open_archive(environment.tarball(version)) as archive:
        gone = Base(base, len(archive.image.layers))
        with pytest.raises(Refused, match="Set delta: auto"):
            load_image(engine, archive, gone, reference, fall_back=False)
        image_id, refusal = load_image(engine, archive, gone, reference, fall_back=True)
        loaded, wanted = engine.find_image(reference), archive.image.identity
    assert refusal
    assert loaded
    assert (loaded.id, loaded.identity) == (image_id, wanted)
    environment.engine.docker("tag", reference, environment.image)
    environment.engine.docker("image", "rm", reference)
    assert contents(environment, tmp_path)[0] == wanted


@pytest.fixture
def on_pulled_base(engines: dict[str, Engine], tmp_path: Path) -> Iterator[Environment]:
    """Give an environment with one version, on a base that the containerd store has compressed, as from a registry."""
    engine = engines["d28c"]
    layer = _unique_layer(tmp_path)
    compressed = gzip.compress(layer, compresslevel=1)
    blob = Blob(f"sha256:{sha256(compressed)}", len(compressed), f"{LAYER_TYPE}+gzip")
    base = stream_image(hand_made(layer, Cmd=["sh"]).config, [blob], [(blob, [compressed])], PULLED)
    engine.docker("load", stdin=b"".join(base.chunks))
    (tmp_path / "shared/hakuriver-containers").mkdir(parents=True)
    environment = Environment(engine, "on-pulled-base", tmp_path / "shared")
    environment.create(PULLED)
    package(environment, "hello")
    environment.leave()
    yield environment
    for reference in [*environment.references, PULLED]:
        engine.docker("image", "rm", "--force", reference)


def _unique_layer(directory: Path) -> bytes:
    """Make a layer that the engine cannot have in any other form."""
    path = directory / "layer.tar"
    with open_archive(images.BUSYBOX.tarball) as archive:
        path.write_bytes(b"".join(archive.uncompressed(archive.image.layers[0])))
    with tarfile.open(path, "a") as tar:
        add(tar, "unique", os.urandom(1 << 20))
    return path.read_bytes()


def hiding_storage(engine: Engine) -> tuple[str, ...]:
    """Words before a command that make the engine's storage unreadable to it, as it is on another machine."""
    return (
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none "$0" && exec "$@"',
        str(engine.socket.parent / "data"),
    )


def test_a_compressed_base_is_named_as_the_engine_has_it(on_pulled_base: Environment, tmp_path: Path) -> None:
    seen = converge("haku_sync", **on_pulled_base.options, delta="always").first
    assert (seen["layers_loaded"], seen["layers_reused"]) == (1, 1)
    by_delta = contents(on_pulled_base, tmp_path)
    on_pulled_base.engine.docker("image", "rm", on_pulled_base.image)
    succeed("haku_sync", **on_pulled_base.options, delta="never")
    assert contents(on_pulled_base, tmp_path) == by_delta


def test_a_compressed_base_that_cannot_be_named_leads_to_a_full_load_that_says_so(
    on_pulled_base: Environment, tmp_path: Path
) -> None:
    hidden = hiding_storage(on_pulled_base.engine)
    refused = run_module("haku_sync", within=hidden, **on_pulled_base.options, delta="always")
    assert "Set delta: auto" in refused["msg"]
    assert on_pulled_base.references == []
    result = run_module("haku_sync", within=hidden, **on_pulled_base.options)
    assert (result["layers_loaded"], result["layers_reused"]) == (2, 0)
    assert result["fallback"] == "it has 0 of its 2 layers"
    assert "All layers were loaded, as the engine could not use those that it has" in json.dumps(result["warnings"])
    assert on_pulled_base.references == [on_pulled_base.image]
    full = contents(on_pulled_base, tmp_path)
    on_pulled_base.engine.docker("image", "rm", on_pulled_base.image)
    succeed("haku_sync", **on_pulled_base.options, delta="never")
    assert contents(on_pulled_base, tmp_path) == full


@ONE_PODMAN_SHOWS_IT
def test_going_back_and_forth_between_kept_images_reads_nothing(environment: Environment) -> None:
    older, newer = package(environment, "one"), package(environment, "two")
    environment.leave()
    options = {**environment.options, "keep_images": 1}
    succeed("haku_sync", **options, version=older)
    assert converge("haku_sync", **options).first["former_versions"] == [older]
    for tarball in environment.tarballs.glob("*.tar"):
        tarball.unlink()
    for version, other, greeting in ((older, newer, "one"), (newer, older, "two")):
        moved = converge("haku_sync", **options, version=version).first
        assert (moved["action"], moved["version"], moved["bytes_read"]) == ("tag", version, 0)
        assert moved["former_versions"] == [other]
        assert moved["diff"] == {"before": {"version": other}, "after": {"version": version}}
        assert environment.run_image("cat /greeting").strip() == greeting
    assert "no tarball" in fail("haku_sync", **options, version=1)


@ONE_PODMAN_SHOWS_IT
def test_no_more_former_images_stay_than_asked_for_but_those_in_use(environment: Environment) -> None:
    versions = [package(environment, greeting) for greeting in ("one", "two", "three", "four")]
    environment.leave()
    one, two, three, four = versions
    succeed("haku_sync", **environment.options, version=one)
    environment.engine.docker("create", "--name", environment.name, environment.image, "true")
    options = {**environment.options, "keep_images": 1}
    assert converge("haku_sync", **options, version=two).first["former_versions"] == [one]
    assert converge("haku_sync", **options, version=three).first["former_versions"] == [two, one]
    environment.engine.docker("rm", environment.name)
    assert converge("haku_sync", **options, version=four).first["former_versions"] == [three]
    assert environment.references == sorted([environment.image, f"hakuriver/{environment.name}:{three}"])
    assert converge("haku_sync", **environment.options, state="absent").first["action"] == "remove"
    assert environment.references == []


def test_the_host_has_the_image_of_what_it_packaged(environment: Environment) -> None:
    version = package(environment, "hello")
    seen = converge("haku_sync", **environment.options).first
    assert (seen["action"], seen["version"], seen["layers_loaded"]) == ("tag", version, 0)
    assert seen["bytes_read"] < 100_000
    assert converge("haku_sync", **environment.options, state="absent").first["action"] == "remove"
    assert environment.references == [environment.image_of(version)], "the env container uses it"
