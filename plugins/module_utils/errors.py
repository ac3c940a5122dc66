# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one family of exceptions below `main()`: each is a sentence for the person at the terminal."""

from __future__ import annotations


class HakuError(Exception):
    """Something a person has to know: what failed, on what, why, and what to do next.

    `what` is a sentence without its full stop that names what failed and on what. `cause` keeps the
    words of whoever refused (the engine, the kernel). `remedy` says what to do next.
    """

    def __init__(self, what: str, *, where: str = "", cause: str | None = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.cause = cause or ""
        self.remedy = remedy

    def __str__(self) -> str:
        sentence = ": ".join(part.rstrip(".") for part in (self.what, self.cause) if part) + "."
        return f"{sentence} {self.remedy.rstrip('.')}." if self.remedy else sentence

    def as_result(self) -> dict[str, object]:
        """The keys of `fail_json`: the sentence as `msg`, and its parts for reports."""
        parts = {"what": self.what, "where": self.where, "cause": self.cause, "remedy": self.remedy}
        return {"msg": str(self), "error": parts}


class EngineError(HakuError):
    """The engine refused, failed or fell silent; `cause` has its own words."""


class Refused(EngineError):
    """The engine understood and said no, so that another way of asking may get a yes."""


class NoInstance(HakuError):
    """There is no such container."""


class NoConsole(HakuError):
    """Nothing can be typed into that container, however long somebody waits."""


class ArchiveError(HakuError):
    """A tarball is not what it should be: cut short, corrupted, not an image, hostile."""


class Vanished(ArchiveError):
    """The tarball is gone: a packager pruned it, perhaps while it was read."""


class CatalogueError(HakuError):
    """The shared directory cannot be used as asked."""
