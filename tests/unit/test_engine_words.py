# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What engines and web servers say, on machines with and without the Docker SDK."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.modules import CHECKOUT

WITHOUT_SDK = """
import sys
sys.modules["docker"] = None
from ansible_collections.haku.river.plugins.module_utils.engine_words import own_words
print(own_words(ValueError(OSError(111, "Connection refused"))))
"""


def test_words_are_told_without_the_sdk_too() -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".checkout")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SDK], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("Connection refused\n", "")
