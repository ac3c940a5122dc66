# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab at the command line: `python -m tests.lab up|down|purge|status|run|provide`."""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from . import engines, images, machines, registry, session
from .host import LabError

_PARTS: dict[str, Callable[[], object]] = {
    "main": engines.start_main,
    "engines": engines.start,
    "podman": functools.partial(engines.start, engines.PODMAN),
    "registry": registry.start,
    **{name: functools.partial(machines.start, fleet) for name, fleet in machines.FLEETS.items()},
}
_USUAL_PARTS = [name for name in _PARTS if name != machines.MOLECULE.name]


def main() -> int:
    """Do what the command line asks and return the exit code."""
    arguments = _parser().parse_args()
    if os.geteuid() != 0:
        print("error: the lab starts engines in namespaces of their own, which only root can", file=sys.stderr)
        return 1
    try:
        if arguments.action == "run":
            with session.session():
                return subprocess.run(arguments.command, check=False).returncode
        if arguments.action == "provide":
            _provide(images.NAMED[arguments.image], arguments.machine)
            return 0
        if arguments.action == "up":
            _up(arguments.parts)
        elif arguments.action == "down":
            _down(arguments.fleets)
        elif arguments.action == "purge":
            session.purge()
        _report()
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Real engines, machines and a registry for the tests."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="start what does not run already")
    parts = f"of {', '.join(_PARTS)}; default: all but {machines.MOLECULE.name}"
    up.add_argument("parts", nargs="*", type=_part, default=_USUAL_PARTS, metavar="part", help=parts)
    down = actions.add_parser("down", help="stop everything, or some machines; keep what took long to make")
    fleets = f"of {', '.join(machines.FLEETS)}"
    down.add_argument("fleets", nargs="*", type=_fleet, metavar="machines", help=fleets)
    run = actions.add_parser("run", help="run a command, for which the lab stays; end as a session of tests does")
    run.add_argument("command", nargs=argparse.REMAINDER)
    provide = actions.add_parser("provide", help="put a base image on a machine's engine")
    provide.add_argument("image", choices=images.NAMED)
    provide.add_argument("machine")
    actions.add_parser("purge", help="stop everything and delete it")
    actions.add_parser("status", help="show what runs")
    return parser


def _part(name: str) -> str:
    if name not in _PARTS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(_PARTS)}")
    return name


def _fleet(name: str) -> machines.Fleet:
    if name not in machines.FLEETS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(machines.FLEETS)}")
    return machines.FLEETS[name]


def _up(parts: Iterable[str]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: _PARTS[part](), parts))


def _down(fleets: Iterable[machines.Fleet]) -> None:
    """Stop these machines, or without any named, everything."""
    if not fleets:
        session.down()
    for fleet in fleets:
        machines.stop(fleet)


def _provide(image: images.Image, name: str) -> None:
    running: dict[str, machines.Machine] = {}
    for fleet in machines.FLEETS.values():
        running |= machines.running(fleet)
    if name not in running:
        raise LabError(f"no machine {name} runs, only {', '.join(running) or 'none'}")
    print(images.provide(image, running[name]))


def _report() -> None:
    host_engine = engines.main()
    for engine in [*([host_engine] if host_engine else []), *engines.running().values()]:
        print(f"{engine.name:<15} {engine.url}  {engine.version} {engine.store}")
    running_registry = registry.running()
    if running_registry:
        print(f"{'registry':<15} {running_registry.address}")
    for fleet in machines.FLEETS.values():
        running = machines.running(fleet).values()
        for machine in running:
            print(f"{machine.name:<15} {machine.address}  container {machine.container}")
        if running:
            print(f"{'':<15} ansible -i {fleet.inventory} all -m ping")


if __name__ == "__main__":
    sys.exit(main())
