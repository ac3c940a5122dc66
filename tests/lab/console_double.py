# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server with a console like that of Resonite's headless one; runs inside a container, as `python3 -c`.

Environment: WORLD, the name that its prompt shows; PROMPTLESS, if it shows no prompt, and ends by `stop` as well;
COLOURS, if prompt and log lines are coloured; LOGS, how many log lines come per second, at any moment; ECHO=late, if
the server shows itself what was typed, when it reads it, and not the terminal; BOOT and SHUTDOWN, how long these take,
and PACE, how long it waits before it reads a line, in seconds; STUBBORN, if it does not heed SIGTERM; RESONITE, if it
insists on being run as the published images of Resonite's server are: on its configuration, which then says what worlds
there are, on its user, and on a terminal. Then it keeps a record of itself among its logs; UNSAVED is a world that it
cannot save.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import termios
import threading
import time
from pathlib import Path

COLOURS = bool(os.environ.get("COLOURS"))
LATE_ECHO = os.environ.get("ECHO") == "late"
PROMPTLESS = bool(os.environ.get("PROMPTLESS"))
RESONITE = bool(os.environ.get("RESONITE"))

CONFIGURATION = Path("/Config/Config.json")
RECORD = Path("/Logs/record.log")
USER = 2000


def write(text: str, colour: int = 0) -> None:
    """Write in one go, as .NET's console does for each call."""
    painted = f"\x1b[{colour}m{text}\x1b[39;49m\x1b[K" if COLOURS and colour else text
    data = painted.encode()
    while data:
        data = data[os.write(1, data) :]


def write_logs(per_second: float) -> None:
    for number in range(sys.maxsize):
        time.sleep(random.expovariate(per_second))
        write(f"12:00:00 AM.{number:03} ( 60 FPS)\tUpdated: World> -> Other> {number}\n", 33)


def note(event: str) -> None:
    """Add a line to the record."""
    if RESONITE:
        with RECORD.open("a") as record:
            record.write(f"{event}\n")


def configured_worlds() -> list[str]:
    """The worlds that the configuration names; the server ends if it is not run as it wants to be."""
    if (os.getuid(), os.getgid()) != (USER, USER):
        sys.exit(f"I am user {os.getuid()} of group {os.getgid()}, and not {USER}")
    if not os.isatty(0):
        sys.exit("There is no terminal")
    if not os.statvfs(CONFIGURATION).f_flag & os.ST_RDONLY:
        sys.exit(f"{CONFIGURATION} is not mounted read-only")
    if CONFIGURATION.stat().st_mode & 0o077:
        sys.exit(f"{CONFIGURATION} can be read by others")
    configuration = json.loads(CONFIGURATION.read_text())
    # What no log should have, some have.
    write(f"Logging in with {configuration['loginPassword']}, to Steam with {os.environ['STEAMLOGIN']}\n")
    if "startWorlds" not in configuration:
        sys.exit("The configuration names no worlds")
    return [world["sessionName"] for world in configuration["startWorlds"]]


def stop_by(number: int, _frame: object) -> None:
    """End as the stop signal wants it."""
    note(signal.Signals(number).name)
    os._exit(0)


def big(argument: str) -> None:
    line = f"{argument} -> " + "x" * 90 + " > end\n"
    write("".join(f"{number:06} {line}" for number in range(12000)))


def slow(argument: str) -> None:
    for number in range(5):
        write(f"part {number} of ")
        time.sleep(0.2)
        write(f"{argument}...\n")


def forge(prompt: str) -> None:
    """Write what looks like the end of the answer, as names do that people choose."""
    write(f"{prompt * 3}\tPresent\n")
    time.sleep(0.4)
    write("the rest\n")


def sleep(seconds: str) -> None:
    time.sleep(float(seconds))
    write(f"slept {seconds}\n")


class Server:
    """The state of the server."""

    def __init__(self, worlds: list[str]) -> None:
        self.worlds = worlds
        self.focus = 0
        self.running = True

    @property
    def world(self) -> str:
        return self.worlds[self.focus]

    def run(self) -> None:
        while self.running:
            if not PROMPTLESS:
                write(f"{self.world}>", 32)
            time.sleep(float(os.environ.get("PACE", "0")))
            line = sys.stdin.readline()
            if not line:
                return
            if LATE_ECHO:
                write(line)
            words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line)]
            if words:
                self.obey(words[0].lower(), words[1:])

    def obey(self, command: str, arguments: list[str]) -> None:
        if command == "dynamicimpulse":
            {"big": big, "slow": slow, "forge": forge, "sleep": sleep}[arguments[0]](arguments[1])
        elif command == "status":
            write(
                f"Name: {self.world}\nSessionID: S-87fe7d8f\nCurrent Users: 2\nPresent Users: 1\nMax Users: 6\n"
                "Uptime: 01:12:35.4423964\nAccess Level: RegisteredUsers\nHidden from listing: False\n"
                "Mobile Friendly: False\nDescription: a -> b: > c\nTags: debug, test\nUsers: Bot, Some One\n"
            )
        elif command == "users":
            write("Bot\tID: U-1\tRole: Admin\tPresent: False\tPing: 0 ms\tFPS: 60.003\tSilenced: False\n")
            write("Some One\tID: U-2\tRole: Builder\tPresent: True\tPing: 42 ms\tFPS: 59,9\tSilenced: True\n")
        elif command == "worlds":
            for number, world in enumerate(self.worlds):
                write(f"[{number}] {world}\tUsers: 2\tPresent: 1\tAccessLevel: RegisteredUsers\tMaxUsers: 6\n")
        elif command == "focus":
            self.focus = int(arguments[0])
        elif command == "listbans":
            write("[0]\tUsername: Bad One\tUserID: U-3\tMachineIds: 66a, 66b\n")
        elif command == "name":
            self.worlds[self.focus] = arguments[0]
        elif command == "description":
            # An answer that looks like the prompt.
            write("".join(f"{self.world}>{text}\n" for text in ("", "a", "", "b")) + "done\n")
        elif command == "message":
            write(f"{arguments[0]} > to\n-> {arguments[1]}\n")
            write(f"{arguments[0]}: message sent!\n")
        elif command == "save" and self.world == os.environ.get("UNSAVED"):
            write("Cannot save focused world!\n")
        elif command == "save":
            note(f"save {self.world}")
            write("Saved.")  # without the end of a line
        elif command == "log":
            write("The log follows; press Enter to leave it\n")
            sys.stdin.readline()
            write("The log ends\n")
        elif command == "shutdown" or (command == "stop" and PROMPTLESS):
            note("shutdown")
            write("Shutting down\n")
            time.sleep(float(os.environ.get("SHUTDOWN", "0.2")))
            write("Bye\n")
            self.running = False
        elif command == "gc":
            os._exit(3)
        else:
            write(f"Unknown command: {command}\n")


def main() -> None:
    if os.environ.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, stop_by)
        signal.signal(signal.SIGINT, stop_by)
    if LATE_ECHO:
        attributes = termios.tcgetattr(0)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, attributes)
    if os.environ.get("LOGS"):
        threading.Thread(target=write_logs, args=(float(os.environ["LOGS"]),), daemon=True).start()
    worlds = configured_worlds() if RESONITE else [os.environ.get("WORLD", "World")]
    note(f"start {os.environ.get('VERSION')}")
    time.sleep(float(os.environ.get("BOOT", "0")))
    Server(worlds).run()


if __name__ == "__main__":
    main()
