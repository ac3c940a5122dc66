# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What synchronising would load, tag, keep and remove follows from what there is, and from nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.haku.river.plugins.module_utils.archive import ArchivedImage, Layer
from ansible_collections.haku.river.plugins.module_utils.catalogue import Catalogue, Version
from ansible_collections.haku.river.plugins.module_utils.compression import Compression
from ansible_collections.haku.river.plugins.module_utils.delta import Base, find_base, missing_layers, shared_chain
from ansible_collections.haku.river.plugins.module_utils.engine import Engine
from ansible_collections.haku.river.plugins.module_utils.errors import EngineError, HakuError
from ansible_collections.haku.river.plugins.module_utils.image import Identity, Image, ListedImage
from ansible_collections.haku.river.plugins.module_utils.stock import UNFINISHED, Stock
from ansible_collections.haku.river.plugins.module_utils.sync import plan_removal
from ansible_collections.haku.river.plugins.module_utils.sync_change import Plan, plan_sync
from ansible_collections.haku.river.plugins.module_utils.sync_view import (
    Synchronising,
    choose,
    machine_lock,
    see,
    take_stock,
)

TAG = "hakuriver/env:base"
WISH = Synchronising("env", TAG)
MEGABYTE = 1_000_000


def versions(*timestamps: int) -> tuple[Version, ...]:
    return tuple(Version("env", timestamp, Path(f"/shared/env-{timestamp}.tar")) for timestamp in timestamps)


def archived(*layers: str, size_bytes: int = MEGABYTE) -> ArchivedImage:
    """An image of the tarball with these layers."""
    found = tuple(Layer(layer, layer, 0, size_bytes, Compression.NONE) for layer in layers)
    return ArchivedImage(b"{}", found, Identity(layers, {"Cmd": ["sh"]}), 900)


def local(image_id: str, *layers: str, timestamp: int | None = 800, tags: tuple[str, ...] = (TAG,)) -> Image:
    """An image that the machine has."""
    return Image(image_id, Identity(layers, {"Cmd": ["sh"]}), timestamp, tags, 1)


WANTED = archived("a", "b", "c")
FORMER = local("former", "a", "b")
BASE = Base(FORMER, 2)
ASIDE = f"hakuriver/env:{UNFINISHED}former"


def keeping(images: int) -> Synchronising:
    return Synchronising("env", TAG, keep_images=images)


@pytest.mark.parametrize(("pinned", "chosen"), [(None, 900), (800, 800), (700, None)])
def test_the_newest_version_is_chosen_unless_one_is_pinned(pinned: int | None, chosen: int | None) -> None:
    version = choose(Synchronising("env", TAG, version=pinned), versions(900, 800))
    assert (version.timestamp if version else None) == chosen


def test_no_version_is_chosen_where_there_is_none() -> None:
    assert choose(WISH, ()) is None


@pytest.mark.parametrize(
    ("there", "length"), [("", 0), ("a", 1), ("ab", 2), ("abc", 3), ("abcd", 3), ("b", 0), ("ac", 1), ("xbc", 0)]
)
def test_layers_are_shared_from_the_base_up_only(there: str, length: int) -> None:
    assert shared_chain("abc", there) == length


def test_only_the_layers_above_the_base_are_loaded() -> None:
    assert plan_sync(WISH, Stock(FORMER), WANTED, BASE).load == WANTED.layers[2:]
    assert plan_sync(WISH, Stock(), WANTED, Base()).load == WANTED.layers


def test_each_missing_layer_is_loaded_once_and_also_one_that_stands_below() -> None:
    wanted = archived("a", "b", "a", "c", "c")
    assert [layer.diff_id for layer in missing_layers(wanted, Base(FORMER, 2))] == ["a", "c"]


def test_an_image_that_is_there_under_any_name_is_tagged_and_not_loaded() -> None:
    same = local("same", "a", "b", "c", tags=("other:1",))
    plan = plan_sync(WISH, Stock(FORMER), WANTED, Base(same, 3))
    assert plan == Plan(tag="same", keep_as=ASIDE, remove=(ASIDE,))


def test_an_image_with_another_configuration_is_loaded_without_a_layer() -> None:
    other = Image("other", Identity(("a", "b", "c"), {"Cmd": ["bash"]}), 800, (TAG,), 1)
    plan = plan_sync(WISH, Stock(other), WANTED, Base(other, 3))
    assert (plan.tag, plan.load) == (None, ())
    assert plan.action == "load"


def test_the_former_image_goes_unless_something_uses_it() -> None:
    assert plan_sync(WISH, Stock(FORMER), WANTED, BASE).remove == (ASIDE,)
    shared = local("former", "a", "b", tags=(TAG, "mine:1"))
    assert plan_sync(WISH, Stock(shared), WANTED, BASE).remove == ()


def test_a_former_image_in_use_gets_its_versions_tag_and_goes_when_it_is_used_no_longer() -> None:
    used = Stock(FORMER, used=frozenset({"former"}))
    plan = plan_sync(WISH, used, WANTED, BASE)
    assert (plan.keep_as, plan.remove, plan.former) == ("hakuriver/env:800", (), (800,))
    current = local("current", timestamp=900)
    later = plan_sync(WISH, Stock(current, {800: "former"}), archived("z"), Base())
    assert set(later.remove) == {"hakuriver/env:800", f"hakuriver/env:{UNFINISHED}current"}


@pytest.mark.parametrize(
    ("keep", "kept"), [(0, ()), (1, (800,)), (2, (800, 700)), (3, (800, 700, 600)), (9, (800, 700, 600))]
)
def test_as_many_former_images_are_kept_as_asked_for(keep: int, kept: tuple[int, ...]) -> None:
    stock = Stock(FORMER, {700: "seven", 600: "six"})
    plan = plan_sync(keeping(keep), stock, WANTED, BASE)
    assert plan.former == kept
    assert plan.keep_as == ("hakuriver/env:800" if keep else ASIDE)
    gone = [f"hakuriver/env:{it}" for it in (700, 600) if it not in kept]
    assert list(plan.remove) == [*gone, *([] if keep else [ASIDE])]


def test_a_version_that_a_container_uses_is_never_removed() -> None:
    stock = Stock(FORMER, {700: "seven", 600: "six"}, used=frozenset({"six"}))
    plan = plan_sync(WISH, stock, WANTED, BASE)
    assert (plan.former, plan.remove) == ((600,), ("hakuriver/env:700", ASIDE))


def test_going_back_keeps_the_newer_one_and_tags_nothing_twice() -> None:
    back = local("seven", timestamp=700, tags=("hakuriver/env:700",))
    plan = plan_sync(keeping(1), Stock(FORMER, {700: "seven"}), None, Base(back, 0))
    assert plan == Plan(tag="seven", keep_as="hakuriver/env:800", former=(800,))
    tagged = local("former", tags=(TAG, "hakuriver/env:800"))
    assert plan_sync(keeping(1), Stock(tagged, {800: "former"}), WANTED, BASE).keep_as is None


def test_a_former_image_without_a_time_cannot_be_kept_and_is_not_left_without_a_name() -> None:
    timeless = local("former", timestamp=None)
    assert plan_sync(keeping(3), Stock(timeless), WANTED, BASE).remove == (ASIDE,)
    assert plan_sync(keeping(3), Stock(timeless, used=frozenset({"former"})), WANTED, BASE) == Plan(
        load=WANTED.layers[2:]
    )


def test_the_image_of_a_version_that_is_not_published_yet_belongs_to_its_packager() -> None:
    stock = Stock(FORMER, {950: "packaged", 700: "seven"}, published=900)
    assert plan_sync(WISH, stock, WANTED, BASE).remove == ("hakuriver/env:700", ASIDE)


def test_what_a_killed_synchronisation_left_is_removed() -> None:
    stale = Stock(stale=("hakuriver/env:sync-1",))
    assert plan_sync(WISH, stale, WANTED, Base()).remove == ("hakuriver/env:sync-1",)
    assert plan_removal(WISH, stale) == ("hakuriver/env:sync-1",)


def test_removal_takes_the_former_versions_along_unless_containers_use_them() -> None:
    stock = Stock(FORMER, {700: "seven", 600: "six"}, used=frozenset({"six"}))
    assert plan_removal(WISH, stock) == (TAG, "hakuriver/env:700")


def test_removal_leaves_as_many_former_versions_as_asked() -> None:
    stock = Stock(FORMER, {700: "seven", 600: "six"})
    assert plan_removal(keeping(1), stock) == (TAG, "hakuriver/env:600")
    assert plan_removal(keeping(2), stock) == (TAG,)


def test_removal_of_a_version_takes_the_image_that_was_kept_of_it_and_nothing_else() -> None:
    stock = Stock(FORMER, {700: "seven", 600: "six"}, used=frozenset({"six"}), stale=("hakuriver/env:sync-1",))
    for version, removed in ((700, ("hakuriver/env:700",)), (600, ()), (800, ()), (1, ())):
        assert plan_removal(Synchronising("env", TAG, version=version), stock) == removed


def test_a_wish_without_a_meaning_is_refused() -> None:
    with pytest.raises(HakuError, match="not a number of images"):
        keeping(-1)
    with pytest.raises(HakuError, match="would be taken for a former version"):
        Synchronising("env", "hakuriver/env:123")


class Images(Engine):
    """An engine's images by ID, and how many were inspected: to count is what a real engine can't be asked for."""

    def __init__(self, *images: Image) -> None:
        self.there = {image.id: image for image in images}
        self.inspected: list[str] = []

    def images(self, repository: str | None = None, besides: str = "") -> tuple[ListedImage, ...]:
        assert (repository, besides) == (None, "")
        return tuple(ListedImage(image.id, image.tags) for image in self.there.values())

    def find_image(self, reference: str) -> Image | None:
        self.inspected.append(reference)
        return self.there.get(reference)


def test_the_longest_chain_of_any_image_is_found() -> None:
    engine = Images(local("1", "a"), local("2", "a", "b", "x"), local("3", "x"))
    wanted = archived("a", "b", "c", size_bytes=20 * MEGABYTE)
    assert find_base(engine, wanted, None, ["1", "gone", "1"]) == Base(engine.there["2"], 2)
    assert engine.inspected == ["1", "gone", "2", "3"]


def test_an_image_that_is_going_is_no_base() -> None:
    class Going(Images):
        def find_image(self, reference: str) -> Image | None:
            if reference == "1":
                raise EngineError("Cannot inspect image 1", cause="layer does not exist")
            return super().find_image(reference)

    engine = Going(local("1", "a", "b"), local("2", "a"))
    wanted = archived("a", "b", "c", size_bytes=20 * MEGABYTE)
    assert find_base(engine, wanted, None, ["1"]) == Base(engine.there["2"], 1)


def test_the_current_image_is_not_inspected_again() -> None:
    engine = Images(local("2", "a"))
    assert find_base(engine, WANTED, FORMER, ["former", "2"]) == Base(FORMER, 2)
    assert engine.inspected == ["2"]


def test_the_search_ends_at_the_very_image() -> None:
    engine = Images(local("1", "a", "b", "c"), local("2", "a", "b", "c"))
    assert find_base(engine, WANTED, None, ["1", "2"]) == Base(engine.there["1"], 3)
    assert engine.inspected == ["1"]


def test_the_search_ends_where_it_takes_longer_than_the_load() -> None:
    images = [local(str(number), "a") for number in range(100)]
    engine = Images(*images)
    assert find_base(engine, WANTED, FORMER, engine.there).length == 2
    assert engine.inspected == []
    assert find_base(engine, archived("a", "b", "c", size_bytes=20 * MEGABYTE), FORMER, engine.there).length == 2
    assert len(engine.inspected) == 100


def test_without_any_base_of_its_own_all_images_are_seen() -> None:
    engine = Images(local("1", "a", "b"))
    assert find_base(engine, WANTED, None, []).length == 2


def test_a_thorough_search_sees_all_images_whatever_that_takes() -> None:
    images = [*(local(str(number), "x") for number in range(100)), local("last", "a", "b")]
    engine = Images(*images)
    assert find_base(engine, archived("a", "b", "c", size_bytes=1), None, [], thorough=True).length == 2


class Silent(Catalogue):
    """A directory on a file server that does not answer."""

    def versions(self, environment: str) -> tuple[Version, ...]:
        raise AssertionError(f"{environment} was listed")


@pytest.mark.parametrize("reference", [TAG, "hakuriver/env:700"], ids=["current", "kept"])
def test_a_pinned_version_that_is_here_waits_for_no_file_server(reference: str) -> None:
    there = local(reference, timestamp=700)
    seen = see(Images(there), Silent("/shared", "tarballs"), Synchronising("env", TAG, version=700))
    assert (seen.here, seen.wanted) == (there, 700)


class Outdated(Catalogue):
    """A directory as an NFS client remembers it, from before its first tarball."""

    def versions(self, environment: str) -> tuple[Version, ...]:
        return super().versions(environment)[:0]


def test_a_pinned_version_that_a_listing_does_not_show_yet_is_looked_for_by_its_path(tmp_path: Path) -> None:
    catalogue = Outdated(str(tmp_path), ".")
    wish = Synchronising("env", TAG, version=900)
    assert see(Images(), catalogue, wish).target is None
    (tmp_path / "env-900.tar").touch()
    target = see(Images(), catalogue, wish).target
    assert target is not None
    assert target.path == tmp_path / "env-900.tar"


def engine_with(*tags: str) -> Engine:
    """An engine with an image for each of these tags: two users of one machine are what a test alone is not."""
    client = SimpleNamespace(
        timeout=1,
        info=lambda: {"ID": "engine"},
        images=lambda **_options: [{"Id": tag, "RepoTags": [f"hakuriver/env:{tag}"]} for tag in tags],
        containers=lambda **_options: [],
    )
    return Engine(client, "unix:///engine.sock", lambda: engine_with(*tags))


def test_what_another_user_loads_is_not_taken_for_what_a_killed_synchronisation_left() -> None:
    own, other = (f"sync-{os.geteuid() + user}-900" for user in (0, 1))
    assert take_stock(engine_with("base", own, other, "800"), WISH, None, ()).stale == (f"hakuriver/env:{own}",)


def test_one_synchronisation_of_an_environment_at_a_time_whatever_its_tag_is() -> None:
    engine = engine_with()
    dev = Synchronising("env", "hakuriver/env:dev", lock_timeout_seconds=0)
    other = Synchronising("other", "hakuriver/other:base", lock_timeout_seconds=0)
    with machine_lock(engine, WISH):
        with machine_lock(engine, other):
            pass
        with pytest.raises(HakuError, match="Synchronising env is under way already"), machine_lock(engine, dev):
            pass


def test_what_goes_is_removed_by_tag_and_never_by_id_which_takes_a_tag_given_meanwhile_along() -> None:
    plan = plan_sync(WISH, Stock(FORMER, {700: "seven"}), WANTED, BASE)
    assert plan.keep_as in plan.remove
    assert all(reference.startswith("hakuriver/env:") for reference in plan.remove)
