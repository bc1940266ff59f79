"""A machine's first minutes: real user data applied by real cloud-init, reached over real OpenSSH."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docker import agents
from tests.docker.machines import BOOT, CLOCK, Booted, Machines, until
from vmrun.bundle.pack import Item, pack
from vmrun.core.errors import Unreachable
from vmrun.machine import commands, layout, units
from vmrun.transport.keys import known_hosts_line, new_key_pair, same_key, write_private_key
from vmrun.transport.ssh import HostKeyMismatch, Login, LoginRefused, SshHost, SshLimits, open_shell_argv


def out(booted: Booted, *argv: str) -> str:
    return commands.succeeded(booted.host.run(argv), argv[0]).stdout.decode()


def root(booted: Booted, *argv: str) -> str:
    return out(booted, "sudo", "-n", *argv)


def through(booted: Booted) -> commands.Boot:
    """How cloud-init ended."""
    return commands.read_boot(booted.host.run(commands.wait_boot(BOOT), timeout=BOOT + 30.0))


# --- user data ---


def test_boots_like_a_rented_machine(machines: Machines) -> None:
    booted = machines.boot(lifetime=600.0)

    # cloud-init went through all of its stages with our user data, and found nothing wrong in it.
    boot = through(booted)
    assert (boot.finished, boot.disabled, boot.errors) == (True, False, ())
    assert "status: done" in out(booted, "cloud-init", "status", "--wait")
    assert root(booted, "cat", "/var/lib/cloud/instance/user-data.txt") == booted.plan.spec.user_data
    assert root(booted, "cat", "/var/lib/cloud/data/instance-id").strip() == booted.plan.spec.vm
    assert "WARNING" not in root(booted, "cat", "/var/log/cloud-init.log")
    # systemd is up, and no unit failed.
    until(lambda: booted.host.run(["systemctl", "is-system-running"]).stdout == b"running\n", BOOT, "all units are up")
    # The timer is armed, for the deadline that was asked for.
    timer = commands.read_timer(booted.host.run(commands.timer()))
    assert timer.fault(booted.plan.spec.hard_deadline) == ""
    assert timer.hard_deadline == booted.plan.spec.hard_deadline
    assert timer.lease is not None
    # The first lease is as long as the grace, counted from a moment of this boot.
    assert int(booted.instance.created_at) <= timer.lease - 300 <= timer.now
    assert timer.fault(booted.plan.spec.hard_deadline - 1) != ""


def test_facts_are_those_of_the_machine(machines: Machines) -> None:
    booted = machines.boot()
    facts = commands.read_facts(booted.host.run(commands.facts()))
    assert facts.python.startswith("3.11.")
    assert facts.arch == booted.plan.spec.offer.arch
    assert facts.disk_free > 100 << 20
    assert facts.hostname == booted.name[:63]
    assert len(facts.boot_id) == 36
    assert facts.uid == 1000


def test_users_are_the_two_that_are_needed(machines: Machines) -> None:
    booted = machines.boot()
    assert out(booted, "id", "-un") == "vmrun\n"
    assert root(booted, "id", "-u") == "0\n"
    assert out(booted, "getent", "passwd", layout.JOB_USER).strip().endswith("/usr/sbin/nologin")
    # Neither can log in with a password, and the job's user may nothing.
    for user in (layout.LOGIN_USER, layout.JOB_USER):
        assert root(booted, "passwd", "--status", user).split()[1] == "L"
    asked = booted.host.run(["sudo", "-n", "-u", layout.JOB_USER, "sudo", "-n", "true"])
    assert asked.exit_code != 0
    # What it may not read or change.
    for path in (layout.LEASE, layout.HARD_DEADLINE, layout.DEADMAN_SCRIPT, layout.AGENTS, layout.STATE):
        assert booted.host.run(["sudo", "-n", "-u", layout.JOB_USER, "test", "-w", path]).exit_code == 1, path
    assert booted.host.run(["sudo", "-n", "-u", layout.JOB_USER, "test", "-x", layout.AGENTS]).exit_code == 0


def test_ssh_server_lets_in_one_user_by_key_only(machines: Machines) -> None:
    booted = machines.boot()
    settings = root(booted, "sshd", "-T").splitlines()
    for line in (
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "allowusers vmrun",
        "allowagentforwarding no",
        "x11forwarding no",
    ):
        assert line in settings
    assert out(booted, "cat", "/home/vmrun/.ssh/authorized_keys").strip().endswith(booted.plan.client.public)
    # The user data's host key is the only one.
    assert out(booted, "sh", "-c", "ls /etc/ssh/ssh_host_*").split() == [layout.HOST_KEY, f"{layout.HOST_KEY}.pub"]
    assert same_key(out(booted, *commands.host_key()), booted.plan.host.public)


def test_the_ssh_server_is_not_started_anew_once_it_answers(machines: Machines) -> None:
    """A second start, when cloud-init has set passwords aside, would turn connections away that come just then."""
    booted = machines.boot()
    assert through(booted).finished
    ran = root(booted, "cat", "/var/log/cloud-init.log")
    assert "set-passwords" in ran or "set_passwords" in ran
    log = root(booted, "journalctl", "--unit", "ssh.service", "--output", "cat").splitlines()
    assert len([line for line in log if line.startswith("Started ")]) == 1, log


def test_user_data_satisfies_the_schema_of_cloud_init(machines: Machines) -> None:
    booted = machines.boot(self_delete="#!/bin/sh\nexit 0\n")
    assert "Valid" in root(booted, "cloud-init", "schema", "--system")
    # The checker does find what is wrong.
    wrong = booted.plan.spec.user_data.replace('"bootcmd": [', '"bootcmd": 7, "was": [', 1)
    booted.host.put("/run/vmrun/wrong.yaml", [wrong.encode()])
    assert booted.host.run(["sudo", "-n", "cloud-init", "schema", "-c", "/run/vmrun/wrong.yaml"]).exit_code != 0


def test_the_timer_is_armed_before_anything_else(machines: Machines) -> None:
    """Before the users exist, before the network's stage of cloud-init is through, before sshd."""
    booted = machines.boot()
    show = ["systemctl", "show", "--value", "--property"]

    def since(unit: str) -> int:
        return int(out(booted, *show, "ActiveEnterTimestampMonotonic", unit))

    assert 0 < since(layout.DEADMAN_TIMER) < since("cloud-init.service") < since("ssh.service")


def test_units_satisfy_the_manager(machines: Machines) -> None:
    booted = machines.boot(boot_grace=300.0)
    sha256, content = agents.archive()
    agents.push(booted, sha256, content)
    booted.host.put("/etc/systemd/system/vmrun-agent.service", [units.agent_service(sha256).encode()], mode=0o644)
    for unit in (layout.DEADMAN_TIMER, layout.DEADMAN_SERVICE, layout.AGENT_SERVICE):
        done = booted.host.run(["systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{unit}"])
        assert (done.exit_code, done.stdout, done.stderr) == (0, b"", b""), unit


def test_a_second_boot_neither_extends_the_lease_nor_disarms_the_timer(machines: Machines) -> None:
    """What cloud-init does at every boot is done again, as after a restart."""
    booted = machines.boot()
    before = commands.read_timer(booted.host.run(commands.timer()))
    until(lambda: CLOCK.now() > before.now + 2, 10, "a moment has passed")
    root(booted, "cloud-init", "single", "--name", "bootcmd", "--frequency", "always")
    after = commands.read_timer(booted.host.run(commands.timer()))
    assert after.now > before.now
    assert (after.lease, after.hard_deadline) == (before.lease, before.hard_deadline)
    assert after.fault(booted.plan.spec.hard_deadline) == ""


# --- SSH ---


def test_another_machine_at_the_address_is_refused(machines: Machines) -> None:
    """Two machines, their addresses mixed up: nothing is sent to the wrong one, not even a login."""
    right, wrong = machines.boot(), machines.boot()
    mixed_up = machines.reach(right.plan, wrong.instance)
    start = time.monotonic()
    with pytest.raises(HostKeyMismatch):
        mixed_up.connect(timeout=BOOT)
    assert time.monotonic() - start < BOOT / 2, "another key is no reason to wait for a boot"
    with pytest.raises(HostKeyMismatch):
        mixed_up.run(["true"])

    def log() -> str:
        return root(wrong, "journalctl", "--unit", "ssh.service", "--output", "cat")

    # Its log hears of a login a moment after it was; of what came before this one it has heard then.
    machines.reach(wrong.plan, wrong.instance).connect(timeout=BOOT)
    until(lambda: log().count("Accepted publickey") >= 2, 30, "the server has logged the last login")
    assert log().count("Accepted publickey") == 2  # ours, with the right key


def test_a_key_that_does_not_belong_is_not_let_in(machines: Machines) -> None:
    booted = machines.boot()
    assert booted.instance.address is not None
    stranger = Login(booted.instance.address, new_key_pair().private, (booted.plan.host.public,))
    host = SshHost(stranger, CLOCK, limits=SshLimits(boot=1.0))
    with pytest.raises(LoginRefused):
        host.connect(timeout=BOOT)
    rootly = Login(replace(booted.instance.address, user="root"), booted.plan.client.private, stranger.host_keys)
    with pytest.raises(LoginRefused):
        SshHost(rootly, CLOCK, limits=SshLimits(boot=1.0)).connect(timeout=BOOT)


def test_commands_are_not_interpreted(machines: Machines) -> None:
    booted = machines.boot()
    words = ["", "a b", "'", '"', "$HOME", "`id`", "$(id)", "; reboot", "new\nline", "*", "\\", "ä€😀", "-n", "&&"]
    done = booted.host.run(["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words])
    assert json.loads(done.stdout) == words


def test_output_input_and_exit_codes_come_through(machines: Machines) -> None:
    booted = machines.boot()
    data = os.urandom(5_000_000)
    done = booted.host.run(["sh", "-c", "tee /dev/stderr; exit 7"], input=data)
    assert (done.exit_code, done.stdout, done.stderr) == (7, data, data)
    assert booted.host.run(["sh", "-c", "kill -9 $$"]).exit_code == -1
    assert booted.host.run(["no-such-program"]).exit_code == 127


def test_a_command_on_an_open_connection_is_a_matter_of_milliseconds(machines: Machines) -> None:
    booted = machines.boot()
    durations = [1.0]
    # Each of them would take 0.04 s more; how long most take depends on what else this computer does.
    while min(durations) >= 0.03 and len(durations) < 1000:
        start = time.perf_counter()
        booted.host.run(["true"])
        durations.append(time.perf_counter() - start)
    print(sorted(durations))
    assert min(durations) < 0.03, "packets wait for acknowledgements: is TCP_NODELAY set?"


def test_put_writes_what_only_root_may_write(machines: Machines) -> None:
    booted = machines.boot()
    secret = b'{"token": "1234"}'
    booted.host.put(layout.SECRETS, [secret[:5], b"", secret[5:]])
    assert root(booted, "cat", layout.SECRETS).encode() == secret
    assert root(booted, "stat", "--format=%a %U %F", layout.SECRETS) == "600 root regular file\n"
    assert root(booted, "stat", "--format=%a %U", os.path.dirname(layout.SECRETS)) == "700 root\n"
    assert root(booted, "stat", "--file-system", "--format=%T", layout.SECRETS) == "tmpfs\n"
    # Another version takes its place whole; nothing is left beside it.
    booted.host.put(layout.SECRETS, iter([b"new"]), mode=0o640)
    assert root(booted, "cat", layout.SECRETS) == "new"
    # The dead-man timer notes there what it saw of the lease.
    assert set(root(booted, "ls", os.path.dirname(layout.SECRETS)).split()) - {"deadman"} == {"secrets.json"}


def test_put_takes_large_files(machines: Machines) -> None:
    booted = machines.boot()
    block = os.urandom(1 << 20)
    digest = hashlib.sha256(block * 40).hexdigest()
    start = time.perf_counter()
    booted.host.put("/var/lib/vmrun/incoming/large", (block for _ in range(40)))
    print(f"40 MiB in {time.perf_counter() - start:.2f} s")
    assert root(booted, "sha256sum", "/var/lib/vmrun/incoming/large").split()[0] == digest


def test_an_upload_that_breaks_off_leaves_nothing(machines: Machines) -> None:
    booted = machines.boot()
    booted.host.put(layout.AGENT_CONFIG, [b"old"])

    def breaking():
        yield b"x" * 100_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        booted.host.put(layout.AGENT_CONFIG, breaking())

    def leftover() -> bool:
        return ".part" in root(booted, "ls", layout.STATE)

    until(lambda: not leftover(), 60, "the temporary file is gone")
    assert root(booted, "cat", layout.AGENT_CONFIG) == "old"


def test_an_upload_to_where_nothing_can_be_written_says_why(machines: Machines) -> None:
    booted = machines.boot()
    with pytest.raises(Unreachable) as caught:
        booted.host.put("/proc/version/file", (b"x" * 100_000 for _ in range(100)))
    assert "/proc/version" in caught.value.message


def test_the_host_key_is_replaced_in_the_first_session(machines: Machines) -> None:
    booted = machines.boot()
    following = commands.read_host_key(booted.host.run(commands.prepare_host_key()))
    assert commands.read_host_key(booted.host.run(commands.prepare_host_key())) == following
    assert not same_key(following, booted.plan.host.public)
    # Until it is activated the first one holds.
    machines.reach(booted.plan, booted.instance).connect(timeout=BOOT)

    activated = commands.read_host_key(booted.host.run(commands.activate_host_key()))

    assert activated == following
    # The session that did it goes on, and the same again changes nothing.
    assert commands.read_host_key(booted.host.run(commands.activate_host_key())) == following
    assert same_key(out(booted, *commands.host_key()), following)
    renewed = machines.reach(booted.plan, booted.instance, following)
    renewed.connect(timeout=BOOT)
    # Who missed the reply knows both keys; who knows the old one alone is refused.
    machines.reach(booted.plan, booted.instance, booted.plan.host.public, following).connect(timeout=BOOT)
    with pytest.raises(HostKeyMismatch):
        machines.reach(booted.plan, booted.instance).connect(timeout=BOOT)
    assert "PRIVATE" in root(booted, "cat", layout.HOST_KEY)
    assert root(booted, "stat", "--format=%a", layout.HOST_KEY) == "600\n"


def test_a_person_gets_in_with_the_openssh_client(machines: Machines, tmp_path: Path) -> None:
    booted = machines.boot()
    address = booted.instance.address
    assert address is not None
    folder = tmp_path / "with a space"
    write_private_key(folder / "key", booted.plan.client.private)
    (folder / "known").write_text(known_hosts_line(address, booted.plan.host.public))
    argv = open_shell_argv(address, folder / "key", folder / "known")

    def answered() -> subprocess.CompletedProcess[bytes] | None:
        # At the end of its boot the machine may start its server anew, and one that is busy may not greet in time.
        again = subprocess.run([*argv, "id", "-un"], capture_output=True, timeout=BOOT, check=False)
        return None if b"Connection refused" in again.stderr or b"timed out" in again.stderr else again

    done = until(answered, BOOT, "the server answers")
    assert (done.returncode, done.stdout) == (0, b"vmrun\n"), done.stderr

    (folder / "known").write_text(known_hosts_line(address, new_key_pair().public))
    done = until(answered, BOOT, "the server answers")
    assert done.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_a_machine_that_vanished_is_unreachable(machines: Machines) -> None:
    booted = machines.boot()
    machines.provisioner.delete(booted.instance.id)
    host = machines.reach(booted.plan, booted.instance, limits=SshLimits(dial=1.0, reconnect=3.0))
    start = time.monotonic()
    with pytest.raises(Unreachable):
        host.run(["true"])
    assert time.monotonic() - start < 30


# --- the agent ---


def test_an_agent_is_pushed_once(machines: Machines) -> None:
    booted = machines.boot()
    sha256, content = agents.archive()
    assert booted.host.run(commands.has_agent(sha256)).exit_code == 1

    agents.push(booted, sha256, content)

    assert booted.host.run(commands.has_agent(sha256)).exit_code == 0
    directory = layout.agent_directory(sha256)
    assert sorted(root(booted, "find", directory, "-type", "f", "-printf", "%P %m %u\n").splitlines()) == [
        "app/agent.py 644 root",
        "lib/dependency.py 644 root",
        "main.py 644 root",
    ]
    # The reply was lost: the same again is fine, with or without the archive.
    again = commands.succeeded(booted.host.run(commands.install_agent(sha256)), "install again")
    assert json.loads(again.stdout) == {"installed": False}
    # Users' code may read it, and not write it.
    assert booted.host.run(["sudo", "-n", "-u", layout.JOB_USER, "cat", f"{directory}/main.py"]).exit_code == 0
    assert root(booted, "ls", layout.INCOMING) == ""


def test_an_altered_agent_is_refused(machines: Machines) -> None:
    booted = machines.boot()
    sha256, content = agents.archive()
    booted.host.put(layout.agent_archive(sha256), [content[:-1] + b"x"])
    done = booted.host.run(commands.install_agent(sha256))
    assert done.exit_code != 0
    assert b"SHA-256" in done.stderr
    assert booted.host.run(commands.has_agent(sha256)).exit_code == 1


def test_an_agent_that_is_killed_comes_back_and_one_that_is_done_does_not(machines: Machines) -> None:
    booted = machines.boot()
    agents.start(booted, '{"place": "/var/lib/vmrun/work"}')

    def pids() -> list[str]:
        return booted.host.run(["cat", "/var/lib/vmrun/work/started"]).stdout.decode().split()

    first = until(pids, 20, "the agent has started")
    # Starting it again leaves it alone.
    same = units.agent_service(agents.archive()[0]).encode()
    done = commands.succeeded(booted.host.run(commands.start_agent(), input=same), "start")
    assert json.loads(done.stdout) == {"changed": False, "state": "active"}
    assert pids() == first

    root(booted, "kill", "-KILL", first[0])
    until(lambda: len(pids()) == 2, 20, "the agent has started again")

    root(booted, "touch", "/var/lib/vmrun/work/end")
    state = commands.agent_state()
    until(lambda: booted.host.run(state).stdout == b"inactive\n", 20, "the agent is done")
    done_at = CLOCK.now()
    until(lambda: CLOCK.now() > done_at + 3, 20, "more than a restart's pause has passed")
    assert booted.host.run(state).stdout == b"inactive\n"
    assert len(pids()) == 2
    # Its words are in the journal.
    tail = commands.succeeded(booted.host.run(commands.journal_tail(100)), "read the journal").stdout.decode()
    assert "vmrun-agent.service" in tail


def test_code_that_takes_all_memory_dies_alone(machines: Machines) -> None:
    booted = machines.boot()
    agents.start(booted, '{"place": "/var/lib/vmrun/work"}')
    started = ["cat", "/var/lib/vmrun/work/started"]
    before = until(lambda: booted.host.run(started).stdout, 20, "the agent has started")
    greedy = ["sudo", "-n", "-u", layout.JOB_USER, "python3", "-c", "import os; x = os.urandom(1 << 20) * 4096"]
    assert booted.host.run(greedy).exit_code != 0
    assert booted.host.run(started).stdout == before
    assert booted.host.run(commands.agent_state()).stdout == b"active\n"
    assert commands.read_timer(booted.host.run(commands.timer())).fault(booted.plan.spec.hard_deadline) == ""


def test_a_new_agent_takes_the_place_of_the_old(machines: Machines) -> None:
    booted = machines.boot()
    old = agents.start(booted, '{"place": "/var/lib/vmrun/work"}')
    sha256, content = agents.archive(**{"app/more.py": "# newer\n"})
    agents.push(booted, sha256, content)
    unit = units.agent_service(sha256).encode()
    done = commands.succeeded(booted.host.run(commands.start_agent(), input=unit), "start")
    assert json.loads(done.stdout) == {"changed": True, "state": "active"}
    running = out(booted, "systemctl", "show", "--property=ExecStart", layout.AGENT_SERVICE)
    assert sha256 in running
    assert old not in running
    assert (
        root(booted, "cat", "/var/lib/vmrun/work/flushed").split()
        == root(booted, "head", "-n1", "/var/lib/vmrun/work/started").split()
    )
    commands.succeeded(booted.host.run(commands.stop_agent()), "stop")
    commands.succeeded(booted.host.run(commands.stop_agent()), "stop again")


def test_uv_is_installed_where_jobs_can_run_it(machines: Machines) -> None:
    booted = machines.boot()
    program = pack([Item("uv", b"#!/bin/sh\necho uv 1.2.3\n", executable=True)])
    sha256, content = program.sha256, program.data
    assert booted.host.run(commands.has_uv(sha256)).exit_code == 1
    booted.host.put(layout.uv_incoming(sha256), [content])
    commands.succeeded(booted.host.run(commands.install_uv(sha256)), "install uv")
    assert booted.host.run(commands.has_uv(sha256)).exit_code == 0
    assert out(booted, "sudo", "-n", "-u", layout.JOB_USER, layout.uv_path(sha256)) == "uv 1.2.3\n"
