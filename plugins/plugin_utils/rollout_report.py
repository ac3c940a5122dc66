# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a roll-out went: whether a batch lets it go on, and in the end, what happened on which Runner and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.haku.river.plugins.plugin_utils.human import utc
from ansible_collections.haku.river.plugins.plugin_utils.rollout import Runner, untried

_LEFT = (
    "It was left as it is, as its image has no time of creation and so could not be put back. "
    "Remove that one with haku_sync, state: absent."
)


@dataclass(frozen=True)
class Course:
    """A roll-out as it went: `wanted` versions by environment, and why it was `stopped`, by environment.

    `left` are the environments that were not touched on a Runner, by Runner, as their image could not be put back.
    """

    wanted: Mapping[str, int]
    stopped: Mapping[str, str]
    left: Mapping[str, Sequence[str]] = field(default_factory=dict)
    forecast: bool = False


@dataclass(frozen=True)
class Account:
    """What happened on a Runner (`notes`), what went wrong there (`problems`), and the versions that it has now."""

    notes: tuple[str, ...]
    problems: tuple[str, ...]
    versions: Mapping[str, int | None]


def judge_batch(
    batch: Sequence[Runner], max_fail_percentage: int, canaries: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The environments whose roll-out ends with this batch, and why.

    A version that fails its smoke test is bad, wherever that happens. Whatever else fails is a Runner's own affair,
    unless too many have one, or all of the `canaries` that are to try the environment.
    """
    reasons = {}
    for environment in sorted({name for runner in batch for name in runner.loaded}):
        failed = [runner for runner in batch if runner.failed_by_itself(environment)]
        trying = [runner for runner in batch if runner.name in canaries.get(environment, ())]
        bad = [runner for runner in batch if runner.found_bad(environment)]
        if bad:
            others = f" (and on {', '.join(runner.name for runner in bad[1:])})" if bad[1:] else ""
            reasons[environment] = f"On {bad[0].name}{others}: {bad[0].tested[environment].words}"
        elif trying and all(runner in failed for runner in trying):
            reasons[environment] = untried({runner.name: runner.words_of(environment) for runner in trying})
        elif len(failed) * 100 > max_fail_percentage * len(batch):
            reasons[environment] = (
                f"{len(failed)} of a batch of {len(batch)} Runners failed, "
                f"and haku_max_fail_percentage is {max_fail_percentage}."
            )
    return reasons


def account(runner: Runner, environments: Sequence[str], course: Course) -> Account:
    """Tell what happened on a Runner."""
    general = [] if runner.problem is None else [runner.problem]
    if runner.held is None:
        return Account((), tuple(general), {})
    told = [_Told(runner, environment, course) for environment in environments]
    left = [f"{environment}: {_LEFT}" for environment in course.left.get(runner.name, ())]
    tidying = [f"{name}: {step.words}" for name, step in runner.tidied if step.failed]
    return Account(
        tuple(note for it in told for note in it.notes()),
        (*general, *(problem for it in told for problem in it.problems()), *left, *tidying),
        {it.environment: it.version for it in told},
    )


class _Told:
    """What happened to one environment on one Runner."""

    def __init__(self, runner: Runner, environment: str, course: Course) -> None:
        self.environment = environment
        self._was = runner.has(environment).version
        self._loaded = runner.loaded.get(environment)
        self._tested = runner.tested.get(environment)
        self._is_stopped = environment in course.stopped
        is_back = self._is_stopped or runner.is_untested(environment)
        self._back = runner.put_back.get(environment) if is_back else None
        self._wanted = course.wanted.get(environment)
        self._forecast = course.forecast

    @property
    def _came(self) -> bool:
        return self._loaded is not None and self._loaded.changed and not self._loaded.failed

    @property
    def version(self) -> int | None:
        """The version that it has now, as far as one can tell."""
        returned = self._back is not None and not self._back.failed
        return self._wanted if self._came and not returned and not self._forecast else self._was

    def notes(self) -> Iterator[str]:
        if not self._came:
            return
        was = _shown(self._was) if self._was is not None else "no image"
        if self._forecast:
            yield f"{self.environment}: {was} would become {_shown(self._wanted)}"
        elif self._back is None:
            tested = ", smoke test passed" if self._tested and not self._tested.failed else ""
            yield f"{self.environment}: {was} became {_shown(self._wanted)}{tested}"
        elif not self._back.failed:
            yield f"{self.environment}: {_shown(self._wanted)} was put back to {was}"

    def problems(self) -> Iterator[str]:
        for step in (self._loaded, self._tested):
            if step and step.failed:
                yield f"{self.environment}: {step.words}"
        if self._back and self._back.failed:
            yield f"{self.environment}: It could not be put back. {self._back.words}"
        elif self._is_stopped and self._loaded is None and self._was is not None and self._was == self._wanted:
            yield (
                f"{self.environment}: It had {_shown(self._was)} before, and keeps it. "
                f"haku.river.rollback goes back on all Runners."
            )


def _shown(version: int | None) -> str:
    return "a version" if version is None else utc(version, seconds=True)
