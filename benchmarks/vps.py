# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long it takes to have a machine to log in to, beside a container with an SSH server made by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import images
from tests.lab.engines import Engine, within_network
from tests.lab.host import run

from . import results
from .contenders import HAKU_RIVER
from .measure import Run, run_command, run_module, together
from .results import Case, Sample
from .steps import turns

BY_HAND = "docker run"

_NAME = "bench-vps"
_PORT = "22999"
_SERVER = """
mkdir -p /run/sshd /root/.ssh
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
echo "$PUBLIC_KEY" > /root/.ssh/authorized_keys
exec /usr/sbin/sshd -D
"""


@dataclass(frozen=True)
class Place:
    """An engine with an image that has an SSH server, and a pair of keys: the private one's file."""

    engine: Engine
    image: str
    key: Path

    @property
    def public_key(self) -> str:
        """What may log in."""
        return self.key.with_suffix(".pub").read_text().strip()

    def by_module(self) -> Run:
        """Have `haku_vps` make a machine, and log in."""
        made = run_module(
            "haku.river.haku_vps",
            within=within_network(self.engine.name),
            vps=_NAME,
            name=_NAME,
            docker_host=self.engine.url,
            network=_NAME,
            port=int(_PORT),
            authorized_keys=[self.public_key],
        )
        return together(made, self._log_in())

    def by_hand(self) -> Run:
        """Have `docker run` make a container that does the same, and log in."""
        options = ("--detach", "--init", "--name", f"haku-vps-{_NAME}", "--network", _NAME, "--publish", f"{_PORT}:22")
        command = ("sh", "-c", _SERVER)
        environment = f"PUBLIC_KEY={self.public_key}"
        made = run_command(
            "docker", "--host", self.engine.url, "run", *options, "--env", environment, self.image, *command
        )
        return together(made, self._log_in())

    def _log_in(self) -> Run:
        options = ("-F/dev/null", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes")
        ssh = ("ssh", *options, f"-i{self.key}", f"-p{_PORT}", "root@127.0.0.1", "true")
        return run_command(*within_network(self.engine.name), "sh", "-c", 'until "$@"; do sleep 0.02; done', "sh", *ssh)


def logins(engine: Engine, rounds: int) -> Iterator[Sample]:
    """Make a machine and run a command in it by SSH, time after time, by either way."""
    reference = f"hakuriver/{_NAME}:base"
    engine.docker("tag", images.provide(images.SSH, engine), reference)
    engine.docker("network", "create", "--driver", "bridge", _NAME)
    try:
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder, "key")
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
            place = Place(engine, reference, key)
            ways: list[tuple[str, Callable[[], Run]]] = [(HAKU_RIVER, place.by_module), (BY_HAND, place.by_hand)]
            for contender, make in turns(ways, rounds):
                done = make()
                engine.docker("rm", "--force", "--volumes", f"haku-vps-{_NAME}")
                case = Case(results.LOGIN, engine.name, results.NOTHING_SHARED, contender)
                yield Sample(case, done.seconds, done.process_seconds)
    finally:
        for machine in engine.docker("ps", "--all", "--quiet", "--filter", f"name=^haku-vps-{_NAME}$").split():
            engine.docker("rm", "--force", "--volumes", machine)
        engine.docker("network", "rm", _NAME)
        engine.docker("image", "rm", reference)
