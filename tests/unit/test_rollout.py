# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a roll-out does next, and what it tells, follows from what the Runners said, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.haku.river.plugins.filter.look_problem import FilterModule as LookProblem
from ansible_collections.haku.river.plugins.filter.rollout_plan import rollout_plan
from ansible_collections.haku.river.plugins.filter.rollout_report import rollout_report
from ansible_collections.haku.river.plugins.filter.rollout_verdict import rollout_verdict

Variables = dict[str, Any]
DAY = 86400
NEW = 1767225600
OLD = NEW - DAY
OLDER = OLD - DAY


def look(version: int | None, *former: int, published: tuple[int, ...] = (NEW, OLD)) -> Variables:
    """What a Runner registers that was looked at."""
    env = {"version": version, "former_versions": list(former), "published_versions": list(published)}
    return {"haku_river_look": {"environments": {"env": env}, "disk": None, "engine": None}}


DOWN: Variables = {"haku_river_look": {"unreachable": True, "msg": "No route to host"}}


def step(**result: Any) -> Variables:
    """What a loop over the one environment registers."""
    return {"results": [{"item": {"name": "env"}, **result}]}


def plan(fleet: dict[str, Variables], **wish: Any) -> dict[str, Any]:
    return rollout_plan(fleet, list(fleet), **{"environments": ["env"], "tested": ["env"], **wish})


def report(fleet: dict[str, Variables], **course: Any) -> dict[str, Any]:
    asked = {"environments": ["env"], "wanted": {"env": NEW}, "shared_dir": "/shared", **course}
    return rollout_report(fleet, list(fleet), **asked)


def test_the_newest_version_goes_to_those_that_lack_it() -> None:
    planned = plan({"a": look(OLD), "b": look(NEW), "c": look(None), "d": DOWN})
    assert planned["wanted"] == {"env": NEW}
    assert planned["todo"] == {"a": ["env"], "c": ["env"]}
    assert planned["order"] == ("a", "c")


def test_what_is_published_is_what_the_host_lists_if_it_answers() -> None:
    fleet = {"a": look(OLD, published=(OLD,)), "b": look(OLD, published=(NEW + DAY,)), "host": look(None)}
    assert rollout_plan(fleet, ["a", "b"], environments=["env"], host="host")["wanted"] == {"env": NEW}
    assert rollout_plan(fleet, ["a"], environments=["env"], host="host", version=NEW)["refusal"] is None
    down = {**fleet, "host": DOWN}
    assert rollout_plan(down, ["a", "b"], environments=["env"], host="host")["wanted"] == {"env": NEW + DAY}


def marked(variables: Variables, identity: str | None) -> Variables:
    """The same where the directory of tarballs has this mark."""
    directory = {"location": "/shared/tarballs", "id": identity}
    return {**variables, "haku_river_look": {**variables["haku_river_look"], "directory": directory}}


def test_a_runner_with_another_directory_than_the_hosts_gets_nothing_and_is_named() -> None:
    fleet = {
        "a": marked(look(OLD), "ours"),
        "b": marked(look(OLD, published=(NEW + DAY,)), "theirs"),
        "c": marked(look(OLD), None),
        "host": marked(look(None), "ours"),
    }
    asked: dict[str, Any] = {"environments": ["env"]}
    assert rollout_plan(fleet, ["a", "b", "c"], host="host", **asked)["todo"] == {"a": ["env"]}
    said = rollout_report(fleet, ["a", "b", "c"], hosts=["host"], wanted={}, shared_dir="/shared", **asked)
    assert [it["timestamp"] for it in said["fleet"]["environments"]["env"]["versions"]] == [NEW, OLD]
    assert said["problems"] == {
        "b": "/shared/tarballs is not the directory that the Host has: its marker .haku-river says theirs, "
        "and the Host's says ours. Mount the same directory on both.",
        "c": "/shared/tarballs is not the directory that the Host has: its marker .haku-river is missing, "
        "and the Host's says ours. Mount the same directory on both.",
    }
    unmarked = {**fleet, "host": marked(look(None), None)}
    assert set(rollout_plan(unmarked, ["a", "b", "c"], host="host", **asked)["todo"]) == {"a", "b", "c"}


def test_one_view_of_what_is_published_holds_for_all() -> None:
    """A listing that a machine has kept may be older than another's."""
    planned = plan({"a": look(OLD, published=(OLD,)), "b": look(OLD)})
    assert planned["wanted"] == {"env": NEW}
    assert planned["todo"] == {"a": ["env"], "b": ["env"]}


@pytest.mark.parametrize(
    ("wish", "order", "batches"),
    [
        ({}, ("a", "b", "c"), (1, "10%", "100%")),
        ({"canaries": ["c", "nobody"]}, ("c", "a", "b"), (1, "10%", "100%")),
        ({"canaries": ["c", "b"]}, ("c", "b", "a"), (2, "10%", "100%")),
        ({"canaries": ["c"], "batches": [2]}, ("c", "a", "b"), (1, 2)),
        ({"batches": ["50%"]}, ("a", "b", "c"), ("50%",)),
        ({"tested": []}, ("a", "b", "c"), ("100%",)),
        ({"tested": ["another"]}, ("a", "b", "c"), ("100%",)),
        ({"back": True, "canaries": ["c"], "batches": [2]}, ("a", "b", "c"), ("100%",)),
    ],
    ids=["default", "canary", "canaries", "both", "batches", "no test", "no test of these", "back"],
)
def test_canaries_go_first_and_the_rest_in_batches(
    wish: dict[str, Any], order: tuple[str, ...], batches: tuple[Any, ...]
) -> None:
    planned = plan({name: look(OLD, OLDER) for name in "abc"}, **wish)
    assert (planned["order"], planned["batches"]) == (order, batches)


def test_what_is_not_published_is_tried_so_that_the_synchronisation_says_why_and_left_out_of_a_check() -> None:
    fleet = {"a": look(None, published=()), "b": look(OLD, published=())}
    assert plan(fleet)["todo"] == {"a": ["env"]}
    assert plan(fleet, forecast=True)["todo"] == {}
    assert plan(fleet)["wanted"] == {}


def test_too_many_runners_out_of_order_halt_it_before_anything_is_done() -> None:
    fleet = {"a": look(OLD), "b": DOWN}
    assert plan(fleet, max_fail_percentage=50)["halted"] is None
    halted = plan(fleet, max_fail_percentage="49")
    assert "1 of 2 Runners" in halted["halted"]
    assert (halted["todo"], halted["order"], halted["surplus"]) == ({}, (), {})


def test_going_back_takes_the_newest_that_all_can_have_before_what_is_there() -> None:
    assert plan({"a": look(NEW), "b": look(NEW)}, back=True)["wanted"] == {"env": OLD}
    kept = {"a": look(NEW, OLD, OLDER, published=(NEW,)), "b": look(NEW, OLDER, published=(NEW,))}
    assert plan(kept, back=True)["wanted"] == {"env": OLDER}
    behind = {"a": look(NEW), "b": look(OLD), "c": DOWN}
    assert plan(behind, back=True)["todo"] == {"a": ["env"]}


def apart(version: int | None, *former: int) -> Variables:
    """What a Runner without the shared directory registers."""
    problem = {"failed": True, "msg": "There is no directory /shared"}
    return {"haku_river_look": problem, "haku_river_look_here": look(version, *former, published=())["haku_river_look"]}


def test_going_back_to_images_that_were_kept_needs_no_shared_directory() -> None:
    alone = plan({"a": apart(NEW, OLD, OLDER), "b": apart(NEW, OLD), "c": apart(None), "d": DOWN}, back=True)
    assert (alone["wanted"], alone["todo"]) == ({"env": OLD}, {"a": ["env"], "b": ["env"]})
    assert plan({"a": apart(NEW, OLD)}, back=True, version=OLD)["order"] == ("a",)
    assert "Version 1 of env" in plan({"a": apart(NEW, OLD)}, back=True, version=1)["refusal"]


def test_those_that_can_load_decide_where_to_go_back_to_and_others_follow_if_they_kept_it() -> None:
    fleet = {"a": look(NEW), "b": apart(NEW, OLD), "c": apart(NEW, OLDER)}
    planned = plan(fleet, back=True)
    assert (planned["wanted"], planned["todo"]) == ({"env": OLD}, {"a": ["env"], "b": ["env"]})
    assert plan(fleet)["todo"] == {}


def test_who_went_back_without_the_shared_directory_is_told_with_what_is_wrong() -> None:
    back = {**apart(NEW, OLD), "haku_river_loaded": step(changed=True)}
    assert told({"a": back}, wanted={"env": OLD})["a"] == (
        "env: 2026-01-01 00:00:00 became 2025-12-31 00:00:00",
        "There is no directory /shared.",
        OLD,
    )


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"batches": [1, "abc"]}, "haku_batches has 'abc', which is not how many Runners go at a time"),
        ({"batches": [0]}, "haku_batches has 0"),
        ({"batches": [-1]}, "haku_batches has -1"),
        ({"batches": ["0%", "101%", True]}, "haku_batches has '0%', '101%', True"),
        ({"keep_images": -1}, "haku_keep_images is -1, which is not a number of images"),
        ({"max_fail_percentage": 101}, "haku_max_fail_percentage is 101"),
        ({"max_fail_percentage": "-1"}, "haku_max_fail_percentage is -1"),
    ],
)
def test_a_value_without_a_meaning_is_refused(wish: dict[str, Any], sentence: str) -> None:
    assert plan({"a": look(OLD)}, **wish)["refusal"].startswith(sentence)
    assert plan({"a": look(OLD)}, batches=["1", " 10%", "100%"])["batches"] == ("1", "10%", "100%")


def test_a_version_that_nobody_can_have_is_refused_with_those_there_are() -> None:
    fleet = {"a": look(NEW, OLDER), "b": look(NEW)}
    refusal = plan(fleet, back=True, version="1")["refusal"]
    assert "Version 1 of env is neither published nor kept" in refusal
    assert f"{NEW} (2026-01-01 00:00:00), {OLD} (2025-12-31 00:00:00), {OLDER} (2025-12-30 00:00:00)" in refusal
    assert plan(fleet, back=True, version=OLDER)["refusal"] is None
    alone = plan({"a": look(OLD, published=(NEW, OLD))}, back=True)["refusal"]
    assert "no version of env before" in alone
    assert "nothing to go back from" in plan({"a": look(None)}, back=True)["refusal"]
    assert "haku_only" in plan(fleet, environments=["env", "other"], version=NEW)["refusal"]


@pytest.mark.parametrize(
    ("held", "keep", "surplus"),
    [
        (look(OLD), 0, [(OLD, True)]),
        (look(OLD), 1, []),
        (look(OLD, OLDER), 1, [(OLDER, False)]),
        (look(NEW), 0, []),
        (look(NEW, OLD, OLDER), 1, [(OLDER, False)]),
        (look(None, OLDER), 0, [(OLDER, False)]),
        (look(OLD, NEW), 0, [(OLD, True)]),
        (look(OLD, NEW + DAY), 0, [(OLD, True)]),
    ],
    ids=["former", "kept", "older", "nothing new", "fewer", "no image", "was here", "a packager's"],
)
def test_in_the_end_as_many_former_images_stay_as_asked(
    held: Variables, keep: int, surplus: list[tuple[int, bool]]
) -> None:
    planned = plan({"a": held}, keep_images=keep)["surplus"].get("a", [])
    assert [(it["version"], it["own"]) for it in planned] == surplus


@pytest.mark.parametrize(
    ("held", "traces"),
    [(look(OLD), [NEW, OLD]), (look(None), [NEW]), (look(OLD, NEW), [OLD]), (look(NEW), [])],
    ids=["former", "first", "was here", "nothing new"],
)
def test_where_it_is_put_back_nothing_stays_that_was_not_there(held: Variables, traces: list[int]) -> None:
    assert [it["version"] for it in plan({"a": held})["traces"].get("a", [])] == traces


def test_an_image_that_could_not_be_put_back_stays_where_it_may_have_to_be_and_is_named() -> None:
    nameless = look(None)
    nameless["haku_river_look"]["environments"]["env"]["image_id"] = "sha256:0"
    fleet = {"a": nameless, "b": look(OLD)}
    planned = plan(fleet)
    assert (planned["left"], planned["todo"]) == ({"a": ["env"]}, {"b": ["env"]})
    assert "could not be put back" in report(fleet, left=planned["left"])["problems"]["a"]
    assert plan(fleet, tested=[], max_fail_percentage=50)["left"] == {"a": ["env"]}
    assert plan(fleet, tested=[])["todo"] == {"a": ["env"], "b": ["env"]}


BAD = step(failed=True, passed=False, msg="The smoke test of env failed")
UNTESTED = step(failed=True, msg="No space left on device")
LOADED = step(changed=True, version=NEW)


def went(loaded: Variables, tested: Variables | None = None, **more: Variables) -> Variables:
    """A Runner that had an older version, and how the steps went on it."""
    registered = {"haku_river_loaded": loaded, "haku_river_tested": tested or {"results": []}}
    return {**look(OLD), **registered, **{f"haku_river_{name}": value for name, value in more.items()}}


def test_one_failed_smoke_test_stops_the_rollout() -> None:
    verdict = rollout_verdict({"a": went(LOADED, step()), "b": went(LOADED, BAD)}, ["a", "b"])
    assert verdict == {"stopped": {"env": "On b: The smoke test of env failed."}, "failed": {}}


@pytest.mark.parametrize("failing", [step(unreachable=True, msg="Lost"), UNTESTED], ids=["lost", "full"])
def test_a_version_that_no_canary_could_try_goes_no_further(failing: Variables) -> None:
    batch = {"a": went(failing), "b": went(LOADED, UNTESTED)}
    reason = rollout_verdict(batch, ["a", "b"], canaries={"env": ["a", "b"]})["stopped"]["env"]
    assert reason.startswith("None of the canaries could try it. On a: ")
    assert reason.endswith("On b: No space left on device.")
    batch["c"] = went(LOADED, step())
    assert rollout_verdict(batch, ["a", "b", "c"], canaries={"env": ["a", "b", "c"]})["stopped"] == {}
    assert rollout_verdict(batch, ["a", "b"])["stopped"] == {}


def test_canaries_are_to_try_what_has_a_smoke_test_unless_one_of_them_has_it_already() -> None:
    fleet = {"a": look(OLD), "b": look(OLD), "c": DOWN}
    assert plan(fleet, canaries=["b", "c"])["proving"] == {"env": ["b"]}
    assert plan(fleet, canaries=["b"], tested=[])["proving"] == {}
    assert plan({**fleet, "d": look(NEW)}, canaries=["b", "d"])["proving"] == {}
    none = plan(fleet, canaries=["c"])
    assert none["stopped"] == {"env": "None of the canaries could try it. On c: No route to host."}
    assert (none["todo"], none["order"]) == ({}, ())
    elsewhere = plan(fleet, canaries=["not-in-this-run"])
    assert (elsewhere["stopped"], elsewhere["order"]) == ({}, ("a", "b"))


@pytest.mark.parametrize("failing", [went(step(unreachable=True, msg="Lost")), went(LOADED, UNTESTED)])
def test_what_fails_by_itself_stops_it_only_if_it_is_too_much(failing: Variables) -> None:
    batch = {"a": went(LOADED, step()), "b": failing}
    assert rollout_verdict(batch, ["a", "b"]) == {"stopped": {}, "failed": {"b": ["env"]}}
    assert rollout_verdict(batch, ["a", "b"], 50)["stopped"] == {}
    assert "1 of a batch of 2" in rollout_verdict(batch, ["a", "b"], "49")["stopped"]["env"]


def test_a_batch_that_had_nothing_to_do_is_good() -> None:
    assert rollout_verdict({"a": went({"results": [], "skipped": True})}, ["a"]) == {"stopped": {}, "failed": {}}


def told(fleet: dict[str, Variables], **course: Any) -> dict[str, tuple[str | None, str | None, int | None]]:
    """Of each machine of a report: its note, its problem, its version."""
    machines = report(fleet, **course)["fleet"]["machines"]
    return {
        name: (it["note"], it["problem"], (it["environments"] or {}).get("env", {}).get("version"))
        for name, it in machines.items()
    }


def test_the_report_says_what_happened_and_what_is_there_now() -> None:
    fleet = {"a": went(LOADED, step()), "b": look(NEW), "c": DOWN, "d": went(UNTESTED)}
    assert told(fleet) == {
        "a": ("env: 2025-12-31 00:00:00 became 2026-01-01 00:00:00, smoke test passed", None, NEW),
        "b": (None, None, NEW),
        "c": (None, "No route to host.", None),
        "d": (None, "env: No space left on device.", OLD),
    }
    assert set(report(fleet)["problems"]) == {"c", "d"}


def test_the_report_says_what_a_runner_without_the_shared_directory_has() -> None:
    assert told({"a": apart(OLD)})["a"] == (None, "There is no directory /shared.", OLD)
    assert plan({"a": apart(OLD)})["order"] == ()


def test_a_runner_that_prepare_has_lost_is_told_with_the_cause() -> None:
    items = [{"failed": False}, {"failed": True, "msg": "/shared is not mounted"}]
    fleet = {
        "a": {"haku_river_unprepared": {"failed": True, "msg": "One or more items failed", "results": items}},
        "b": {"haku_river_reached": {"unreachable": True, "msg": "No route to host"}},
        "c": {"haku_river_reached": {"rc": 0, "msg": "fine"}},
    }
    assert [problem for _note, problem, _version in told(fleet).values()] == [
        "It could not be prepared. /shared is not mounted.",
        "It could not be prepared. No route to host.",
        "It was not looked at, as it had failed before.",
    ]


SILENT = (
    "It had not answered after 5 seconds. Look whether the machine does, and the file server of its shared directory."
)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ({"environments": {}}, ""),
        ({"msg": "Failed to connect to the host via ssh: ssh: No route to host"}, "ssh: No route to host."),
        ({"msg": "Task failed: Module failed: No engine\n  answers."}, "No engine answers."),
        ({"msg": "Timed out after 5 second(s).", "timedout": {"period": 5}}, SILENT),
    ],
    ids=["nothing", "connection", "module", "time"],
)
def test_a_cause_is_told_without_what_ansible_puts_before_it(result: Variables, sentence: str) -> None:
    assert LookProblem().filters()["look_problem"](result) == sentence
    if sentence:
        assert told({"a": {"haku_river_look": {**result, "failed": True}}})["a"][1] == sentence


def test_the_report_says_what_was_put_back_and_why() -> None:
    back = step(changed=True)
    fleet = {"a": went(LOADED, step(), put_back=back), "b": went(LOADED, BAD, put_back=back), "c": look(OLD)}
    stopped = {"env": "On b: The smoke test of env failed."}
    was_put_back = "env: 2026-01-01 00:00:00 was put back to 2025-12-31 00:00:00"
    assert told(fleet, stopped=stopped) == {
        "a": (was_put_back, None, OLD),
        "b": (was_put_back, "env: The smoke test of env failed.", OLD),
        "c": (None, None, OLD),
    }
    (ending,) = report(fleet, stopped=stopped)["endings"]
    assert "The roll-out of env 2026-01-01 00:00:00 was stopped" in ending
    assert "On b: The smoke test of env failed." in ending


def test_who_could_not_be_put_back_or_had_the_bad_version_before_is_told() -> None:
    fleet = {"a": went(LOADED, BAD, put_back=step(unreachable=True, msg="Lost")), "b": look(NEW)}
    machines = told(fleet, stopped={"env": "On a: bad."})
    assert machines["a"][1:] == ("env: The smoke test of env failed. env: It could not be put back. Lost.", NEW)
    assert "It had 2026-01-01 00:00:00 before, and keeps it" in str(machines["b"][1])


def test_who_could_not_test_goes_back_alone() -> None:
    fleet = {"a": went(LOADED, UNTESTED, put_back=step(changed=True)), "b": went(LOADED, step())}
    machines = told(fleet)
    assert machines["a"] == (
        "env: 2026-01-01 00:00:00 was put back to 2025-12-31 00:00:00",
        "env: No space left on device.",
        OLD,
    )
    assert machines["b"][2] == NEW


def test_a_check_tells_what_would_be() -> None:
    assert told({"a": went(LOADED)}, forecast=True)["a"] == (
        "env: 2025-12-31 00:00:00 would become 2026-01-01 00:00:00",
        None,
        OLD,
    )
