# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names are taken or refused by one rule, and times are read as every engine writes them."""

from __future__ import annotations

import pytest
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import (
    TarballName,
    canonical_reference,
    check_environment_name,
    image_reference,
    parse_tarball_name,
)
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time, unix_timestamp


@pytest.mark.parametrize("name", ["a1", "python-3.9-ml", "a.b", "a_b", "a__b", "a--b", "0", "x" * 200])
def test_a_repository_component_can_name_an_environment(name: str) -> None:
    assert check_environment_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "../x", "a b", "A", "x;rm -rf", "a..b", "a___b", "-a", "a-", "a/b", "a:b", "ä", "a\n", "x" * 201]
)
def test_anything_else_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(HakuError, match="a name is made of lower-case letters and digits"):
        check_environment_name(name)


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("env-1767225600.tar", TarballName("env", 1767225600)),
        ("my-env-2-1767225600.tar", TarballName("my-env-2", 1767225600)),
        ("env-0.tar", TarballName("env", 0)),
        (".env-1767225600.tar.0a1b.part", None),
        ("env-1767225600.tar.gz", None),
        ("env.tar", None),
        ("env-01.tar", None),
        ("Env-1.tar", None),
        ("env-1.tar\n", None),
    ],
)
def test_a_tarballs_name_says_environment_and_version(file_name: str, expected: TarballName | None) -> None:
    assert parse_tarball_name(file_name) == expected
    if expected:
        assert str(expected) == file_name


@pytest.mark.parametrize("prefix", ["hakuriver", "lab/images", "host.example:5000/lab"])
def test_an_image_prefix_may_name_a_registry(prefix: str) -> None:
    assert image_reference(prefix, "env", "base") == f"{prefix}/env:base"


@pytest.mark.parametrize(("prefix", "tag"), [("", "base"), ("UPPER", "base"), ("a/", "base"), ("a", ""), ("a", "b c")])
def test_an_image_name_that_no_engine_takes_is_refused(prefix: str, tag: str) -> None:
    with pytest.raises(HakuError, match="image_prefix" if tag == "base" else "image_tag"):
        image_reference(prefix, "env", tag)


@pytest.mark.parametrize(
    ("reference", "canonical"),
    [
        ("busybox:1", "docker.io/library/busybox:1"),
        ("hakuriver/env:base", "docker.io/hakuriver/env:base"),
        ("localhost/env:base", "localhost/env:base"),
        ("host.example:5000/lab/env:base", "host.example:5000/lab/env:base"),
    ],
)
def test_the_containerd_store_wants_names_in_full(reference: str, canonical: str) -> None:
    assert canonical_reference(reference) == canonical


@pytest.mark.parametrize(
    ("created", "timestamp"),
    [
        ("2026-01-01T00:00:00Z", 1767225600),
        ("2026-01-01T00:00:00.999999999Z", 1767225600),
        ("2026-01-01T01:30:00.5+01:30", 1767225600),
        ("2025-12-31T19:00:00-05:00", 1767225600),
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", None),
        ("2026-02-31T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_every_engines_time_is_floored_to_a_version(created: str | None, timestamp: int | None) -> None:
    assert unix_timestamp(created) == timestamp


def test_a_version_is_shown_as_a_time() -> None:
    assert iso_time(1767225600) == "2026-01-01T00:00:00Z"
    assert iso_time(999999999999) == "@999999999999"
