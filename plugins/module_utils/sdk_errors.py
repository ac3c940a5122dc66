# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exceptions of the Docker SDK and its HTTP library, with stand-ins where they are not installed.

`connect` tells that they are missing before any of these could be raised; the names are needed for `except`.
"""

from __future__ import annotations

try:
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import RequestException
except ImportError:

    class _NotInstalled(Exception):
        """Nobody raises it."""

    APIError = DockerException = _NotInstalled  # type: ignore[misc,assignment]  # no type for a stand-in
    NotFound = RequestException = _NotInstalled  # type: ignore[misc,assignment]  # no type for a stand-in

__all__ = ["APIError", "DockerException", "NotFound", "RequestException"]
