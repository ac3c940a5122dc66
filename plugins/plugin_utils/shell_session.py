# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a terminal finds on a machine: scripts for its shell that look for a container, and hand the terminal over.

All happens in one connection, so that ssh and sudo ask for a password once, and on the user's own terminal.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ansible_collections.haku.river.plugins.module_utils.names import (
    LABEL_ENVIRONMENT,
    LABEL_MANAGED,
    check_environment_name,
)
from ansible_collections.haku.river.plugins.module_utils.task import check_task_id
from ansible_collections.haku.river.plugins.plugin_utils.shell_machine import Machine

_MANAGED = f"{LABEL_MANAGED}=true"


@dataclass(frozen=True)
class Kind:
    """Containers of a kind: a label that they have, and a regular expression for their names."""

    title: str
    label: str
    names: str


# The names leave out what was put aside, such as `my-env.FORMER`.
ENVIRONMENTS = Kind("Environments", LABEL_ENVIRONMENT, "^[a-z0-9._-]+$")
WORK = Kind("Tasks and VPS (haku-task-NAME, haku-vps-NAME)", _MANAGED, "^haku-(task-.+|vps-[a-z0-9-]+)$")


@dataclass(frozen=True)
class Wanted:
    """A container to open a shell in, of which these label and name are asked, and what to say if it cannot be.

    `start` tells whether a stopped one is started.
    """

    kind: Kind
    words: str
    label: str
    names: str
    when_stopped: str
    start: bool = False


def environment(name: str, start: bool, again: str) -> Wanted:
    """The container of an environment; `again` is the command that starts it and opens it."""
    check_environment_name(name)
    return Wanted(
        kind=ENVIRONMENTS,
        words=f"environment {name}",
        label=f"{LABEL_ENVIRONMENT}={name}",
        names=f"^{re.escape(name)}$",
        when_stopped=f"Start it, and open it: {again}",
        start=start,
    )


def work(name: str) -> Wanted:
    """The container of a task or a VPS. If one of each has this name, it is the newer one."""
    check_task_id(name)  # which every name of a VPS could be
    return Wanted(
        kind=WORK,
        words=f"task or VPS {name}",
        label=_MANAGED,
        names=f"^haku-(task|vps)-{re.escape(name)}$",
        when_stopped=f"A VPS is started by haku_vps, with vps={name} and state=present.",
    )


# In $@ is the engine's command. The status is worded for people, but it is what Docker and Podman have in common. The
# lines become one, as a C shell takes no more between quotes; for the same reason there is no exclamation mark.
_OPEN = """
say() { printf 'haku-shell: %s\\n' "$1" >&2; };
found=$("$@" ps --all --filter "label=$managed" --filter "label=$label" --filter "name=$names"
  --format '{{.Names}} {{.Status}}') || { say "$unanswered"; exit 1; };
found=$(echo "$found" | head -n 1);
case $found in
  *" Up "*"(Paused)" | *" Paused"*) say "$subject is paused, perhaps by a packaging. Try again in a moment."; exit 1 ;;
  *" Up "*) ;;
  "")
    if [ "$("$@" ps --all --quiet --filter "name=$names")" ]; then say "$foreign"; exit 1; fi;
    say "$missing";
    "$@" ps --all --filter "label=$managed" --filter "label=$others" --filter "name=$other_names"
      --format 'table {{.Names}}\\t{{.Status}}' >&2;
    exit 1 ;;
  *)
    [ "$start" ] || { say "$subject does not run: ${found#* }. $when_stopped"; exit 1; };
    "$@" start "${found%% *}" >/dev/null || exit 1 ;;
esac;
mark=$$.$(date +%s);
trap 'gone=yes' HUP TERM;
gone=;
"$@" exec --interactive $terminal "${found%% *}" sh -c "$shell" sh "$term" "$mark";
status=$?;
[ -z "$gone" ] || "$@" exec "${found%% *}" sh -c "$hang_up" sh "$mark" </dev/null >/dev/null 2>&1;
exit $status
"""

_LIST = """
exec "$@" ps --all --filter "label=$managed" --filter "label=$label" --filter "name=$names" --format "$format"
"""

# A terminal that the image does not know is one on which nothing full-screen starts; the engine's choice is xterm.
_SHELL = """
for place in /etc /lib /usr/lib /usr/share; do
  [ -e $place/terminfo/?/$1 ] && export TERM=$1;
done;
export HAKU_SHELL=$$.$2;
exec "$(command -v bash || command -v sh)"
"""

# A connection that breaks ends the engine's client, of which engines tell the shell nothing: it would go on for ever.
# It is found by its own number in its variables. What it has started has them too, but other numbers.
_HANG_UP = """
for process in /proc/[0-9]*; do
  case $(cat $process/environ) in
    *"HAKU_SHELL=${process#/proc/}.$1"*) kill -s HUP "${process#/proc/}" ;;
  esac;
done
"""

# Of a sequence, the first key waits for the second: with Docker's own, ctrl-p would not bring the last command back.
_TERMINAL = "--tty --detach-keys=ctrl-\\,ctrl-^,ctrl-@"


def opening(machine: Machine, wanted: Wanted, terminal: str | None) -> str:
    """The script that opens a shell; `terminal` is the user's (`TERM`), or None for a shell without one."""
    there = f"{wanted.words} on {machine.name}"
    variables = {
        "managed": _MANAGED,
        "label": wanted.label,
        "names": wanted.names,
        "others": wanted.kind.label,
        "other_names": wanted.kind.names,
        "start": "yes" if wanted.start else "",
        "terminal": _TERMINAL if terminal else "",
        "term": terminal or "dumb",
        "shell": _one_line(_SHELL),
        "hang_up": _one_line(_HANG_UP),
        "subject": f"The {there}",
        "when_stopped": wanted.when_stopped,
        "missing": f"There is no {there}. There are:",
        "foreign": f"The container of that name on {machine.name} is not managed by haku.river, so it is left alone.",
        "unanswered": f"The engine on {machine.name} does not answer, see above. Start it, let the user use it, or set "
        "ansible_become or ansible_haku_docker_command for that machine.",
    }
    return _script(machine, _OPEN, variables)


def listing(machine: Machine, kind: Kind, columns: str) -> str:
    """The script that lists containers; `columns` is a format of `docker ps`."""
    variables = {"managed": _MANAGED, "label": kind.label, "names": kind.names, "format": columns}
    return _script(machine, _LIST, variables)


def _script(machine: Machine, script: str, variables: dict[str, str]) -> str:
    assignments = [f"{name}={shlex.quote(value)};" for name, value in variables.items()]
    return " ".join([_engine(machine), *assignments, _one_line(script)])


def _engine(machine: Machine) -> str:
    """Put the engine's command into $@."""
    docker, podman = (shlex.join([*machine.become, *(machine.engine or (name,))]) for name in ("docker", "podman"))
    if machine.engine:
        return f"set -- {docker};"
    return f"set -- {docker}; command -v docker >/dev/null || {{ command -v podman >/dev/null && set -- {podman}; }};"


def _one_line(script: str) -> str:
    return " ".join(script.split())
