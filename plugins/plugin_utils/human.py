# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times and sizes as people read them, and text from anywhere made fit to be shown."""

from __future__ import annotations

from datetime import datetime, timezone

_UNITS = (
    (365 * 86400, "year", "y"),
    (30 * 86400, "month", "mo"),
    (7 * 86400, "week", "w"),
    (86400, "day", "d"),
    (3600, "hour", "h"),
    (60, "minute", "min"),
)


def utc(timestamp: int, seconds: bool = False) -> str:
    """Unix seconds as `2026-01-31 12:00`, in UTC; a time that no calendar has, as it is."""
    try:
        moment = datetime.fromtimestamp(timestamp, tz=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"@{timestamp}"
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def duration(seconds: int) -> str:
    """About how long that is: `5 hours`. Of two units only the greater is told, from two of it on."""
    for length, unit, _short in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}s"
    return f"{max(seconds // 60, 1)} minute{'s' if seconds >= 120 else ''}" if seconds >= 60 else "less than a minute"


def short_duration(seconds: int) -> str:
    """The same in a table: `5 h`."""
    for length, _unit, short in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length}\u00a0{short}"
    return "now"


def ago(timestamp: int, now: int) -> str:
    """How long before `now` that was; clocks of machines may differ."""
    return f"{duration(now - timestamp)} ago" if timestamp <= now else f"in {duration(timestamp - now)}"


def size(size_bytes: int) -> str:
    """Bytes in decimal units, as disks are sold: `741 MB`, `1.2 GB`."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5:
            return f"{amount:.1f} {unit}" if amount < 9.95 and unit != "B" else f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 machine`, `1,000 machines`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def printable(text: str) -> str:
    """One line without control characters, which a machine's words could steer a terminal by."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in line)
