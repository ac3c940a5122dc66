# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every Runner has the second version, and the first one can be gone back to."""

from __future__ import annotations

testinfra_hosts = ["ansible://haku_runners"]


def test_the_content_is_the_second(content: str) -> None:
    assert content == "second"


def test_the_image_is_of_the_newest_of_two_tarballs(version: int, tarballs: list[str]) -> None:
    assert len(tarballs) == 2
    assert tarballs[1] == f"molecule-workflow-{version}.tar"
