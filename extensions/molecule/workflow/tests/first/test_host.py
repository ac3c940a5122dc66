# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Host has the environment as a running, labelled container, and its packaged image."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://haku_host"]


def test_the_container_runs_and_is_labelled(host: Host) -> None:
    labels = "--filter label=haku.river.managed=true --filter label=haku.river.env=molecule-workflow"
    assert host.check_output(f"docker ps {labels} --format '{{{{.Names}}}}'") == "molecule-workflow"


def test_the_image_of_the_last_package_has_a_name(host: Host) -> None:
    names = host.check_output("docker image ls hakuriver/molecule-workflow --format '{{.Tag}}'")
    assert names.startswith("host-")
