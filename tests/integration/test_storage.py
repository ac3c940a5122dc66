# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers read from the engine's own storage are those that the engine itself would hand out, on real engines."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environment import Environment
from tests.integration.marks import not_on
from tests.integration.modules import Result, fail, succeed, without
from tests.lab import images
from tests.lab.engines import PODMAN, Engine
from tests.tarballs import HandMade, add, document, hand_made, sha256, tar_of

# Names are bytes to a kernel: not all are UTF-8, or of one line, or short.
NAMES = [b"odd/\xff\xfe", "odd/ümlaut".encode(), b"odd/two\nlines", b"odd/ space ", b"odd/\\back", b"odd/" + b"n" * 200]
DEEP = b"odd/" + b"/".join([b"d" * 60] * 5)


def storage(engine: Engine) -> str:
    """Where an engine keeps everything."""
    return engine.docker("info", "--format", "{{.DockerRootDir}}").strip()


def entry(name: bytes, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, **more: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(os.fsdecode(name))
    found.type, found.mode, found.mtime = kind, mode, 1_700_000_000
    for field, value in more.items():
        setattr(found, field, value)
    return found


def odd_files() -> bytes:
    """A tar stream of what no shell makes: odd names, attributes, owners, kinds, times."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(entry(b"odd", tarfile.DIRTYPE, 0o1777))
        for name in NAMES:
            tar.addfile(entry(name, size=len(name)), io.BytesIO(name))
        for depth in range(1, 6):
            tar.addfile(entry(DEEP[: 3 + 61 * depth], tarfile.DIRTYPE, 0o755))
        tar.addfile(entry(DEEP + b"/file", size=4), io.BytesIO(b"deep"))
        tar.addfile(entry(b"odd/long-link", tarfile.SYMTYPE, linkname="/" + "t" * 150))
        tar.addfile(entry(b"odd/fifo", tarfile.FIFOTYPE))
        tar.addfile(entry(b"odd/device", tarfile.CHRTYPE, devmajor=1, devminor=3))
        tar.addfile(entry(b"odd/setuid", mode=0o6755, size=3, uid=1000, gid=100_000), io.BytesIO(b"set"))
        capability = os.fsdecode(bytes.fromhex("0100000200200000000000000000000000000000"))
        attributes = {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.own": "value"}
        tar.addfile(entry(b"odd/attributes", size=3, pax_headers=attributes), io.BytesIO(b"cap"))
        tar.addfile(entry(b"odd/time", mtime=1_600_000_000.123456789))
        tar.addfile(entry(b"odd/old", mtime=-1))
    return stream.getvalue()


def furnish(environment: Environment) -> None:
    """Fill the container with everything that a layer can say."""
    environment.engine.docker("cp", "-", f"{environment.name}:/", stdin=odd_files())
    environment.execute(
        "mkdir /one && echo 1 > /one/file && ln /one/file /one/hard && ln /one/file /odd/hard && ln -s file /one/soft;"
        "truncate -s 3000000 /sparse && echo end >> /sparse; dd if=/dev/urandom of=/large bs=1M count=3 2>/dev/null;"
        "touch /empty; mkdir /none; echo x > /kind; mkdir /opaque && echo old > /opaque/old; mkfifo /fifo"
    )


def alter(environment: Environment) -> None:
    """Change what is below: files and directories removed, replaced by others, and made anew."""
    environment.execute(
        "rm /one/file /etc/group; rm -r /none; rm /kind && mkdir /kind && echo in > /kind/in;"
        "rm -r /opaque && mkdir /opaque && echo new > /opaque/new; rm -r /var/log && echo no > /var/log;"
        "chmod 700 /root; chown 7:7 /empty; echo more >> /large; rm /bin/vi && ln -s sh /bin/vi"
    )


def layers(tarball: Path) -> list[bytes]:
    """The layers' bytes as they stand in a tarball, from the base up."""
    (image,) = document(tarball, "manifest.json")
    with tarfile.open(tarball) as tar:
        found = [tar.extractfile(path) for path in image["Layers"]]
        return [layer.read() for layer in found if layer]


def config(tarball: Path) -> dict[str, Any]:
    """The configuration of the image, without the moment at which it was made."""
    (image,) = document(tarball, "manifest.json")
    found: dict[str, Any] = document(tarball, image["Config"])
    del found["created"], found["history"]
    return found


@dataclass(frozen=True)
class Said:
    """What a layer says of a path: its kind, mode, owner and so on, and what is in it."""

    facts: tuple[object, ...]
    attributes: dict[str, str]
    content: bytes | None


def contents(layer: bytes) -> dict[str, Said]:
    """What a layer says of each path, however it says it."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(layer), errors="surrogateescape") as tar:
        for member in tar:
            facts: tuple[object, ...] = (
                member.type,
                member.mode,
                member.uid,
                member.gid,
                int(member.mtime),
                member.linkname,
            )
            if ".wh." in member.name:  # means nothing but its name
                facts = ()
            elif not member.isreg() and not member.isdir():
                facts = (*facts, member.devmajor, member.devminor)
            attributes = {key: value for key, value in member.pax_headers.items() if "xattr" in key}
            file = tar.extractfile(member) if member.isreg() else None
            found[member.name.strip("/")] = Said(facts, attributes, file.read() if file else None)
    return found


def packaged(environment: Environment, shared: Path, **options: Any) -> tuple[Result, Path]:
    """Package into another shared directory."""
    (shared / "hakuriver-containers").mkdir(parents=True, exist_ok=True)
    result = succeed("haku_tar", **{**environment.options, "shared_dir": str(shared), "rebase": False, **options})
    return result, Path(result["tarball"])


@not_on(*PODMAN, reason="there the module's own commit comes first, which has its own test below")
def test_storage_gives_what_docker_save_gives(environment: Environment, tmp_path: Path) -> None:
    unreadable = without(storage(environment.engine))
    furnish(environment)
    assert succeed("haku_tar", **environment.options)["rebased"]
    alter(environment)
    # At rest, so that every engine commits by itself, the same each time.
    environment.engine.docker("stop", environment.name)
    container = environment.inspect(environment.name)["Id"]
    fast, from_storage = packaged(environment, tmp_path / "fast")
    assert fast["layers_from"] in ("overlay2", "containerd content store")
    assert fast.get("warnings", []) == []
    slow, from_save = packaged(environment, tmp_path / "slow", rebase=True, within=unreadable)
    assert (slow["layers_from"], slow["rebased"], slow["layers_written"]) == ("docker save", False, 3)
    assert "Layers come from docker save, which costs the whole image" in str(slow["warnings"])
    assert layers(from_storage) == layers(from_save)
    assert config(from_storage) == config(from_save)
    state = environment.inspect(environment.name)
    assert (state["Id"], state["State"]["Status"]) == (container, "exited")
    _base, first, second = map(contents, layers(from_storage))
    assert {os.fsdecode(name) for name in (*NAMES, DEEP + b"/file")} <= first.keys()
    assert {"one/.wh.file", ".wh.none", "etc/.wh.group", "kind", "kind/in", "opaque/new"} <= second.keys()


@pytest.mark.parametrize("engine", ["d28c", "podman"], indirect=True)
def test_a_commit_of_our_own_says_what_the_engine_s_says(environment: Environment, tmp_path: Path) -> None:
    unreadable = without(storage(environment.engine))
    furnish(environment)
    alter(environment)
    _fast, own = packaged(environment, tmp_path / "fast")
    _slow, engines = packaged(environment, tmp_path / "slow", within=unreadable)
    assert config(own)["config"] == config(engines)["config"]
    ours, theirs = (contents(layers(tarball)[-1]) for tarball in (own, engines))
    if environment.engine.name == "d28c":
        # This one the engine forgets.
        assert ours["odd/attributes"].attributes.pop("SCHILY.xattr.user.own") == "value"
    # These it makes itself, empty, for its own mounts; `docker cp` brings them up.
    for name in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):
        ours.pop(name, None)
        theirs.pop(name, None)
    assert ours == theirs


def top_layer(environment: Environment) -> Path:
    """What an engine keeps the top layer of the container's image in: a directory, or a blob."""
    if environment.engine.store == "overlay2":
        image = environment.inspect(environment.inspect(environment.name)["Image"])
        return Path(image["GraphDriver"]["Data"]["UpperDir"])
    diff_id = environment.inspect(environment.image_of(environment.versions[0]))["RootFS"]["Layers"][-1]
    blobs = Path(storage(environment.engine), "containerd/daemon/io.containerd.content.v1.content/blobs/sha256")
    return blobs / str(diff_id).partition(":")[2]


@pytest.mark.parametrize("engine", ["d28", "d28c"], indirect=True)
def test_a_layer_that_somebody_has_touched_is_never_published(environment: Environment, tmp_path: Path) -> None:
    environment.execute("echo precious > /precious")
    assert succeed("haku_tar", **environment.options)["rebased"]
    environment.execute("echo more > /more")
    touched = top_layer(environment)
    touched = touched / "precious" if touched.is_dir() else touched
    whole, times = touched.read_bytes(), (touched.stat().st_atime_ns, touched.stat().st_mtime_ns)
    touched.write_bytes(whole.replace(b"precious\n", b"precioux\n"))
    os.utime(touched, ns=times)
    container, references = environment.inspect(environment.name)["Id"], environment.references
    elsewhere = Environment(environment.engine, environment.name, tmp_path / "empty")
    elsewhere.tarballs.mkdir(parents=True)
    sentence = fail("haku_tar", **elsewhere.options)
    if environment.engine.store == "overlay2":
        assert "Cannot save image" in sentence
        assert 'file integrity checksum failed for "precious"' in sentence
    else:
        assert sentence.startswith("The engine did not save image")
    assert (elsewhere.versions, elsewhere.leftovers) == ([], [])
    assert environment.inspect(environment.name)["Id"] == container
    assert environment.running
    assert environment.references == references
    touched.write_bytes(whole)
    os.utime(touched, ns=times)
    assert succeed("haku_tar", **elsewhere.options)["layers_written"] == 3


def compressed_image(path: Path, name: str) -> None:
    """Write the lab's base image as registries have it: with a compressed layer, in an index with an attestation."""
    with tarfile.open(images.BUSYBOX.tarball) as tar:
        layer, text = (tar.extractfile(name) for name in ("layer.tar", "config.json"))
        assert layer
        assert text
        blobs = [gzip.compress(layer.read(), mtime=0), text.read()]
    described = [
        {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{sha256(blob)}", "size": len(blob)}
        for kind, blob in zip(("layer.v1.tar+gzip", "config.v1+json"), blobs, strict=True)
    ]
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "layers": described[:1], "config": described[1]}
    blobs.append(json.dumps(manifest).encode())
    with tarfile.open(path, "w") as tar:
        for blob in blobs:
            add(tar, f"blobs/sha256/{sha256(blob)}", blob)
        top = {"mediaType": kind, "digest": f"sha256:{sha256(blobs[-1])}", "size": len(blobs[-1])}
        top["annotations"] = {"io.containerd.image.name": f"docker.io/{name}"}
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


@pytest.mark.parametrize("engine", ["d28c"], indirect=True)
def test_a_base_that_came_compressed_is_packaged_uncompressed_and_shared(
    environment: Environment, tmp_path: Path
) -> None:
    engine, name = environment.engine, f"haku-test/{environment.name}:compressed"
    compressed_image(tmp_path / "image.tar", name)
    engine.docker("load", stdin=tmp_path / "image.tar")
    base = environment.inspect(name)["RootFS"]["Layers"]
    engine.docker("rm", "--force", environment.name)
    environment.create(name)
    try:
        for number in range(2):
            environment.execute(f"echo {number} >> /numbers")
            result = succeed("haku_tar", **environment.options)
            assert (result["layers_from"], result["rebased"]) == ("containerd content store", True)
            assert (result["layers_written"], result["layers_cloned"]) == ((2, 0), (1, 2))[number]
        assert environment.execute("cat /numbers") == "0\n1\n"
        diff_ids = [f"sha256:{sha256(layer)}" for layer in layers(environment.tarball(environment.versions[0]))]
        assert diff_ids[:1] == base
        engine.docker("rm", "--force", environment.name)
        engine.docker("image", "rm", name, *environment.references)
        succeed("haku_sync", **environment.options)
        assert environment.inspect(environment.image)["RootFS"]["Layers"] == diff_ids
        assert environment.run_image("cat /numbers") == "0\n1\n"
    finally:
        engine.docker("rm", "--force", environment.name)
        engine.docker("image", "rm", "--force", name)


def image_of_two_platforms(path: Path, name: str) -> str:
    """Write the lab's base image with another platform's before it; returns the diff ID of the base image's layer."""
    with tarfile.open(images.BUSYBOX.tarball) as tar:
        layer, text = (tar.extractfile(name) for name in ("layer.tar", "config.json"))
        assert layer
        assert text
        own = HandMade((layer.read(),), text.read())
    other = hand_made(tar_of({"other": b"platform"}))
    blobs = []

    def put(kind: str, blob: bytes) -> dict[str, Any]:
        blobs.append(blob)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{sha256(blob)}", "size": len(blob)}

    manifests = []
    for image, architecture in ((other, "riscv64"), (own, json.loads(own.config)["architecture"])):
        layers = [put("layer.v1.tar", image.layers[0])]
        config = put("config.v1+json", image.config)
        manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({**put("manifest.v1+json", manifest), "platform": platform})
    index = put("index.v1+json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
    index["annotations"] = {"io.containerd.image.name": f"docker.io/{name}"}
    with tarfile.open(path, "w") as tar:
        for blob in blobs:
            add(tar, f"blobs/sha256/{sha256(blob)}", blob)
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [index]}).encode())
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    return own.diff_ids[0]


@pytest.mark.parametrize("engine", ["d28c"], indirect=True)
def test_of_several_platforms_the_container_s_own_is_packaged(environment: Environment, tmp_path: Path) -> None:
    engine, name = environment.engine, f"haku-test/{environment.name}:platforms"
    base = image_of_two_platforms(tmp_path / "image.tar", name)
    engine.docker("load", stdin=tmp_path / "image.tar")
    engine.docker("rm", "--force", environment.name)
    try:
        environment.create(name)
        environment.execute("echo more > /more")
        result = succeed("haku_tar", **environment.options)
        assert f"sha256:{sha256(layers(environment.tarball(result['version']))[0])}" == base
        assert environment.execute("cat /more") == "more\n"
    finally:
        engine.docker("rm", "--force", environment.name)
        engine.docker("image", "rm", "--force", name)
