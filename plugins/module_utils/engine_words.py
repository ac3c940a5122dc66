# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an engine says, in errors and while it works, without what the SDK and its HTTP library put around it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.sdk_errors import APIError, DockerException


def own_words(error: BaseException) -> str:
    """What the engine or the kernel said, without the wrapping that the SDK and its HTTP library put around it."""
    inner = _wrapped(error)
    while inner is not None:
        error, inner = inner, _wrapped(inner)
    if isinstance(error, APIError) and error.explanation:
        explanation = error.explanation
        return explanation.decode() if isinstance(explanation, bytes) else str(explanation)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _wrapped(error: BaseException) -> BaseException | None:
    """The error that this one only wraps: an argument of it, or what the SDK was handling when it raised its own."""
    if isinstance(error, APIError):
        return None
    inner = [*error.args, getattr(error, "reason", None)]
    if isinstance(error, DockerException):
        inner.append(error.__context__)
    return next((item for item in inner if isinstance(item, BaseException)), None)


def progress(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The JSON messages of an answer; SDKs before 7 hand over some of them unparsed."""
    for message in messages:
        yield from [message] if isinstance(message, dict) else _lines(message)


def _lines(text: bytes | str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)
