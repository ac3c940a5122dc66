# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the picture of docs/status.md, of a fleet that does not exist: `.venv/bin/python -m tests.screenshot`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / ".checkout"))

from ansible_collections.haku.river.plugins.filter.fleet_page import fleet_page  # noqa: E402  # found by the path above

from tests.fleets import EXAMPLE  # noqa: E402  # after the path as well
from tests.lab.browser import browsing  # noqa: E402  # after the path as well


def main() -> None:
    """Write docs/status.png."""
    with tempfile.TemporaryDirectory() as directory, browsing() as browser:
        page = Path(directory, "page.html")
        page.write_text(fleet_page(EXAMPLE))
        browser.show(page, width=1120)
        browser.picture(CHECKOUT / "docs/status.png", height=1500)


if __name__ == "__main__":
    main()
