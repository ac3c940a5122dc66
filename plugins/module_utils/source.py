# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choosing where tarballs are read from: the shared directory, or a web server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.haku.river.plugins.module_utils.catalogue import CATALOGUE_OPTIONS, Catalogue
from ansible_collections.haku.river.plugins.module_utils.outcome import pick
from ansible_collections.haku.river.plugins.module_utils.published import Source

WEB_OPTIONS: dict[str, dict[str, Any]] = {
    "source": {"type": "str"},
    "source_ca_path": {"type": "path"},
    "source_validate_certs": {"type": "bool", "default": True},
    "source_username": {"type": "str"},
    "source_password": {"type": "str", "no_log": True},
    "source_headers": {"type": "dict", "no_log": True},
}
"""The argument specification of the doc fragment `haku.river.catalogue.web`."""

SOURCE_OPTIONS: dict[str, dict[str, Any]] = {
    **CATALOGUE_OPTIONS,
    **WEB_OPTIONS,
    # Either this or `source`.
    "shared_dir": {"type": "path"},
}
"""The argument specification of `haku.river.catalogue` and `haku.river.catalogue.web`, where either will do."""

ONE_SOURCE = [("shared_dir", "source")]
"""The options of which no more than one may be given."""


def chosen_source(options: Mapping[str, Any], conceal: Callable[[Iterable[str]], object]) -> Source[Any]:
    """The source that the values of `SOURCE_OPTIONS` name; `conceal` is told what in them nobody may see.

    An address may hold secrets, and Ansible shows the options beside the result.
    """
    if options["source"] is None:
        return Catalogue(**pick(options, CATALOGUE_OPTIONS))
    # Loaded by those alone who need it.
    from ansible_collections.haku.river.plugins.module_utils.web import WebCatalogue, WebSettings

    web = WebSettings(**pick(options, WEB_OPTIONS))
    conceal(web.secrets)
    return WebCatalogue(web)
