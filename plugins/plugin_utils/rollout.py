# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the Runners said in a roll-out: what they had, and how each step went on them.

The playbooks `prepare` and `distribute` register under these names; a step is a loop over environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.haku.river.plugins.plugin_utils.look import failure, look_problem

_REACHED = "haku_river_reached"
_UNPREPARED = "haku_river_unprepared"
_LOOK = "haku_river_look"
_LOOK_HERE = "haku_river_look_here"
_LOADED = "haku_river_loaded"
_TESTED = "haku_river_tested"
_PUT_BACK = "haku_river_put_back"
_TIDIED = "haku_river_forgotten", "haku_river_tidied"


@dataclass(frozen=True)
class Held:
    """What a Runner had of an environment, and what is published as it sees it; versions are newest first.

    A current image that `is_nameless` is no version, as it has no time of creation: it cannot be kept beside another.
    """

    version: int | None = None
    former: tuple[int, ...] = ()
    published: tuple[int, ...] = ()
    is_nameless: bool = False

    @property
    def obtainable(self) -> set[int]:
        """The versions that the Runner can be brought to."""
        return {*self.former, *self.published} | ({self.version} if self.version is not None else set())


@dataclass(frozen=True)
class Step:
    """How a step went for an environment. `passed` is what a smoke test said of the image, if it could be run."""

    changed: bool
    failed: bool
    words: str
    passed: bool | None


@dataclass(frozen=True)
class Runner:
    """A Runner of the roll-out.

    `problem` is why nothing can be brought to it, but for images that it has. `held` is by environment, None where it
    did not even tell what it has. The steps that were tried on it are by environment, too.
    """

    name: str
    problem: str | None
    held: Mapping[str, Held] | None
    described: Mapping[str, Any] = field(default_factory=dict)
    loaded: Mapping[str, Step] = field(default_factory=dict)
    tested: Mapping[str, Step] = field(default_factory=dict)
    put_back: Mapping[str, Step] = field(default_factory=dict)
    tidied: tuple[tuple[str, Step], ...] = ()

    def has(self, environment: str) -> Held:
        """What it had of an environment before."""
        return (self.held or {}).get(environment, Held())

    def found_bad(self, environment: str) -> bool:
        """Whether the version failed its smoke test here."""
        return environment in self.tested and self.tested[environment].passed is False

    def is_untested(self, environment: str) -> bool:
        """Whether the version was loaded, but its smoke test could not be run."""
        step = self.tested.get(environment)
        return step is not None and step.failed and step.passed is None

    def failed_by_itself(self, environment: str) -> bool:
        """Whether something failed that says nothing about the version."""
        loaded = self.loaded.get(environment)
        return self.is_untested(environment) or (loaded is not None and loaded.failed)

    def words_of(self, environment: str) -> str:
        """What was said of what failed for an environment."""
        steps = (self.loaded.get(environment), self.tested.get(environment))
        return " ".join(step.words for step in steps if step and step.failed)


def untried(causes: Mapping[str, str]) -> str:
    """Why a version goes no further that no canary could try, by why each of them could not."""
    told = " ".join(f"On {name}: {words}" for name, words in causes.items())
    return f"None of the canaries could try it. {told}"


def read_runners(
    hostvars: Mapping[str, Mapping[str, Any]], names: Iterable[str], host: str | None = None
) -> tuple[Runner, ...]:
    """Read what plays registered on machines of these names, and whether their directory is that of the `host`."""
    hosts_look = hostvars[host].get(_LOOK) or {} if host else {}
    return tuple(_runner(str(name), hostvars[name], hosts_look) for name in names)


def _runner(name: str, variables: Mapping[str, Any], hosts_look: Mapping[str, Any]) -> Runner:
    look = variables.get(_LOOK) or {}
    is_told = "environments" in look
    described = (look if is_told else variables.get(_LOOK_HERE)) or {}
    held = described.get("environments")
    problem = look_problem(look, hosts_look) or (None if is_told else _lost_before(variables))
    return Runner(
        name,
        problem,
        None if held is None else {str(key): _held(value, problem is None) for key, value in held.items()},
        described,
        dict(_steps(variables.get(_LOADED))),
        dict(_steps(variables.get(_TESTED))),
        dict(_steps(variables.get(_PUT_BACK))),
        tuple(step for registered in _TIDIED for step in _steps(variables.get(registered))),
    )


def _lost_before(variables: Mapping[str, Any]) -> str:
    """Why a Runner was not even looked at."""
    reached = variables.get(_REACHED) or {}
    causes = (variables.get(_UNPREPARED) or {}, reached if reached.get("unreachable") else {})
    told = next(filter(None, map(failure, causes)), "")
    return f"It could not be prepared. {told}" if told else "It was not looked at, as it had failed before."


def _held(described: Mapping[str, Any], can_load: bool) -> Held:
    published = tuple(described["published_versions"] or ()) if can_load else ()
    is_nameless = described["version"] is None and described.get("image_id") is not None
    return Held(described["version"], tuple(described["former_versions"]), published, is_nameless)


def _steps(registered: Mapping[str, Any] | None) -> Iterable[tuple[str, Step]]:
    """The steps of a loop that was registered, but not those that were skipped."""
    for result in (registered or {}).get("results") or ():
        if not result.get("skipped"):
            failed = bool(result.get("failed") or result.get("unreachable"))
            words = failure(result) if failed else ""
            step = Step(bool(result.get("changed")), failed, words, result.get("passed"))
            yield str(result["item"]["name"]), step
