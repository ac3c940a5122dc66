# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which port a VPS gets follows from what is asked for and what is taken."""

from __future__ import annotations

import pytest
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.vps_port import (
    Ports,
    binding,
    choose,
    is_in_use,
    published,
)


@pytest.mark.parametrize(
    ("port", "port_range", "expected"),
    [
        (None, None, Ports(22000, 22999, said=False)),
        (2222, None, Ports(2222, 2222)),
        (None, "2200-2201", Ports(2200, 2201)),
        (None, "2200", Ports(2200, 2200)),
        (None, "1-65535", Ports(1, 65535)),
    ],
)
def test_ports_are_one_a_range_or_the_usual_range(port: int | None, port_range: str | None, expected: Ports) -> None:
    assert Ports.from_options(port, port_range, None) == expected


@pytest.mark.parametrize(
    ("port", "port_range"),
    [(0, None), (-1, None), (65536, None), (None, "2-1"), (None, "a-b"), (None, "1-65536"), (None, "1-2-3")],
)
def test_what_is_no_port_is_refused(port: int | None, port_range: str | None) -> None:
    with pytest.raises(HakuError, match="means no port"):
        Ports.from_options(port, port_range, None)


@pytest.mark.parametrize("address", ["localhost", "", "1.2.3", "0.0.0.0; reboot"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HakuError, match="is not an IP address"):
        Ports.from_options(None, None, address)


def test_the_first_free_port_of_a_range_is_taken() -> None:
    ports = Ports(2200, 2203)
    assert choose(ports, {}, {}) == 2200
    assert choose(ports, {2200: "haku-vps-a", 2201: "web"}, {}) == 2202
    assert choose(ports, {2200: "haku-vps-a"}, {2201: "in use"}) == 2202


def test_a_range_without_a_free_port_is_an_error_that_names_who_has_them() -> None:
    with pytest.raises(
        HakuError, match=r"No port of 2200-2202 is free: they are taken by haku-vps-a, web and 1 by other"
    ):
        choose(Ports(2200, 2202), {2200: "web", 2201: "haku-vps-a", 9: "far"}, {2202: "in use"})


def test_a_single_port_is_left_to_the_engine_as_it_may_be_free_on_another_address() -> None:
    assert choose(Ports(2200, 2200), {2200: "web"}, {}) == 2200
    with pytest.raises(HakuError, match=r"Port 2200 is taken: port is already allocated\. Choose another"):
        choose(Ports(2200, 2200), {}, {2200: "port is already allocated"})


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("driver failed …: Bind for 0.0.0.0:2200 failed: port is already allocated", True),
        ("… listen tcp4 0.0.0.0:2200: bind: address already in use", True),
        ("rootlessport listen tcp 0.0.0.0:2200: bind: address already in use", True),
        ("no such image", False),
    ],
)
def test_the_engines_words_for_a_port_in_use_are_known(cause: str, expected: bool) -> None:
    assert is_in_use(EngineError("Cannot start container x", cause=cause)) is expected


def test_what_is_asked_of_the_engine_is_read_again() -> None:
    for address, expected in ((None, "0.0.0.0"), ("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        answer = {"HostConfig": {"PortBindings": binding(address, 2200)}}
        assert published(answer) == (expected, 2200)
    assert published({"HostConfig": {}}) == ("0.0.0.0", None)
