"""Jobs on hosts that somebody has: nothing of them is left, they stay up, and two clients never share one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.machines import Machines
from tests.docker.own_hosts import OwnHosts, append, is_clean
from tests.support.s3 import S3Server
from tests.support.shell import Shell, until
from vmrun.provisioners.docker.driver import DockerProvisioner
from vmrun.transport.keys import new_key_pair

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

QUICK = "import vmrun\n\n@vmrun.job(over=range(20))\ndef f(x):\n    return x * x\n"
SLOW = """
    import time
    import vmrun

    @vmrun.job(over=range(400))
    def f(x):
        time.sleep(0.2)
        return x
"""
#: So long that nobody sees its end.
ENDLESS = SLOW.replace("range(400)", "range(40_000)")
BAD = """
    import os
    import vmrun

    @vmrun.job(over=range(2))
    def f(x):
        if x == 1 and not os.environ.get("MENDED"):
            raise ValueError(f"no {x}")
        return x
"""
#: What a person might leave behind, on purpose or not.
UNTIDY = """
    import os, subprocess, tempfile

    open("/tmp/left-by-a-task", "w").close()
    os.makedirs("/var/tmp/left/deep", exist_ok=True)
    open("/dev/shm/left", "w").close()
    subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done"])
    subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, check=True)
    print(os.getuid())
"""


#: How long a host waits for its agent where the client is killed at a stage: as short as it can be for a client to get
#: so far on a busy computer; and what is said on the host then. Not all stages are shown that pass quickly.
STAGES = {"borrowed": ("15s", ("id", "vmrun")), "starting the agent": ("60s", ("ls", "/var/lib/vmrun/agent.key"))}


@pytest.fixture
def own(machines: Machines, tmp_path: Path) -> OwnHosts:
    return OwnHosts(machines, tmp_path / "own")


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner, bridge_s3: S3Server) -> Iterator[Shell]:
    shell = Shell(isolated)
    bridge_s3.configure(shell)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def test_a_job_runs_on_a_host_of_mine_and_nothing_of_it_is_left(own: OwnHosts, shell: Shell) -> None:
    host = own.boot()
    append(shell, own.table(host))
    before, booted = host.inventory(), host.boot_id()

    job = shell.ask("submit", "--on", "ssh", shell.write("quick.py", QUICK).name)["job"]["id"]

    assert shell.ask("result", job)["results"] == [x * x for x in range(20)]
    until(lambda: is_clean(host), 60, "it is cleaned")
    done = shell.run("submit", "--on", "ssh", shell.write("untidy.py", UNTIDY).name, timeout=200)
    assert done.stdout.strip().isdigit()
    assert done.stdout.strip() != "0"
    until(lambda: is_clean(host), 60, "it is cleaned again")
    host.assert_as(before)
    assert host.boot_id() == booted
    assert "owner" in own.ssh(host, "whoami")
    assert shell.ask("status")["vms"] == []


def test_a_host_of_mine_is_held_entered_and_given_back_clean(own: OwnHosts, shell: Shell) -> None:
    host = own.boot()
    append(shell, own.table(host))
    before = host.inventory()
    shell.write("bad job.py", BAD)
    shell.run(
        "submit", "--on", "ssh", "--keep-on-failure", "10m", "--env", "TOLD=it's a \"$word\"", "bad job.py",
        exit_code=6, timeout=300,
    )  # fmt: skip
    job = shell.ask("status")["jobs"][0]["id"]
    until(lambda: [vm["state"] for vm in shell.ask("status")["vms"]] == ["held"], 60, "it is held")
    until(lambda: "run one again" in shell.run("ssh", job, "--", "cat ../welcome.txt").stdout, 60, "it is laid out")
    user, told, file, sudo = shell.run(
        "ssh", job, "--", 'id -un; echo "$TOLD"; ls *.py; sudo -n true 2>/dev/null; echo $?'
    ).stdout.splitlines()
    assert user not in ("root", "owner"), "a task has no rights of the owner's, and neither has who looks at it"
    assert (told, file, sudo) == ('it\'s a "$word"', "bad job.py", "1")
    # Several words stay what they are on the way through the shell over there
    assert shell.run("ssh", job, "--", "printf", "<%s>", "it's", 'a "b" $c').stdout == '<it\'s><a "b" $c>'
    assert shell.run("ssh", job, "--", "MENDED=1 vmrun-again 1").stdout == "task 1 returned 1\n"
    assert own.ssh(host, "whoami").strip() == "owner"
    assert shell.ask("release", job)["gone"] is True
    until(lambda: is_clean(host), 60, "it is cleaned")
    host.assert_as(before)


def test_of_three_machines_two_are_to_be_had_and_they_share_the_job(own: OwnHosts, shell: Shell) -> None:
    hosts = own.boot(), own.boot()
    append(shell, own.table(*hosts))
    shell.write("slow.py", SLOW)
    done = shell.run("submit", "--on", "ssh", "--vms", "3", "slow.py", timeout=400)
    assert "only 2 of 3 machines were to be had: no machine was to be had on ssh: stockout" in done.stderr
    (job,) = shell.ask("status")["jobs"]
    assert shell.ask("result", job["id"])["results"] == list(range(400))
    found = shell.ask("status", job["id"])["job"]
    assert (found["vms_asked"], len(found["vms"])) == (3, 2)
    for host in hosts:
        until(lambda host=host: is_clean(host), 90, "it is cleaned")  # type: ignore[misc]


def test_of_two_clients_each_has_a_host_and_a_third_learns_who_has_them(own: OwnHosts, shell: Shell) -> None:
    # Given two hosts, a configuration that names both, and a second computer with the same deployment
    hosts = own.boot(), own.boot()
    append(shell, own.table(*hosts))
    shell.write("endless.py", ENDLESS)
    shell.write("quick.py", QUICK)
    shell.run("status")

    # When two clients want a host at the same time
    clients = [shell.start("submit", "--on", "ssh", "--name", name, "endless.py") for name in ("one", "two")]
    try:

        def both() -> list[dict[str, object]]:
            found = [vm for vm in shell.ask("status")["vms"] if vm["state"] == "ready"]
            return found if len(found) == 2 else []

        # Then each has one of its own
        found = until(both, 240, "both are at work")
        assert len({vm["id"] for vm in found}) == 2
        markers = [host.inside("cat", "/var/lib/vmrun/borrowed.json") for host in hosts]
        assert sorted(vm["id"] in "".join(markers) for vm in found) == [True, True]
        # And a third one is told who has them, and until when
        refused = shell.ask("submit", "--on", "ssh", "quick.py", exit_code=4)["error"]
        assert refused["code"] == "capacity"
        for vm in found:
            assert f"-{vm['id']} until 20" in refused["hint"]
        assert [row["fault"] for row in refused["tried"]] == ["stockout", "stockout"]
        for job in shell.ask("status")["jobs"]:
            shell.run("cancel", job["id"])
    finally:
        for client in clients:
            client.communicate(timeout=240)
    for host in hosts:
        until(lambda host=host: is_clean(host), 90, "it is cleaned")  # type: ignore[misc]
    # And now it may have one
    assert shell.run("submit", "--on", "ssh", "quick.py", timeout=200).returncode == 0


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_client_is_killed_and_the_host_cleans_itself_and_can_be_leased_again(
    own: OwnHosts, shell: Shell, stage: str
) -> None:
    host = own.boot()
    grace, told = STAGES[stage]
    times = f'boot_grace = "{grace}"\nheartbeat = "1s"\nlease = "10s"\ndeadman_poll = "1s"\nflush_grace = "2s"'
    append(shell, own.table(host, more=times))
    shell.write("quick.py", QUICK)
    shell.write("slow.py", SLOW.replace("range(400)", "range(40)"))
    shell.run("status")
    before, booted = host.inventory(), host.boot_id()
    client = shell.start("submit", "--on", "ssh", "slow.py")
    until(lambda: client.poll() is not None or host.inside(*told), 120, "it has come so far")
    assert client.poll() is None, client.communicate()
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()

    until(lambda: is_clean(host), 180, "the host cleaned itself")
    host.assert_as(before)
    assert host.boot_id() == booted
    # The journal of the lease still says that the VM has it; the host says otherwise.
    configuration = shell.home / "vmrun.toml"
    configuration.write_text(configuration.read_text().replace(times, ""))
    assert shell.ask("submit", "--on", "ssh", "quick.py")["job"]["state"] == "done"
    until(lambda: is_clean(host), 60, "it is cleaned again")


def test_what_a_dead_client_left_is_cleaned_by_the_reaper_too(own: OwnHosts, shell: Shell) -> None:
    host = own.boot()
    append(shell, own.table(host))
    shell.write("quick.py", QUICK)
    shell.run("status")
    before, booted = host.inventory(), host.boot_id()
    # Killed before the journal says that the host was borrowed: only the host itself, and its lease, tell.
    client = shell.start("submit", "--on", "ssh", "quick.py")
    until(lambda: "vmrun" in host.inside("cat", "/var/lib/vmrun/borrowed.json"), 60, "it is borrowed")
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()

    verdicts = shell.ask("reap", "--all", "--yes")["verdicts"]

    assert [(row["on"], row["delete"]) for row in verdicts] == [("ssh", True)], verdicts
    assert is_clean(host)
    host.assert_as(before)
    assert host.boot_id() == booted
    assert shell.ask("submit", "--on", "ssh", "quick.py")["job"]["state"] == "done"


def test_a_host_that_is_another_or_unknown_is_refused_before_anything_is_sent(own: OwnHosts, shell: Shell) -> None:
    host = own.boot()
    append(shell, own.table(host))
    shell.write("quick.py", QUICK)
    before = host.inventory()
    for known, said in ((new_key_pair().public, "presents another host key"), ("", "is not in known_hosts")):
        own.known_hosts.write_text("")
        if known:
            own.trust(host.address, known)
        error = shell.ask("submit", "--on", "ssh", "quick.py", exit_code=2)["error"]
        assert f"{host.name} {said}" in error["message"]
        assert "known_hosts" in error["hint"]
    own.known_hosts.write_text("")
    own.trust(host.address, host.host_key)
    host.assert_as(before)


def test_a_host_whose_owner_may_not_use_sudo_is_refused(own: OwnHosts, shell: Shell) -> None:
    host = own.boot(sudo="")
    append(shell, own.table(host))
    error = shell.ask("submit", "--on", "ssh", shell.write("quick.py", QUICK).name, exit_code=2)["error"]
    assert f"{host.name} does not let its user become root without a password" in error["message"]
    assert "NOPASSWD" in error["hint"]


def test_what_the_owner_has_under_our_names_is_left_alone(own: OwnHosts, shell: Shell) -> None:
    host = own.boot()
    host.inside("sh", "-c", "mkdir /opt/vmrun && echo precious > /opt/vmrun/mine")
    append(shell, own.table(host))
    before = host.inventory()
    error = shell.ask("submit", "--on", "ssh", shell.write("quick.py", QUICK).name, exit_code=4)["error"]
    assert "/opt/vmrun is there" in error["hint"]
    assert host.inside("cat", "/opt/vmrun/mine") == "precious\n"
    host.assert_as(before)


def test_a_timer_that_is_judging_while_its_host_is_cleaned_leaves_nothing_either(own: OwnHosts, shell: Shell) -> None:
    # Given a warm host whose timer takes long to judge, as it may where the computer is busy
    host = own.boot()
    append(shell, own.table(host))
    before = host.inventory()
    shell.run("submit", "--on", "ssh", "--keep-warm", "10m", shell.write("quick.py", QUICK).name, timeout=300)
    slow = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'sleep 300; exec /usr/local/sbin/vmrun-deadman'\n"
    folder = "/run/systemd/system/vmrun-deadman.service.d"
    host.inside(
        "sh", "-c", f'mkdir -p {folder}; printf %s "$1" > {folder}/slow.conf; systemctl daemon-reload', "sh", slow
    )
    until(
        lambda: "activating" in host.inside("systemctl", "is-active", "vmrun-deadman.service"), 120, "the timer judges"
    )

    # When the host is given back
    assert shell.ask("release", shell.ask("status")["vms"][0]["id"])["gone"] is True
    host.inside("sh", "-c", f"rm -r {folder}; systemctl daemon-reload")

    # Then what judged, and would now fail for want of its script, is gone with the rest
    until(lambda: is_clean(host), 60, "it is cleaned")
    host.assert_as(before)
