# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times as engines write them (RFC 3339 with nanoseconds) and as versions use them (Unix seconds)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

# Python 3.9's `fromisoformat` takes neither nanoseconds nor `Z`.
_RFC3339 = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:[Zz]|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))"
)


def unix_timestamp(created: str | None) -> int | None:
    """Floor an RFC 3339 time to Unix seconds; None if it is missing, not a time, or Go's zero time."""
    match = _RFC3339.fullmatch(created or "")
    if not match:
        return None
    try:
        moment = datetime.fromisoformat(match["second"]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    if match["sign"]:
        offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        moment += offset if match["sign"] == "-" else -offset
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
    return seconds if seconds >= 0 else None


def iso_time(timestamp: int) -> str:
    """Write Unix seconds as a person reads them: `2024-01-31T12:00:00Z`; what no calendar has, as `@<seconds>`."""
    try:
        moment = datetime.fromtimestamp(timestamp, tz=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"@{timestamp}"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
