# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real browser: Debian's Chromium without a window, driven by its own driver."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from .host import require

# As root, and in containers, Chromium has no sandbox and little shared memory.
_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-gpu")


@dataclass(frozen=True)
class Browser:
    """A browser with one page."""

    driver: webdriver.Chrome

    def show(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False, media: str = "screen") -> None:
        """Open a page on a screen of that width, in pixels; forget what was said and fetched before."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.complaints()
        self.fetched()
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys, by names as `TAB` and `ENTER`."""
        self.driver.switch_to.active_element.send_keys(*(getattr(Keys, key) for key in keys))

    def complaints(self) -> list[str]:
        """What stands in the console since the last call."""
        return self._log("browser")

    def fetched(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        messages = [json.loads(message)["message"] for message in self._log("performance")]
        return [it["params"]["request"]["url"] for it in messages if it["method"] == "Network.requestWillBeSent"]

    def _log(self, name: str) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log(name)]  # type: ignore[no-untyped-call]  # selenium's

    def tell(self, command: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol."""
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, parameters)
        return answer

    def picture(self, path: Path, height: int | None = None) -> None:
        """Write the page as PNG, from its top to its end, or as much of it as is `height` pixels high."""
        size = self.tell("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.tell("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self) -> bytes:
        """The page as PDF, as it would be printed."""
        return base64.b64decode(self.tell("Page.printToPDF", preferCSSPageSize=True)["data"])


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser for the length of the block."""
    require("chromium", "chromedriver")
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
