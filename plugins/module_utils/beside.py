# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two things at once that do not depend on each other, of which at least one waits for the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def beside(call: Callable[[], T]) -> Iterator[Future[T]]:
    """Make a call in another thread while the block runs; it has ended when the block has.

    What it raises is raised then, unless the block itself has failed. Its result is that of the value.
    """
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call)
        yield answer
    answer.result()
