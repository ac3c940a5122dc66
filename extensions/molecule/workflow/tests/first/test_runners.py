# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every Runner has the first version."""

from __future__ import annotations

testinfra_hosts = ["ansible://haku_runners"]


def test_the_content_is_the_first(content: str) -> None:
    assert content == "first"


def test_the_image_is_of_the_oldest_tarball(version: int, tarballs: list[str]) -> None:
    assert tarballs[0] == f"molecule-workflow-{version}.tar"
