# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab at the command line: `python -m tests.lab up|down|purge|status`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from . import engines, machines, registry, session
from .host import LabError

_PARTS: dict[str, Callable[[], object]] = {
    "main": engines.start_main,
    "engines": engines.start,
    "registry": registry.start,
    **{name: functools.partial(machines.start, fleet) for name, fleet in machines.FLEETS.items()},
}


def main() -> int:
    """Do what the command line asks and return the exit code."""
    arguments = _parser().parse_args()
    if os.geteuid() != 0:
        print("error: the lab starts engines in namespaces of their own, which only root can", file=sys.stderr)
        return 1
    try:
        if arguments.action == "up":
            _up(arguments.parts)
        elif arguments.action == "down":
            session.down()
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
    parts = ", ".join(_PARTS)
    up.add_argument("parts", nargs="*", type=_part, default=_PARTS, metavar="part", help=f"of {parts}; default: all")
    actions.add_parser("down", help="stop everything; keep what took long to make")
    actions.add_parser("purge", help="stop everything and delete it")
    actions.add_parser("status", help="show what runs")
    return parser


def _part(name: str) -> str:
    if name not in _PARTS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(_PARTS)}")
    return name


def _up(parts: Iterable[str]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: _PARTS[part](), parts))


def _report() -> None:
    host_engine = engines.main()
    for engine in [*([host_engine] if host_engine else []), *engines.running().values()]:
        print(f"{engine.name:<9} {engine.url}  {engine.version} {engine.store}")
    running_registry = registry.running()
    if running_registry:
        print(f"{'registry':<9} {running_registry.address}")
    for fleet in machines.FLEETS.values():
        running = machines.running(fleet).values()
        for machine in running:
            print(f"{machine.name:<9} {machine.address}  container {machine.container}")
        if running:
            print(f"{'':<9} ansible -i {fleet.inventory} all -m ping")


if __name__ == "__main__":
    sys.exit(main())
