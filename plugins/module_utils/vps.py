# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VPS: an SSH machine of an environment on this Runner, brought to what is desired."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_steps import Restart, Start, aside_name
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.lock import exclusive, local_path
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time
from ansible_collections.haku.river.plugins.module_utils.vps_keys import fingerprint, known_hosts_line
from ansible_collections.haku.river.plugins.module_utils.vps_plan import Machine, Plan, Seen, Wish, plan
from ansible_collections.haku.river.plugins.module_utils.vps_snapshots import all_snapshots
from ansible_collections.haku.river.plugins.module_utils.vps_steps import (
    Create,
    Replace,
    container_name,
    find_host_key,
    find_keys,
)


@dataclass(frozen=True)
class Context:
    """What goes with a wish: `host` is by what name or address people reach this machine, None if nobody said.

    `bring_image` brings the environment's image up to date, or in check mode forecasts that; None if there is no
    source for that and the image that is here has to do.
    """

    host: str | None
    bring_image: Callable[[], Outcome] | None


def manage_vps(engine: Engine, wish: Wish, context: Context, check_mode: bool) -> Outcome:
    """Bring the VPS to what is desired."""
    if wish.state in ("present", "stopped", "restarted"):
        engine.check_offers(f"VPS {wish.vps} cannot be as asked", *wish.asked.special_needs)
    lock = local_path(engine.identity, "vps", wish.vps)
    what = f"work on VPS {wish.vps}"
    with nullcontext() if check_mode else exclusive(lock, wish.lock_timeout_seconds, what):
        seen = observe(engine, wish.vps)
        decided = plan(seen, wish)
        brought = None
        if decided.renews:
            brought = _bring_image(engine, wish, context)
            seen = replace(seen, image_version=brought.facts["version"])
            decided = plan(seen, wish)
        if not check_mode:
            for step in decided.steps:
                step.run(engine)
            _confirm(engine, wish, decided)
        machine = _forecast(seen, decided, wish) if check_mode else observe(engine, wish.vps).machine
    return Outcome(
        changed=bool(decided.steps),
        facts={
            "vps": described_machine(wish.vps, machine, context.host) if machine else None,
            "snapshots": _snapshot_facts(decided, check_mode),
            "sync": None if brought is None else dict(brought.facts),
            "actions": [step.words for step in decided.steps],
        },
        before={each.option: each.there for each in decided.differences if each.there is not None},
        after={each.option: each.asked for each in decided.differences},
        warnings=(*engine.warnings, *(brought.warnings if brought else ()), *_leftover_warnings(seen, wish)),
    )


def observe(engine: Engine, vps: str) -> Seen:
    """Ask the engine for all that a plan depends on."""
    name = container_name(vps)
    named, former = (find_machine(engine, vps, container) for container in (name, aside_name(name)))
    # Nobody's container that merely has our name for the former one is ours.
    former = former if former and former.managed else None
    # One that never started may lack its keys.
    unfinished = named is not None and named.managed and named.state == "created"
    named = None if unfinished else named
    return Seen(
        machine=named or former,
        unfinished=unfinished,
        snapshots=all_snapshots(engine.images()).get(vps, ()),
        aside=named is None and former is not None,
        leftover=named is not None and former is not None,
        now=int(time.time()),
    )


def find_machine(engine: Engine, vps: str, container: str) -> Machine | None:
    """The container of exactly that name, as a VPS; `managed` says whether it is one."""
    answer = engine.find_container(container)
    # What looks like the beginning of some container's ID finds that one too.
    if answer is None or answer["Name"].lstrip("/") != container:
        return None
    machine = Machine.from_inspect(vps, answer)
    if not machine.managed:
        return machine
    return replace(machine, keys=find_keys(engine, container), host_key=find_host_key(engine, container))


def described_machine(vps: str, machine: Machine, host: str | None) -> dict[str, Any]:
    """A VPS as modules report it. What is not known yet is null."""
    address = ipaddress.ip_address(machine.address)
    own = socket.gethostname() if address.is_unspecified else machine.address
    reached = machine.address if address.is_loopback else host or own
    key = machine.host_key
    known = known_hosts_line(reached, machine.port, *key) if key and machine.port else None
    return {
        "name": vps,
        "environment": machine.environment,
        "version": machine.version,
        "id": machine.id or None,
        "image": machine.settings.image,
        "state": machine.state,
        "created": iso_time(machine.created) if machine.created is not None else None,
        "host": reached,
        "port": machine.port,
        "address": machine.address,
        "user": "root",
        "host_key_fingerprint": fingerprint(key[1]) if key else None,
        "known_hosts": known,
    }


def _bring_image(engine: Engine, wish: Wish, context: Context) -> Outcome:
    if context.bring_image:
        return context.bring_image()
    image = engine.find_image(wish.reference) if wish.reference else None
    if image is None:
        raise HakuError(
            f"There is no image {wish.reference} on this machine",
            where=engine.url,
            remedy="Set shared_dir or source, so that it is loaded, or load it with haku_sync",
        )
    facts = {"image": wish.reference, "action": "none", "version": image.timestamp}
    return Outcome(changed=False, facts=facts)


def _confirm(engine: Engine, wish: Wish, decided: Plan) -> None:
    """Have a machine answer that was not started just now, which includes the proof."""
    proven = any(isinstance(step, (Create, Replace, Start, Restart)) for step in decided.steps)
    if wish.state == "present" and not proven:
        wish.ready(engine, wish.container)


def _forecast(seen: Seen, decided: Plan, wish: Wish) -> Machine | None:
    there = seen.machine
    if decided.state == "absent":
        return None
    new = next((step for step in decided.steps if isinstance(step, (Create, Replace))), None)
    if new is None:
        return replace(there, state=decided.state) if there else None
    machine = there or Machine("", "", wish.asked, True, "", None, "0.0.0.0", None, None)
    environment = wish.environment if decided.renews and wish.environment else machine.environment
    return replace(
        machine,
        id="",
        created=None,
        state=decided.state,
        environment=environment,
        version=seen.image_version if decided.renews else machine.version,
        settings=replace(machine.settings, image=wish.reference if decided.renews else machine.settings.image),
        address=new.ports.address or machine.address,
        port=new.ports.first if new.ports.is_one else None,
    )


def _snapshot_facts(decided: Plan, check_mode: bool) -> list[dict[str, Any]]:
    """The snapshots that then are; in check mode, when one is taken is not known before."""
    found = [each.as_facts() for each in decided.snapshots]
    if check_mode and decided.taken:
        found = [dict.fromkeys(each, None) if each["image"] == decided.taken.image else each for each in found]
    return found


def _leftover_warnings(seen: Seen, wish: Wish) -> tuple[str, ...]:
    if not seen.leftover or wish.state == "absent":
        return ()
    former = aside_name(wish.container)
    warning = (
        f"Container {former} is the former VPS {wish.vps}, left by a re-creation that was interrupted. "
        f"When nothing in it is missed, remove it: docker rm --force {former}. If it is the new one that does not do, "
        f"remove that: docker rm --force {wish.container}; the next run with state: present then brings the former back"
    )
    return (warning,)
