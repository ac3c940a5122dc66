# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The env container: what there is, what is to be done to it, and doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.container_steps import (
    Create,
    Pull,
    PutBack,
    Remove,
    Replace,
    Step,
    Update,
    aside_name,
    steps_of_life,
)
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import HakuError
from ansible_collections.haku.river.plugins.module_utils.names import LABEL_ENVIRONMENT, LABEL_MANAGED, is_env_container
from ansible_collections.haku.river.plugins.module_utils.outcome import Outcome
from ansible_collections.haku.river.plugins.module_utils.running import ALIVE, keeps_running
from ansible_collections.haku.river.plugins.module_utils.settings import Difference, Settings, differences, in_place
from ansible_collections.haku.river.plugins.module_utils.timestamps import iso_time, unix_timestamp


@dataclass(frozen=True)
class Desired:
    """What the user wants. `state` and `pull` are the module's choices; what `asked` leaves None is not compared."""

    name: str
    asked: Settings = field(default_factory=Settings)
    state: str = "started"
    pull: str = "missing"
    recreate: bool = False
    adopt: bool = False
    stop_timeout_seconds: int = 10


@dataclass(frozen=True)
class Container:
    """A container that has the name of an environment. `state` is the engine's word, such as `running` or `exited`."""

    id: str
    state: str
    settings: Settings
    managed: bool
    removes_itself: bool = False
    image_id: str = ""
    created: int | None = None

    @classmethod
    def from_inspect(cls, name: str, answer: Mapping[str, Any]) -> Container:
        """Read the answer of the engine's `GET /containers/{id}/json`; `name` is the environment's."""
        return cls(
            id=answer["Id"],
            state=answer["State"]["Status"],
            settings=Settings.from_inspect(answer),
            managed=is_env_container(name, answer["Config"].get("Labels") or {}),
            removes_itself=bool(answer["HostConfig"].get("AutoRemove")),
            image_id=answer["Image"],
            created=unix_timestamp(answer.get("Created")),
        )


@dataclass(frozen=True)
class Seen:
    """What there is before anything is done; `has_image` is about the image that a new container would have.

    A re-creation that was killed leaves the former container under its name aside: alone, so that it is the
    `container` here and its name has to be given back (`aside`), or beside the new one (`leftover`).
    """

    container: Container | None
    has_image: bool
    aside: bool = False
    leftover: bool = False


@dataclass(frozen=True)
class Plan:
    """The steps, what they change, and the state that the container then has (`absent` without one)."""

    steps: tuple[Step, ...]
    differences: tuple[Difference, ...]
    state: str
    renews: bool = False


def manage_container(engine: Engine, desired: Desired, check_mode: bool) -> Outcome:
    """Bring the env container to what is desired."""
    desired = replace(desired, asked=_with_network_found(engine, desired.asked))
    if desired.state != "absent":
        engine.check_offers(f"Container {desired.name} cannot be as asked", *desired.asked.special_needs)
    seen = observe(engine, desired)
    decided = plan(seen, desired)
    if not check_mode:
        apply(engine, decided)
    container = _forecast(seen, decided, desired) if check_mode else observe(engine, desired).container
    return Outcome(
        changed=bool(decided.steps),
        facts={
            "name": desired.name,
            "container": _facts(desired.name, container),
            "actions": [step.words for step in decided.steps],
        },
        before={each.option: each.there for each in decided.differences if each.there is not None},
        after={each.option: each.asked for each in decided.differences},
        warnings=(*engine.warnings, *_leftover_warnings(seen, desired)),
    )


def observe(engine: Engine, desired: Desired) -> Seen:
    """Ask the engine for all that a plan depends on."""
    named, former = (find_container(engine, name, desired.name) for name in (desired.name, aside_name(desired.name)))
    # Nobody's container that merely has our name for the former one is ours.
    former = former if former and former.managed else None
    container = named or former
    image = desired.asked.image or (container.settings.image if container else None)
    return Seen(
        container=container,
        has_image=bool(image and engine.find_image(image)),
        aside=named is None and former is not None,
        leftover=named is not None and former is not None,
    )


def plan(seen: Seen, desired: Desired) -> Plan:
    """Decide what to do; raises `HakuError` when that needs a permission or an option that is not given."""
    container = seen.container
    if container is not None:
        check_may_touch(container, desired.name, desired.adopt)
    if desired.state == "absent":
        return _removal(seen, desired)
    if container is None:
        return _creation(seen, desired)
    decided = _convergence(container, seen, desired)
    put_back: tuple[Step, ...] = (PutBack(desired.name),) if seen.aside else ()
    return replace(decided, steps=put_back + decided.steps)


def apply(engine: Engine, decided: Plan) -> None:
    """Run the steps of a plan."""
    for step in decided.steps:
        step.run(engine)


# Planning


def check_may_touch(container: Container, name: str, adopt: bool) -> None:
    """Raise `HakuError` unless the container is the environment's own, or the user says that it may be taken for it."""
    if not container.managed and not adopt:
        raise HakuError(
            f"Container {name} is not managed by haku.river "
            f"(it has no labels {LABEL_MANAGED}=true and {LABEL_ENVIRONMENT}={name})",
            remedy="Set adopt: true if it really is the environment, or choose another name",
        )


def _removal(seen: Seen, desired: Desired) -> Plan:
    steps: list[Step] = []
    changes: list[Difference] = []
    if seen.container:
        name = aside_name(desired.name) if seen.aside else desired.name
        steps.append(Remove(name, seen.container.state, desired.stop_timeout_seconds))
        changes.append(Difference("state", "absent", seen.container.state))
    if seen.leftover:
        steps.append(Remove(aside_name(desired.name), "exited", desired.stop_timeout_seconds))
    return Plan(tuple(steps), tuple(changes), "absent")


def _creation(seen: Seen, desired: Desired) -> Plan:
    if not desired.asked.image:
        raise HakuError(
            f"There is no container {desired.name}, and no image to create it from",
            remedy="Set image, for example to python:3.9-slim",
        )
    settings = desired.asked.completed()
    runs = desired.state in ("started", "restarted")
    state = "running" if runs else "created"
    said = [Difference(option, value, None) for option, value in settings.as_options().items() if value]
    return Plan(
        steps=(*_pulling(seen, desired, desired.asked.image), Create(desired.name, settings, runs)),
        differences=(Difference("state", state, "absent"), *said),
        state=state,
        renews=True,
    )


def _convergence(container: Container, seen: Seen, desired: Desired) -> Plan:
    found = _unlabelled(container, desired) + differences(desired.asked, container.settings)
    needs_new = tuple(each for each in found if not each.in_place)
    if needs_new and not desired.recreate:
        raise _needs_permission(needs_new, container, desired)
    _check_can_act(container, desired, stops=bool(needs_new) or desired.state in ("stopped", "restarted"))
    if needs_new:
        return _replacement(container, seen, desired)
    update = (Update(desired.name, in_place(desired.asked, found)),) if found else ()
    life, state = steps_of_life(desired.name, container.state, desired.state, desired.stop_timeout_seconds)
    return Plan((*update, *life), (*found, *_state_change(container.state, state)), state)


def _unlabelled(container: Container, desired: Desired) -> tuple[Difference, ...]:
    """An adopted container can get its labels only as a new one; without `recreate` it stays adopted each time."""
    if container.managed or not desired.recreate:
        return ()
    return (Difference("managed", asked=True, there=False),)


def _needs_permission(needs_new: tuple[Difference, ...], container: Container, desired: Desired) -> HakuError:
    others = differences(desired.asked.completed(), container.settings)
    reset = [each.option for each in others if each.option not in {each.option for each in needs_new}]
    lost = f", and the settings that are not asked for ({', '.join(reset)}) return to their defaults" if reset else ""
    return HakuError(
        f"Container {desired.name} is not as asked",
        cause="; ".join(map(str, needs_new)),
        remedy=f"Only a new container can be. Set recreate: true if the changes made inside it may be lost{lost}; "
        "haku_tar packages them first",
    )


def _check_can_act(container: Container, desired: Desired, stops: bool) -> None:
    if container.state in ("dead", "removing"):
        raise HakuError(
            f"Container {desired.name} is {container.state}: the engine began to remove it and did not finish",
            remedy="Remove it with state: absent, then create it again",
        )
    if container.removes_itself and stops and container.state in ALIVE:
        raise HakuError(
            f"Container {desired.name} would be lost when it stops, as it was started with --rm",
            remedy="Package it with haku_tar and consistency: pause, remove it, and create it with haku_container",
        )


def _replacement(container: Container, seen: Seen, desired: Desired) -> Plan:
    image = desired.asked.image or container.settings.image or ""
    settings = replace(desired.asked, image=image).completed()
    runs = desired.state in ("started", "restarted") or (desired.state == "present" and container.state in ALIVE)
    step = Replace(desired.name, settings, runs, container.state, desired.stop_timeout_seconds)
    state = "running" if runs else "created"
    found = _unlabelled(container, desired) + differences(settings, container.settings)
    return Plan(
        steps=(*_pulling(seen, desired, image), step),
        differences=(*found, *_state_change(container.state, state)),
        state=state,
        renews=True,
    )


def _pulling(seen: Seen, desired: Desired, image: str) -> tuple[Step, ...]:
    if desired.pull == "never" and not seen.has_image:
        raise HakuError(
            f"The engine has no image {image}, and pull is never",
            remedy="Load or pull it on this machine, or set pull: missing",
        )
    return (Pull(image),) if desired.pull == "always" or not seen.has_image else ()


def _state_change(there: str, asked: str) -> tuple[Difference, ...]:
    return (Difference("state", asked, there),) if asked != there else ()


# Seeing and telling


def find_container(engine: Engine, container_name: str, environment: str) -> Container | None:
    """The container of exactly that name, or None; `managed` says whether it is the environment's."""
    answer = engine.find_container(container_name)
    # What looks like the beginning of some container's ID finds that one too.
    if answer is None or answer["Name"].lstrip("/") != container_name:
        return None
    container = Container.from_inspect(environment, answer)
    # One that keeps failing runs for moments; an engine that never started it again says that it is not such a one.
    if container.state == "running" and answer.get("RestartCount") and not keeps_running(engine, container_name):
        return replace(container, state="restarting")
    return container


def _with_network_found(engine: Engine, asked: Settings) -> Settings:
    """The engine keeps `container:<name>` as `container:<id>`."""
    kind, colon, other = (asked.network or "").partition(":")
    if kind != "container" or not colon:
        return asked
    answer = engine.find_container(other)
    if answer is None:
        raise HakuError(f"There is no container {other}, whose network is asked for", where=engine.url)
    return replace(asked, network=f"container:{answer['Id']}")


def _forecast(seen: Seen, decided: Plan, desired: Desired) -> Container | None:
    if decided.state == "absent":
        return None
    if seen.container is None or decided.renews:
        image = desired.asked.image or (seen.container.settings.image if seen.container else None)
        return Container("", decided.state, Settings(image=image), managed=True)
    return replace(seen.container, state=decided.state)


def _facts(name: str, container: Container | None) -> dict[str, Any] | None:
    if container is None:
        return None
    return {
        "id": container.id or None,
        "name": name,
        "image": container.settings.image,
        "state": container.state,
        "created": iso_time(container.created) if container.created is not None else None,
        "managed": container.managed,
    }


def _leftover_warnings(seen: Seen, desired: Desired) -> tuple[str, ...]:
    if not seen.leftover or desired.state == "absent":
        return ()
    former = aside_name(desired.name)
    warning = (
        f"Container {former} is the former {desired.name}, left by a re-creation or a packaging that was interrupted. "
        f"When nothing in it is missed, remove it: docker rm --force {former}"
    )
    return (warning,)
