# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The port of a VPS, on the host's own engine, which publishes on the host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.integration.modules import converge, result_of, start_module, succeed
from tests.integration.vps import Place
from tests.lab.host import run

# Apart from the usual range, and from the ports of outgoing connections.
FIRST = 21800
RANGE = f"{FIRST}-{FIRST + 1}"


@contextmanager
def listening(port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """Be another program at that port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        yield


def test_a_port_that_is_given_is_the_one(main_vps_place: Place) -> None:
    machine = converge("haku_vps", **main_vps_place.options, port=FIRST).first["vps"]
    assert machine["port"] == FIRST
    assert main_vps_place.ssh(machine, "true") == ""
    message = main_vps_place.fail(port=FIRST + 1)
    assert f"port (asked: {FIRST + 1}; there: {FIRST})" in message
    moved = converge("haku_vps", **main_vps_place.options, port=FIRST + 1, recreate=True).first["vps"]
    assert moved["port"] == FIRST + 1
    assert moved["host_key_fingerprint"] == machine["host_key_fingerprint"]


def test_a_given_port_that_is_taken_is_an_error_and_leaves_nothing(main_vps_place: Place) -> None:
    with listening(FIRST):
        message = main_vps_place.fail(port=FIRST)
    assert f"Port {FIRST} is taken" in message
    assert "address already in use" in message
    assert main_vps_place.containers == []


def test_of_a_range_the_first_free_port_is_taken_whoever_has_the_others(main_vps_place: Place) -> None:
    with listening(FIRST):
        machine = converge("haku_vps", **main_vps_place.options, port_range=RANGE).first["vps"]
    assert machine["port"] == FIRST + 1


def test_the_port_of_a_stopped_vps_stays_its_own_and_a_full_range_names_who_has_it(main_vps_place: Place) -> None:
    one, two, three = (main_vps_place.named(f"{main_vps_place.vps}-{number}") for number in (1, 2, 3))
    assert one.have(port_range=RANGE)["vps"]["port"] == FIRST
    succeed("haku_vps", **one.bare_options, state="stopped")
    assert two.have(port_range=RANGE)["vps"]["port"] == FIRST + 1
    message = three.fail(port_range=RANGE)
    assert f"No port of {RANGE} is free: they are taken by {one.container}, {two.container}" in message
    assert main_vps_place.containers == [one.container, two.container]
    assert one.have()["vps"]["port"] == FIRST


def test_vps_started_at_once_from_one_range_get_ports_of_their_own(main_vps_place: Place) -> None:
    places = [main_vps_place.named(f"{main_vps_place.vps}-{number}") for number in range(4)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(start_module("haku_vps", **place.options, port_range=f"{FIRST}-{FIRST + 3}"))
            for place in places
        ]
        results = [result_of(process) for process in started]
    assert sorted(result["vps"]["port"] for result in results) == list(range(FIRST, FIRST + 4))
    for place, result in zip(places, results, strict=True):
        assert place.ssh(result["vps"], "hostname").strip() == place.vps


def test_one_vps_that_is_asked_for_twice_at_once_is_created_once(main_vps_place: Place) -> None:
    with (
        start_module("haku_vps", **main_vps_place.options) as one,
        start_module("haku_vps", **main_vps_place.options) as two,
    ):
        results = [result_of(process) for process in (one, two)]
    assert sorted(result["changed"] for result in results) == [False, True]
    assert results[0]["vps"] == results[1]["vps"]


def test_on_a_loopback_address_it_is_reached_from_nowhere_else(main_vps_place: Place) -> None:
    options = {**main_vps_place.options, "host": "gpu01.example.org", "address": "127.0.0.1", "port": FIRST}
    machine = converge("haku_vps", **options).first["vps"]
    assert machine["host"] == "127.0.0.1"
    assert main_vps_place.ssh(machine, "true") == ""
    assert run("ss", "-Hltn", f"sport = :{FIRST}").split()[3] == f"127.0.0.1:{FIRST}"


def test_another_server_at_the_port_is_not_taken_for_the_vps(main_vps_place: Place) -> None:
    machine = main_vps_place.have(address="127.0.0.2", port=FIRST)["vps"]
    other = main_vps_place.named(f"{main_vps_place.vps}-2")
    # Published on every address but the one that is asked at: there, somebody else answers.
    other.have(address="127.0.0.1", port=FIRST)
    main_vps_place.engine.docker("exec", main_vps_place.container, "rm", "/etc/ssh/ssh_host_ed25519_key.pub")
    message = main_vps_place.fail(ready_timeout=1)
    assert "does not answer by SSH after 1 s: another SSH server answers at its port" in message
    assert machine["port"] == FIRST
