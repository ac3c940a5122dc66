# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a roll-out is to do: which version of each environment, on which Runners, in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ansible_collections.haku.river.plugins.plugin_utils.human import utc
from ansible_collections.haku.river.plugins.plugin_utils.rollout import Held, Runner, untried

# After the first Runners it is about how long it takes, so most of them go at once.
_REST = ("10%", "100%")
_ALL = ("100%",)
_SIZE = re.compile(r"[1-9][0-9]*|([1-9][0-9]?|100)%")


class Refusal(ValueError):
    """The roll-out has no meaning; the sentence is for the person at the terminal."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    `tested` are the environments with a smoke test. `version` is the one to have of the only environment, None for the
    newest one, or when going `back`, for the one before. `batches` are values of Ansible's `serial`, None if nobody
    chose. A `forecast` leaves out what is not published yet.
    """

    environments: tuple[str, ...]
    tested: frozenset[str] = frozenset()
    version: int | None = None
    back: bool = False
    canaries: tuple[str, ...] = ()
    batches: tuple[int | str, ...] | None = None
    max_fail_percentage: int = 100
    keep_images: int = 0
    forecast: bool = False


@dataclass(frozen=True)
class Kept:
    """A version's tag beside the current image of the environment `name`; `own` is one that this roll-out makes."""

    name: str
    version: int
    own: bool


@dataclass(frozen=True)
class Plan:
    """What is to be done: `wanted` are versions by environment, `todo` environments by Runner, in `order`.

    `proving` are the canaries that are to try an environment with a smoke test before others get it, and `stopped` why
    one goes nowhere as none of them can. `surplus` are tags that are not to stay in the end, and `traces` those that
    are not to stay where it is put back, both by Runner. `left` are the environments of which a Runner has an image
    that could not be put back. `halted` is why nothing is to be done after all.
    """

    wanted: dict[str, int] = field(default_factory=dict)
    todo: dict[str, list[str]] = field(default_factory=dict)
    proving: dict[str, list[str]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    batches: tuple[int | str, ...] = _ALL
    surplus: dict[str, list[Kept]] = field(default_factory=dict)
    traces: dict[str, list[Kept]] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    halted: str | None = None


def plan_rollout(runners: Sequence[Runner], wish: Wish, host: Runner | None = None) -> Plan:
    """Fix the versions once for all Runners, and put those that lack them in order; raises `Refusal`.

    What is published is what the `host` lists, if it could be asked, and otherwise what any Runner does.
    A Runner on which something is wrong can still go back to an image that it has.
    """
    _check(wish)
    if wish.version is not None and len(wish.environments) != 1:
        raise Refusal("haku_version is the version of one environment. Name it, and no other: -e haku_only=NAME.")
    fit = [runner for runner in runners if runner.problem is None]
    kept = [runner for runner in runners if runner.problem is not None and runner.held] if wish.back else []
    versions = {name: _wanted(name, wish, fit, kept, host) for name in wish.environments}
    wanted = {name: version for name, version in versions.items() if version is not None}
    left = {runner.name: names for runner in fit if (names := _left(runner, wanted, wish))}
    all_due = {runner.name: _due(runner, wanted, wish) for runner in fit}
    todo = {
        name: due for name, names in all_due.items() if (due := [it for it in names if it not in left.get(name, ())])
    }
    todo |= {runner.name: due for runner in kept if (due := _due_of_kept(runner, wanted))}
    halted = _too_many_unfit(runners, fit, wish)
    if halted:
        return Plan(wanted, halted=halted)
    proving, stopped = _canaries(runners, wanted, todo, wish)
    going = {name: [environment for environment in due if environment not in stopped] for name, due in todo.items()}
    todo = {name: due for name, due in going.items() if due}
    first = [name for name in wish.canaries if name in todo]
    order = (*first, *(name for name in todo if name not in first))
    served = [runner for runner in runners if runner.problem is None or runner.name in todo]
    surplus = {runner.name: found for runner in served if (found := list(_surplus(runner, wanted, wish)))}
    traces = {runner.name: list(_traces(runner, wanted, todo[runner.name])) for runner in served if runner.name in todo}
    return Plan(wanted, todo, proving, stopped, order, _batches(len(first), todo, wish), surplus, traces, left)


def _check(wish: Wish) -> None:
    if wish.keep_images < 0:
        raise Refusal(f"haku_keep_images is {wish.keep_images}, which is not a number of images. Keep 0 or more.")
    if not 0 <= wish.max_fail_percentage <= 100:
        raise Refusal(f"haku_max_fail_percentage is {wish.max_fail_percentage}, and has to be from 0 to 100.")
    wrong = [size for size in wish.batches or () if not _SIZE.fullmatch(str(size))]
    if wrong:
        what = f"haku_batches has {', '.join(map(repr, wrong))}, which is not how many Runners go at a time."
        raise Refusal(f"{what} Name numbers from 1 on, or shares of the Runners from 1% to 100%.")


def _wanted(
    environment: str, wish: Wish, fit: Sequence[Runner], kept: Sequence[Runner], host: Runner | None
) -> int | None:
    """The version to have; None if there is none to be had.

    Runners that have nothing but the images that they `kept` follow the others, unless all are like that.
    """
    held = [runner.has(environment) for runner in fit] or [
        it for runner in kept if (it := runner.has(environment)).obtainable
    ]
    # A listing that one machine has kept may be older, and its directory another one.
    listed = [host.has(environment)] if host else held
    if wish.version is not None:
        if held and not any(wish.version in it.obtainable for it in (*held, *listed)):
            what = f"Version {wish.version} of {environment} is neither published nor kept on any Runner."
            raise Refusal(f"{what} {_there_is(held)}")
        return wish.version
    if wish.back:
        return _one_before(environment, held) if held else None
    return max((version for it in listed for version in it.published[:1]), default=None)


def _one_before(environment: str, held: Sequence[Held]) -> int:
    """The newest version that all Runners can have, and that is older than the newest that any of them has."""
    now = max((it.version for it in held if it.version is not None), default=None)
    if now is None:
        raise Refusal(f"No Runner has an image of {environment}, so there is nothing to go back from.")
    for_all = set.intersection(*(it.obtainable for it in held))
    older = [version for version in for_all if version < now]
    if not older:
        what = f"There is no version of {environment} before {_shown(now)} that all Runners can have."
        raise Refusal(f"{what} {_there_is(held)} Choose one with -e haku_version=TIMESTAMP.")
    return max(older)


def _there_is(held: Iterable[Held]) -> str:
    versions = sorted({version for it in held for version in it.obtainable}, reverse=True)
    return f"There is {', '.join(map(_shown, versions)) or 'none at all'}."


def _shown(version: int) -> str:
    return f"{version} ({utc(version, seconds=True)})"


def _due(runner: Runner, wanted: dict[str, int], wish: Wish) -> list[str]:
    """The environments that the Runner does not have as wanted."""

    def is_due(environment: str) -> bool:
        version = runner.has(environment).version
        if environment in wanted:
            return version != wanted[environment]
        # There is nothing to be had, as the synchronisation will say better.
        return version is None and not wish.forecast

    return [environment for environment in wish.environments if is_due(environment)]


def _left(runner: Runner, wanted: dict[str, int], wish: Wish) -> list[str]:
    """The environments whose image a load would cost the Runner, although it might have to be put back."""
    if wish.back:
        return []
    at_risk = wanted.keys() & (wish.tested if wish.max_fail_percentage == 100 else {*wish.environments})
    return [
        environment
        for environment in wish.environments
        if environment in at_risk and runner.has(environment).is_nameless
    ]


def _due_of_kept(runner: Runner, wanted: dict[str, int]) -> list[str]:
    """The environments of which the Runner has the version that is wanted as a former image."""
    return [environment for environment, version in wanted.items() if version in runner.has(environment).former]


def _canaries(
    runners: Sequence[Runner], wanted: dict[str, int], todo: dict[str, list[str]], wish: Wish
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Who is to try which environment first, and why one cannot be tried. One that a canary has already was tried."""
    named = [runner for runner in runners if runner.name in wish.canaries]
    proving, stopped = {}, {}
    for environment in sorted({name for due in todo.values() for name in due} & wish.tested & wanted.keys()):
        able = [runner for runner in named if runner.problem is None]
        if any(runner.has(environment).version == wanted[environment] for runner in able):
            continue
        if able:
            proving[environment] = [runner.name for runner in able]
        elif named:
            stopped[environment] = untried({runner.name: str(runner.problem) for runner in named})
    return proving, stopped


def _too_many_unfit(runners: Sequence[Runner], fit: Sequence[Runner], wish: Wish) -> str | None:
    """Why the roll-out is not even begun."""
    unfit = len(runners) - len(fit)
    if unfit * 100 <= wish.max_fail_percentage * len(runners):
        return None
    return (
        f"The roll-out was not begun: {unfit} of {len(runners)} Runners could not be looked at, "
        f"and haku_max_fail_percentage is {wish.max_fail_percentage}."
    )


def _batches(canaries: int, todo: dict[str, list[str]], wish: Wish) -> tuple[int | str, ...]:
    """The sizes of the batches. Where nothing is tested, a batch has nothing to tell the next one."""
    tested = any(name in wish.tested for due in todo.values() for name in due)
    if canaries:
        return (canaries, *(wish.batches or _REST))
    return wish.batches or ((1, *_REST) if tested else _ALL)


def _traces(runner: Runner, wanted: dict[str, int], due: Iterable[str]) -> Iterable[Kept]:
    """What is left of a version that came and went: its image, and the tag by which the former one waited."""
    for environment in due:
        held = runner.has(environment)
        for version in (wanted.get(environment), held.version):
            if version is not None and version not in held.former:
                yield Kept(environment, version, own=True)


def _surplus(runner: Runner, wanted: dict[str, int], wish: Wish) -> Iterable[Kept]:
    """The former versions that are too many once the Runner has what is wanted."""
    for environment in wish.environments:
        held = runner.has(environment)
        now = wanted.get(environment, held.version)
        own = {held.version} if held.version is not None and held.version != now else set()
        # A newer one than any that is published is a packager's, at work here.
        newest = max([*held.published[:1], *own], default=None)
        former = {it for it in held.former if newest is None or it <= newest}
        newest_first = sorted((it for it in former | own if it != now), reverse=True)
        for version in newest_first[wish.keep_images :]:
            yield Kept(environment, version, version in own)
