# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VPS on real engines, with real logins."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.haku.river.plugins.module_utils.connect import EngineSettings, connect
from ansible_collections.haku.river.plugins.module_utils.timestamps import unix_timestamp
from ansible_collections.haku.river.plugins.module_utils.vps_port import choosing

from tests.integration.environment import Environment
from tests.integration.marks import ITS_NEIGHBOURS_SHOW_IT, ONE_PODMAN_SHOWS_IT
from tests.integration.modules import converge, fail, start_module, succeed
from tests.integration.vps import Place, make_key
from tests.lab import images
from tests.lab.engines import Engine
from tests.lab.host import LabError, run, wait_until

pytestmark = ITS_NEIGHBOURS_SHOW_IT

# Life


def test_a_vps_is_created_as_forecast_and_once_and_its_owner_logs_in(vps_place: Place) -> None:
    seen = converge("haku_vps", **vps_place.options)
    machine, there = seen.first["vps"], vps_place.inspect()
    image = vps_place.engine.docker("image", "inspect", "--format", "{{.Created}}", vps_place.image)
    assert machine == {
        "name": vps_place.vps,
        "environment": vps_place.environment,
        "version": unix_timestamp(image.strip()),
        "id": there["Id"],
        "image": vps_place.image,
        "state": "running",
        "created": f"{there['Created'][:19]}Z",
        "host": "127.0.0.1",
        "port": int(there["HostConfig"]["PortBindings"]["22/tcp"][0]["HostPort"]),
        "address": "0.0.0.0",
        "user": "root",
        "host_key_fingerprint": machine["host_key_fingerprint"],
        "known_hosts": machine["known_hosts"],
    }
    assert seen.second["vps"] == machine
    assert seen.second["actions"] == []
    assert vps_place.ssh(machine, "id -un; hostname").split() == ["root", vps_place.vps]
    scanned = run(*vps_place.within, "ssh-keyscan", "-t", "ed25519", "-p", str(machine["port"]), "127.0.0.1")
    assert scanned.strip() == machine["known_hosts"]


def test_it_stops_starts_and_restarts_with_its_changes_its_host_key_and_its_port(vps_place: Place) -> None:
    machine = vps_place.have()["vps"]
    vps_place.ssh(machine, "echo mine > /root/file")
    stopped = converge("haku_vps", **vps_place.bare_options, state="stopped")
    assert stopped.first["vps"] == {**machine, "state": "exited"}
    assert stopped.first["diff"] == {"before": {"state": "running"}, "after": {"state": "exited"}}
    started = converge("haku_vps", **vps_place.options)
    assert started.first["actions"] == [f"start container {vps_place.container}"]
    restarted = succeed("haku_vps", **vps_place.bare_options, state="restarted")
    assert restarted["changed"]
    assert restarted["vps"] == machine
    assert vps_place.ssh(machine, "cat /root/file") == "mine\n"


def test_absent_removes_it_and_nothing_else(vps_place: Place) -> None:
    other = vps_place.named(f"{vps_place.vps}-2")
    vps_place.have()
    other.have()
    gone = converge("haku_vps", **vps_place.bare_options, state="absent")
    assert gone.first["vps"] is None
    assert vps_place.containers == [other.container]
    assert vps_place.image in vps_place.images


def test_a_paused_vps_goes_on(one_vps_place: Place) -> None:
    machine = one_vps_place.have()["vps"]
    one_vps_place.engine.docker("pause", one_vps_place.container)
    seen = converge("haku_vps", **one_vps_place.options)
    assert seen.first["actions"] == [f"unpause container {one_vps_place.container}"]
    assert one_vps_place.ssh(machine, "true") == ""


@pytest.mark.parametrize("state", ["stopped", "restarted", "snapshot", "restored"])
def test_what_is_not_there_is_only_made_by_present(one_vps_place: Place, state: str) -> None:
    assert "There is no VPS" in one_vps_place.fail(state=state)


# Keys


def test_two_vps_of_one_image_have_different_host_keys_and_neither_has_that_of_the_image(one_vps_place: Place) -> None:
    in_image = ("run", "--rm", "--network", "none", one_vps_place.image, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    baked = one_vps_place.engine.docker(*in_image).split()[1]
    keys = [
        place.have()["vps"]["known_hosts"].split()[2]
        for place in (one_vps_place, one_vps_place.named(f"{one_vps_place.vps}-2"))
    ]
    assert len({baked, *keys}) == 3
    left = one_vps_place.engine.docker("exec", one_vps_place.container, "sh", "-c", "ls /etc/ssh/ssh_host_*")
    assert left.split() == ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub"]


def test_passwords_are_refused_although_the_image_allows_them(one_vps_place: Place) -> None:
    machine = one_vps_place.have()["vps"]
    one_vps_place.ssh(machine, "echo root:secret | chpasswd; grep -r PasswordAuthentication /etc/ssh/sshd_config")
    said = one_vps_place.refuses(machine, "-oPubkeyAuthentication=no")
    assert "Permission denied (publickey)" in said


def test_a_stranger_is_refused(one_vps_place: Place, tmp_path: Path) -> None:
    machine = one_vps_place.have()["vps"]
    assert "Permission denied" in one_vps_place.refuses(machine, f"-i{make_key(tmp_path, 'stranger')}")


def test_nobody_enters_by_a_key_that_came_with_the_image(one_vps_place: Place, tmp_path: Path) -> None:
    stranger = make_key(tmp_path, "stranger")
    public = stranger.with_suffix(".pub").read_text().strip()
    commands = [
        "mkdir -p /root/.ssh && useradd --create-home other && mkdir /home/other/.ssh",
        *(f"echo '{public}' > {file}" for file in ("/root/.ssh/authorized_keys2", "/home/other/.ssh/authorized_keys")),
        f"echo '{public}' > /etc/ssh/others; echo '{public}' > /etc/ssh/ca.pub",
        "printf 'AuthorizedKeysCommand /bin/cat /etc/ssh/others\\nAuthorizedKeysCommandUser root\\n' >> $config",
        "printf 'AuthorizedKeysFile .ssh/authorized_keys2\\nTrustedUserCAKeys /etc/ssh/ca.pub\\n' >> $config",
    ]
    _change_image(one_vps_place, "; ".join(["config=/etc/ssh/sshd_config", *commands]))
    machine = one_vps_place.have()["vps"]
    assert one_vps_place.ssh(machine, "ls .ssh/authorized_keys2") == ".ssh/authorized_keys2\n"
    for user in ("root", "other"):
        entered = {**machine, "user": user}
        assert "Permission denied (publickey)" in one_vps_place.refuses(entered, f"-i{stranger}")
    run("ssh-keygen", "-q", "-s", stranger, "-I", "anybody", "-n", "root", f"{make_key(tmp_path, 'signed')}.pub")
    assert "Permission denied (publickey)" in one_vps_place.refuses(machine, f"-i{tmp_path}/signed")


def test_an_environment_can_name_more_users_who_then_enter_by_their_own_keys(
    one_vps_place: Place, tmp_path: Path
) -> None:
    other = make_key(tmp_path, "other")
    public = other.with_suffix(".pub").read_text().strip()
    commands = (
        "useradd --create-home other && mkdir /home/other/.ssh",
        f"echo '{public}' > /home/other/.ssh/authorized_keys",
        "echo AllowUsers other >> /etc/ssh/sshd_config",
    )
    _change_image(one_vps_place, "; ".join(commands))
    machine = one_vps_place.have()["vps"]
    assert one_vps_place.ssh({**machine, "user": "other"}, "id -un", key=other) == "other\n"
    assert one_vps_place.ssh(machine, "id -un") == "root\n"


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        ("User root\\n AuthenticationMethods password", "authenticationmethods publickey"),
        ("all\\n AuthorizedKeysFile .ssh/authorized_keys2", "authorizedkeysfile .ssh/authorized_keys"),
    ],
    ids=["methods", "files"],
)
def test_an_image_that_opens_another_way_in_for_root_is_refused(one_vps_place: Place, block: str, wanted: str) -> None:
    _change_image(one_vps_place, f"printf 'Match {block}\\n' >> /etc/ssh/sshd_config")
    message = one_vps_place.fail()
    assert f"keeps root's logins from being as they have to be: {wanted}" in message
    assert "Correct the environment's /etc/ssh/sshd_config on the Host" in message
    assert one_vps_place.containers == []


def test_keys_change_in_place_and_the_one_that_was_taken_away_no_longer_opens(vps_place: Place, tmp_path: Path) -> None:
    machine = vps_place.have()["vps"]
    bob = make_key(tmp_path, "bob")
    text = f"# Bob\n{bob.with_suffix('.pub').read_text()}\n"
    seen = converge("haku_vps", **{**vps_place.options, "authorized_keys": [text]})
    assert seen.first["actions"] == [f"put 1 authorized keys into VPS {vps_place.vps}"]
    assert seen.first["vps"] == machine
    (before,), (after,) = (seen.first["diff"][side]["authorized_keys"] for side in ("before", "after"))
    assert before.endswith(" id@test")
    assert after.endswith(" bob@test")
    assert vps_place.ssh(machine, "stat -c '%a %u' .ssh .ssh/authorized_keys", key=bob) == "700 0\n600 0\n"
    assert "Permission denied" in vps_place.refuses(machine, f"-i{vps_place.key}")


def test_keys_change_in_a_stopped_vps_too(one_vps_place: Place, tmp_path: Path) -> None:
    one_vps_place.have()
    succeed("haku_vps", **one_vps_place.bare_options, state="stopped")
    bob = make_key(tmp_path, "bob")
    keys = [one_vps_place.public_key, bob.with_suffix(".pub").read_text()]
    machine = one_vps_place.have(authorized_keys=keys)["vps"]
    assert one_vps_place.ssh(machine, "true", key=bob) == ""
    assert one_vps_place.ssh(machine, "true") == ""


@ONE_PODMAN_SHOWS_IT
def test_what_became_of_the_keys_inside_hinders_nobody_outside(vps_place: Place) -> None:
    machine = vps_place.have()["vps"]
    for command in (
        "cd /root/.ssh && mv authorized_keys keys && ln -s /root/.ssh/keys authorized_keys",
        "cd /root/.ssh && rm authorized_keys && truncate -s 5M authorized_keys",
        "cd /root && rm -r .ssh && ln -s .ssh .ssh",
        "cd /etc/ssh && ln -sf /nowhere/key ssh_host_ed25519_key.pub",
    ):
        vps_place.engine.docker("exec", vps_place.container, "sh", "-c", command)
        (listed,) = succeed("haku_vps_info", vps=vps_place.vps, docker_host=vps_place.engine.url)["machines"]
        assert listed["id"] == machine["id"]
        succeed("haku_vps", **vps_place.bare_options, state="absent", check=True)
    succeed("haku_vps", **vps_place.bare_options, state="absent")
    assert vps_place.containers == []


# Settings


def test_settings_reach_the_machine_and_its_sessions(one_vps_place: Place) -> None:
    options = {
        **one_vps_place.options,
        "cpus": 0.5,
        "memory": "256M",
        "shm_size": "96M",
        "env": {"GREETING": 'it\'s "$HOME"', "PATH": "/opt/tool/bin:/usr/bin:/bin"},
        "volumes": ["/etc:/host/etc:ro"],
        "labels": {"team": "a"},
        "address": "127.0.0.1",
        "restart_policy": "no",
    }
    machine = converge("haku_vps", **options).first["vps"]
    assert machine["address"] == "127.0.0.1"
    there = one_vps_place.inspect()
    assert there["HostConfig"]["NanoCpus"] == 500_000_000
    assert there["HostConfig"]["Memory"] == 256 << 20
    assert one_vps_place.ssh(machine, "df --output=size -m /dev/shm").split()[-1] == "96"
    assert there["Config"]["Labels"]["team"] == "a"
    expected = 'it\'s "$HOME" /opt/tool/bin:/usr/bin:/bin\n'
    assert one_vps_place.ssh(machine, 'echo "$GREETING $PATH"') == expected
    assert one_vps_place.ssh(machine, "bash -lc 'echo \"$GREETING $PATH\"'") == expected
    with pytest.raises(LabError, match="Read-only file system"):
        one_vps_place.ssh(machine, "touch /host/etc/file")


def test_limits_change_in_place(one_vps_place: Place) -> None:
    machine = one_vps_place.have()["vps"]
    seen = converge("haku_vps", **one_vps_place.options, memory="256M")
    assert seen.first["vps"] == machine
    assert one_vps_place.inspect()["HostConfig"]["Memory"] == 256 << 20


def test_what_needs_a_new_machine_needs_permission_and_that_has_the_same_host_key_port_and_keys(
    vps_place: Place,
) -> None:
    machine = vps_place.have()["vps"]
    vps_place.ssh(machine, "touch /root/file")
    options = {**vps_place.options, "env": {"A": "b"}}
    for check in (True, False):
        message = fail("haku_vps", check=check, **options)
        assert "is not as asked: env (asked: {'A': 'b'}; there: {'A': None}). Only a new one can be." in message
    assert vps_place.ssh(machine, "ls /root") == "file\n"
    del options["authorized_keys"]
    seen = converge("haku_vps", **options, recreate=True)
    new = seen.first["vps"]
    assert new == {**machine, "id": new["id"], "created": new["created"]}
    assert new["id"] != machine["id"]
    assert vps_place.ssh(new, "ls /root; echo $A") == "b\n"
    assert vps_place.containers == [vps_place.container]


def test_a_vps_stays_as_it_is_when_its_environment_moves_on(one_vps_place: Place) -> None:
    machine = one_vps_place.have()["vps"]
    one_vps_place.engine.docker("commit", "--change", "ENV NEW=1", one_vps_place.container, one_vps_place.image)
    assert one_vps_place.have()["changed"] is False
    newer = one_vps_place.named(f"{one_vps_place.vps}-2").have()["vps"]
    assert newer["version"] > machine["version"]


def test_a_new_machine_is_made_of_the_newest_version_or_of_the_one_that_is_pinned(
    one_vps_place: Place, tmp_path: Path
) -> None:
    environment = Environment(one_vps_place.engine, one_vps_place.environment, tmp_path / "shared")
    environment.tarballs.mkdir(parents=True)
    environment.create(one_vps_place.image)
    first = succeed("haku_tar", **environment.options)["version"]
    environment.execute("touch /second")
    second = succeed("haku_tar", **environment.options, keep=2)["version"]
    environment.leave()

    options = {**one_vps_place.options, "shared_dir": str(environment.shared)}
    seen = converge("haku_vps", **options, version=first)
    assert seen.first["sync"]["action"] == "load"
    assert seen.first["vps"]["version"] == first
    assert converge("haku_vps", **options).first["sync"] is None
    assert f"version (asked: {second}; there: {first})" in one_vps_place.fail(**options, version=second)
    assert one_vps_place.ssh(seen.first["vps"], "ls /second || true") == ""
    new = converge("haku_vps", **options, version=second, recreate=True).first["vps"]
    assert one_vps_place.ssh(new, "ls /second") == "/second\n"


# Failures


def test_an_image_without_an_ssh_server_is_an_error_that_names_the_role(vps_place: Place) -> None:
    vps_place.engine.docker("tag", images.provide(images.BUSYBOX, vps_place.engine), vps_place.image)
    message = vps_place.fail()
    assert "its image has no SSH server" in message
    assert "role haku.river.sshd" in message
    assert vps_place.containers == []


def test_a_server_that_does_not_start_is_an_error_with_its_last_words_and_leaves_nothing(vps_place: Place) -> None:
    _change_image(vps_place, "echo Nonsense yes >> /etc/ssh/sshd_config")
    message = vps_place.fail()
    assert "does not keep running: its SSH server ended with exit code 255 and last wrote: " in message
    assert "Bad configuration option: Nonsense" in message
    assert vps_place.containers == []


def test_a_server_that_is_not_there_is_told_from_one_that_fails(one_vps_place: Place) -> None:
    _change_image(one_vps_place, "rm /usr/sbin/sshd")
    message = one_vps_place.fail()
    assert "exit code 127" in message
    assert "role haku.river.sshd" in message


def test_a_recreation_that_fails_brings_the_former_machine_back(vps_place: Place) -> None:
    machine = vps_place.have()["vps"]
    vps_place.ssh(machine, "touch /root/file")
    _change_image(vps_place, "echo Nonsense yes >> /etc/ssh/sshd_config")
    assert "Bad configuration option" in vps_place.fail(env={"A": "b"}, recreate=True)
    assert vps_place.containers == [vps_place.container]
    assert vps_place.ssh(machine, "ls /root") == "file\n"
    assert succeed("haku_vps", **vps_place.bare_options)["vps"] == machine


def test_one_that_never_started_is_made_anew(one_vps_place: Place) -> None:
    labels = ["--label", "haku.river.managed=true", "--label", f"haku.river.vps={one_vps_place.vps}"]
    one_vps_place.engine.docker("create", "--name", one_vps_place.container, *labels, one_vps_place.image)
    machine = converge("haku_vps", **one_vps_place.options).first["vps"]
    assert one_vps_place.ssh(machine, "hostname").strip() == one_vps_place.vps


@ONE_PODMAN_SHOWS_IT
def test_a_recreation_that_was_killed_is_undone_by_the_next_run(one_vps_place: Place) -> None:
    machine = one_vps_place.have()["vps"]
    _change_image(one_vps_place, "printf 'sleep 60\\n' > /usr/sbin/sshd")
    former = f"{one_vps_place.container}.FORMER"
    with start_module("haku_vps", **one_vps_place.options, env={"A": "b"}, recreate=True) as process:
        wait_until(lambda: len(one_vps_place.containers) == 2, "the re-creation")
        process.send_signal(signal.SIGKILL)
    one_vps_place.engine.docker("rm", "--force", one_vps_place.container)
    assert one_vps_place.containers == [former]
    seen = converge("haku_vps", **one_vps_place.options)
    assert f"put back container {one_vps_place.container}" in seen.first["actions"][0]
    assert seen.first["vps"] == machine
    assert one_vps_place.ssh(machine, "true") == ""


def test_what_a_killed_recreation_left_beside_the_new_machine_is_told_with_both_ways_on(one_vps_place: Place) -> None:
    place, former = one_vps_place, f"{one_vps_place.container}.FORMER"
    machine = place.have()["vps"]
    place.engine.docker("rename", place.container, former)
    place.engine.docker("stop", former)
    labels = ("--label", "haku.river.managed=true", "--label", f"haku.river.vps={place.vps}")
    place.engine.docker("run", "--detach", "--name", place.container, *labels, place.image, "sleep", "infinity")
    warnings = str(succeed("haku_vps", **place.bare_options, state="stopped", stop_timeout=1)["warnings"])
    assert f"docker rm --force {former}." in warnings
    assert f"docker rm --force {place.container}; the next run" in warnings
    place.engine.docker("rm", "--force", place.container)
    assert place.have()["vps"] == machine
    assert place.containers == [place.container]


def test_a_port_is_waited_for_as_long_as_is_asked(one_vps_place: Place) -> None:
    engine = connect(EngineSettings(docker_host=one_vps_place.engine.url))
    with choosing(engine, 60):
        message = one_vps_place.fail(lock_timeout=1)
    assert "Choosing a port is under way already" in message
    assert "lock_timeout (1 s) has passed" in message
    assert one_vps_place.containers == []


def test_a_container_that_is_no_vps_is_not_touched(one_vps_place: Place) -> None:
    one_vps_place.engine.docker("create", "--name", one_vps_place.container, one_vps_place.image)
    for state in ("present", "absent", "stopped"):
        assert "is not a VPS of haku.river" in one_vps_place.fail(state=state)
    assert one_vps_place.containers == [one_vps_place.container]


@pytest.mark.parametrize("vps", ["../x", "a b", "A", "x;rm -rf", "", "-a", "a-", "a_b", "a.b", "a" * 64, "a\n"])
def test_a_name_that_is_no_host_name_is_refused_with_the_rule(engines: dict[str, Engine], vps: str) -> None:
    message = fail("haku_vps", vps=vps, name="env", authorized_keys=["x"], docker_host=engines["d28"].url)
    assert "cannot be the name of a VPS: it is made of lower-case letters, digits and hyphens" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"authorized_keys": None}, "nobody could log in to a new one"),
        ({"authorized_keys": ["nonsense"]}, "Line 1 of authorized_keys is not a public key"),
        ({"key_file": "a.pub"}, "key_file is a file on the controller, where the action plugin"),
        ({"name": None}, "no environment to create it from"),
        ({"name": "../x"}, "cannot be the name of an environment"),
        ({"name": "nowhere"}, "There is no image hakuriver/nowhere:base on this machine"),
        ({"network": "host"}, "publishes no port"),
        ({"network": "container:x"}, "publishes no port"),
        (
            {"volumes": ["/home/alice:/root"]},
            "/home/alice at /root, where a VPS has its own /root/.ssh/authorized_keys",
        ),
        ({"port": 0}, "port '0' means no port"),
        ({"port_range": "2-1"}, "port_range '2-1' means no port"),
        ({"address": "everywhere"}, "is not an IP address"),
        ({"version": 1}, "version needs a place to take it from"),
        ({"keep_snapshots": -1}, "is not a number of snapshots"),
        ({"state": "snapshot", "keep_snapshots": 0}, "would remove the snapshot"),
    ],
)
def test_what_cannot_be_is_refused_in_check_mode_too(one_vps_place: Place, options: dict[str, Any], words: str) -> None:
    for check in (True, False):
        assert words in one_vps_place.fail(check=check, **options)
    assert one_vps_place.containers == []


def _change_image(place: Place, command: str) -> None:
    """Have the environment's image be what it is after a shell command."""
    name = f"{place.container}-image"
    place.engine.docker("run", "--name", name, "--network", "none", place.image, "sh", "-c", command)
    place.engine.docker("commit", name, place.image)
    place.engine.docker("rm", name)
