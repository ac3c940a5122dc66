# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets to look at: fleet data, as plays make it, of any size."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

NOW = 1767225600
"""2026-01-01 00:00 UTC."""

HOUR, DAY = 3600, 86400
GIGABYTE = 1_000_000_000

Data = dict[str, Any]


def versions(name: str, *timestamps: int, size: int | None = 741_343_232) -> Data:
    """What is published of an environment."""
    tarballs = [(timestamp, f"/shared/hakuriver-containers/{name}-{timestamp}.tar") for timestamp in timestamps]
    return {"versions": [{"timestamp": it, "tarball": tarball, "size": size} for it, tarball in tarballs]}


def holding(version: int | None, *former: int) -> Data:
    """What a machine has of an environment."""
    return {"version": version, "size": None if version is None else 812_000_000, "former_versions": list(former)}


def machine(problem: str | None = None, role: str = "runner", free: int = 212 * GIGABYTE, **holdings: Data) -> Data:
    """A machine that could be asked."""
    return {
        "role": role,
        "problem": problem,
        "environments": {name.replace("_", "-"): held for name, held in holdings.items()},
        "disk": {"path": "/var/lib/docker", "total": 500 * GIGABYTE, "free": free},
        "engine": {"version": "28.5.2", "storage": "overlay2"},
    }


def unreachable(problem: str = "ssh: connect to host 192.0.2.7 port 22: No route to host") -> Data:
    """A machine that could not be asked."""
    return {"role": "runner", "problem": problem, "environments": {}, "disk": None, "engine": None}


def fleet(environments: Data, machines: Data) -> Data:
    """Fleet data."""
    return {
        "generated": NOW,
        "shared_dir": "/shared/hakuriver-containers",
        "environments": environments,
        "machines": machines,
    }


NOTHING = fleet({}, {})

SMALL = fleet(
    {
        "python-data-science": versions("python-data-science", NOW - 2 * HOUR, NOW - 9 * DAY),
        "cuda-training": versions("cuda-training", NOW - 30 * DAY, size=9_412_000_000),
    },
    {
        "storage1": machine(role="host"),
        "gpu01": machine(python_data_science=holding(NOW - 2 * HOUR), cuda_training=holding(NOW - 30 * DAY)),
        "gpu02": machine(
            python_data_science=holding(NOW - 9 * DAY, NOW - 20 * DAY), cuda_training=holding(NOW - 30 * DAY)
        ),
    },
)

_CUDA = (NOW - 5 * DAY, NOW - 24 * DAY, NOW - 61 * DAY)
_PYTHON = (NOW - 3 * HOUR, NOW - 6 * DAY, NOW - 13 * DAY, NOW - 40 * DAY)
_STATISTICS = (NOW - 17 * DAY, NOW - 80 * DAY)


def _example(problem: str | None = None, python: int = 0, cuda: int | None = 0, used: float = 0.4) -> Data:
    """A machine whose environments are so many versions behind."""
    return machine(
        problem,
        free=int(500 * GIGABYTE * (1 - used)),
        python_data_science=holding(_PYTHON[python], *_PYTHON[python + 1 : python + 2]),
        cuda_training=holding(None if cuda is None else _CUDA[cuda]),
        r_statistics=holding(_STATISTICS[0]),
    )


EXAMPLE = fleet(
    {
        "python-data-science": versions("python-data-science", *_PYTHON),
        "cuda-training": versions("cuda-training", *_CUDA, size=9_412_000_000),
        "r-statistics": versions("r-statistics", *_STATISTICS, size=1_830_000_000),
    },
    {
        "storage1": machine(role="host", free=171 * GIGABYTE),
        **{f"gpu{number:02d}": _example(used=(number * 37 % 61 + 20) / 100) for number in range(1, 17)},
        "gpu04": _example(used=0.96),
        "gpu07": unreachable("ssh: connect to host 192.0.2.17 port 22: No route to host"),
        "gpu09": _example(python=1, cuda=1, used=0.51),
        "gpu12": _example(python=2, cuda=2, used=0.62),
        "gpu13": _example(python=1, used=0.35),
        "gpu16": _example("There is no directory /shared. Mount the shared directory.", python=1, used=0.44),
        "gpu15": _example(cuda=None, used=0.12),
    },
)

_NAMES = (
    *("python-data-science", "cuda-training", "r-statistics", "quantum-chemistry", "genomics-pipeline", "web-scraping"),
    *("julia-climate", "latex", "robotics-sim", "speech", "vision-inference", "geo-tools"),
)


def large(machines: int, environments: int, distinct: bool = False) -> Data:
    """A fleet of that many, most of them well; with `distinct`, every machine is in a state of its own."""
    chance = random.Random(machines * environments)
    names = _NAMES[:environments]
    published = {
        name: [NOW - (index + 1) ** 2 * 7 * HOUR - age * (9 + 5 * index) * DAY for age in range(2 + index % 4)]
        for index, name in enumerate(names)
    }
    found = {f"gpu{number:04d}": _random_machine(chance, published, distinct) for number in range(1, machines)}
    sizes = {name: (index + 1) * 700_000_000 for index, name in enumerate(names)}
    return fleet(
        {name: versions(name, *times, size=sizes[name]) for name, times in published.items()},
        {"storage1": machine(role="host", free=61 * GIGABYTE), **found},
    )


def _random_machine(chance: random.Random, published: dict[str, list[int]], distinct: bool) -> Data:
    fate = chance.random()
    if fate < 0.02:
        return unreachable(f"ssh: connect to host 192.0.2.{chance.randrange(250)} port 22: Connection timed out")
    if fate < 0.03:
        return unreachable("Permission denied (publickey).")
    problem = "There is no directory /shared. Mount the shared directory." if fate < 0.04 else None
    held = {name: holding(_random_version(chance, times, fate, distinct)) for name, times in published.items()}
    used = chance.betavariate(2, 3) if fate < 0.95 else 0.97
    return {**machine(problem, free=int(500 * GIGABYTE * (1 - used))), "environments": held}


def _random_version(chance: random.Random, times: list[int], fate: float, distinct: bool) -> int | None:
    if distinct:
        return chance.choice([*times, None])
    if fate > 0.88:
        return chance.choice(times)
    return None if fate > 0.86 else times[0]


def names_of(data: Data) -> Iterable[str]:
    """Every name that has to be seen: of environments and of machines."""
    return [*data["environments"], *data["machines"]]
