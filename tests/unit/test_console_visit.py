# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is heard at a console that goes away."""

from __future__ import annotations

import socket
import time

import pytest
from ansible_collections.haku.river.plugins.module_utils.attach import Stream, StreamEnded
from ansible_collections.haku.river.plugins.module_utils.console_visit import Visit


def test_the_last_words_of_a_server_that_reads_no_more_are_heard() -> None:
    ours, its = socket.socketpair()
    stream = Stream(ours, "an engine", framed=False)
    visit = Visit(stream, "World>", time.monotonic() + 10)
    its.sendall(b"Out of memory\r\n")
    its.close()
    with pytest.raises(StreamEnded):
        visit.type(b"status\n", 1)
    assert visit.transcript.text == "Out of memory\n"
    stream.close()
