# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VPS under test: its name, the engine that it is on, and the way to it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.integration.modules import Result, run_module, succeed
from tests.lab.engines import Engine
from tests.lab.host import run


@dataclass(frozen=True)
class Place:
    """The name of a VPS that there is not yet, and an environment that the engine has an image of.

    `within` is a command that starts another one where the engine publishes its ports; `key` is a private key.
    """

    engine: Engine
    vps: str
    environment: str
    key: Path
    within: tuple[str, ...] = ()
    network: str | None = None

    @property
    def container(self) -> str:
        """The name of its container."""
        return f"haku-vps-{self.vps}"

    @property
    def image(self) -> str:
        """The environment's image."""
        return f"hakuriver/{self.environment}:base"

    @property
    def public_key(self) -> str:
        """What may log in."""
        return self.key.with_suffix(".pub").read_text()

    @property
    def bare_options(self) -> dict[str, Any]:
        """What every run of the module takes."""
        return {"vps": self.vps, "docker_host": self.engine.url, "within": self.within, "host": "127.0.0.1"}

    @property
    def options(self) -> dict[str, Any]:
        """What the module takes to have the VPS present."""
        network = {"network": self.network} if self.network else {}
        return {**self.bare_options, "name": self.environment, "authorized_keys": [self.public_key], **network}

    def named(self, vps: str) -> Place:
        """Another VPS of the same environment."""
        return replace(self, vps=vps)

    def have(self, **options: Any) -> Result:
        """Have the VPS present."""
        return succeed("haku_vps", **{**self.options, **options})

    def fail(self, **options: Any) -> str:
        """Ask for what must fail with a sentence, and return the sentence."""
        result = run_module("haku_vps", **{**self.options, **options})
        assert result.get("failed"), f"This should have failed: {result}"
        sentence: str = result["msg"]
        assert "Traceback" not in json.dumps(result), result
        return sentence

    def ssh(self, machine: Result, command: str, *options: str, key: Path | None = None) -> str:
        """Log in with the key, to a server that has to be the known one, and run a command there."""
        return run(*self._ssh(machine, *options, f"-i{key or self.key}"), command)

    def refuses(self, machine: Result, *options: str) -> str:
        """Try to log in, which must fail; returns what the client said."""
        done = subprocess.run([*self._ssh(machine, *options), "true"], capture_output=True, text=True, check=False)
        assert done.returncode == 255, done
        return done.stderr

    def _ssh(self, machine: Result, *options: str) -> tuple[str, ...]:
        known_hosts = self.key.with_name(f"known_hosts.{machine['name']}")
        known_hosts.write_text(machine["known_hosts"] + "\n")
        usual = (
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={known_hosts}",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
        )
        given = [f"-o{option}" for option in usual]
        place = (f"-p{machine['port']}", f"{machine['user']}@{machine['host']}")
        return (*self.within, "ssh", "-F/dev/null", *given, *options, *place)

    def inspect(self) -> dict[str, Any]:
        """Inspect its container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", self.container))[0]
        return found

    @property
    def containers(self) -> list[str]:
        """All containers whose names begin with that of the VPS."""
        found = self.engine.docker("ps", "--all", "--filter", f"name=^{self.container}", "--format", "{{.Names}}")
        return sorted(found.split())

    @property
    def images(self) -> list[str]:
        """All images of the environment."""
        listed = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"hakuriver/{self.environment}")
        # Podman lists all names of an image that has that one.
        found = self.engine.docker(*listed).split()
        return sorted(name for name in found if name.startswith(f"hakuriver/{self.environment}:"))

    def clean(self) -> None:
        """Remove what a test has made, of all machines whose names begin so."""
        if self.containers:
            self.engine.docker("rm", "--force", "--volumes", *self.containers)
        for image in self.images:
            self.engine.docker("image", "rm", image)
        if self.network:
            self.engine.docker("network", "rm", self.network)


def make_key(folder: Path, name: str = "id") -> Path:
    """Make a pair of keys; returns the private one's file."""
    key = folder / name
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test", "-f", key)
    return key
