"""User data: its first action arms the timer; nothing in it is secret, random, or too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.unit.machine.stubs import Stubs
from vmrun.core.errors import UsageError
from vmrun.machine import layout, units
from vmrun.machine.user_data import MAX_BYTES, Seed, arm_script, user_data
from vmrun.transport.keys import new_key_pair

NOW = 1_800_000_000
HOST, CLIENT = new_key_pair("host"), new_key_pair("client")
SEED = Seed(
    hard_deadline=NOW + 3600.7,
    client_public_key=CLIENT.public,
    host_private_key=HOST.private,
    host_public_key=HOST.public,
    boot_grace=900.0,
)


def document(seed: Seed = SEED) -> dict:
    text = user_data(seed)
    head, _, body = text.partition("\n")
    assert head == "#cloud-config"
    assert yaml.safe_load(text) == json.loads(body)
    return json.loads(body)


def test_the_first_action_arms_the_timer() -> None:
    first, *_ = document()["bootcmd"]
    assert next(iter(document())) == "bootcmd"
    assert first == ["/bin/sh", "-c", arm_script(SEED)]


def test_users_keys_and_logins() -> None:
    found = document()
    login, job = found["users"]
    assert (login["name"], login["ssh_authorized_keys"], login["sudo"]) == (
        "vmrun",
        [CLIENT.public],
        "ALL=(ALL) NOPASSWD:ALL",
    )
    assert (job["name"], job["shell"]) == ("vmjob", "/usr/sbin/nologin")
    assert not {"sudo", "groups", "ssh_authorized_keys"} & set(job)
    assert all(user["lock_passwd"] for user in found["users"])
    assert (found["ssh_pwauth"], found["disable_root"], found["ssh_deletekeys"]) == (False, True, True)
    assert found["ssh_keys"] == {"ed25519_private": HOST.private, "ed25519_public": HOST.public + "\n"}


def test_packages_are_left_alone() -> None:
    found = document()
    assert [found[f"package_{what}"] for what in ("update", "upgrade", "reboot_if_required")] == [False] * 3
    assert "packages" not in found


def test_it_is_short_enough_for_every_cloud() -> None:
    assert len(user_data(SEED)) < MAX_BYTES / 2
    roomy = replace(SEED, self_delete="#!/bin/sh\n" + "# a line of a longer program\n" * 200)
    assert len(user_data(roomy)) < MAX_BYTES
    with pytest.raises(UsageError):
        user_data(replace(SEED, self_delete="#" * MAX_BYTES))


def test_equal_seeds_give_equal_bytes_in_any_process() -> None:
    program = (
        "import sys\nfrom vmrun.machine.user_data import Seed, user_data\n"
        "sys.stdout.write(user_data(Seed(hard_deadline=1.5, client_public_key='c', host_private_key='p',"
        " host_public_key='h')))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            timeout=120,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert user_data(SEED) == user_data(replace(SEED))
    assert user_data(SEED).isascii()


def test_the_host_key_is_its_only_secret() -> None:
    text = user_data(SEED)
    assert text.count("PRIVATE KEY") == 2  # where it begins and where it ends
    assert HOST.private.splitlines()[2] in text
    assert CLIENT.private.splitlines()[2] not in text
    assert HOST.private.splitlines()[2] not in repr(SEED)


# --- arming, as a machine does it, below a directory ---


class Root:
    """The file system of a machine, below a directory, and its manager."""

    def __init__(self, place: Path) -> None:
        self.place = place / "root"
        self.place.mkdir()
        self.stubs = Stubs(place)
        self.stubs.add("date", f"echo {NOW}")
        self.manager()

    def manager(self, text: str = "exit 0") -> None:
        """What the manager does; it notes first whether all files are there when the timer is started."""
        here = [self.path(path) for path in (*FILES, layout.LEASE, layout.HARD_DEADLINE)]
        check = " && ".join(f"[ -s {path} ]" for path in here)
        self.stubs.add("systemctl", f'{check} || echo "too early" >> {self.place}/early\n{text}')

    def path(self, path: str) -> Path:
        return self.place / path.lstrip("/")

    def boot(self, seed: Seed = SEED) -> None:
        script = arm_script(seed)
        for root in ("/var/lib/vmrun", "/etc/systemd", "/usr/local/sbin"):
            # The programs' own texts speak of the same paths; only the script's are meant.
            script = script.replace(f" {root}", f" {self.place}{root}")
        done = self.stubs.run(["/bin/sh", "-c", script])
        assert done.stderr == b""
        assert not (self.place / "early").exists(), "the timer was started before its files were there"


FILES = (layout.DEADMAN_SCRIPT, f"{layout.UNITS}/{layout.DEADMAN_SERVICE}", f"{layout.UNITS}/{layout.DEADMAN_TIMER}")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_arming_writes_the_files_and_starts_the_timer_without_waiting(root: Root) -> None:
    root.boot()
    assert root.path(layout.HARD_DEADLINE).read_text() == f"{NOW + 3600}\n"  # never later than asked
    assert root.path(layout.LEASE).read_text() == f"{NOW + 900}\n"
    assert root.path(layout.DEADMAN_SCRIPT).stat().st_mode & 0o777 == 0o755
    assert root.path(f"{layout.UNITS}/{layout.DEADMAN_TIMER}").read_text() == units.deadman_timer(poll=30)
    # Enabled, so that a reboot arms it even if cloud-init does not run again.
    link = root.path(f"{layout.UNITS}/sysinit.target.wants/{layout.DEADMAN_TIMER}")
    assert os.readlink(link).endswith(f"{layout.UNITS}/{layout.DEADMAN_TIMER}")
    assert root.stubs.calls() == ["date +%s", "systemctl start --no-block vmrun-deadman.timer"]
    assert not list(root.place.rglob("*.new"))


def test_a_reboot_does_not_extend_the_lease(root: Root) -> None:
    root.boot()
    root.stubs.add("date", f"echo {NOW + 600}")
    root.path(layout.HARD_DEADLINE).write_text("99999999999\n")
    root.boot()
    assert root.path(layout.LEASE).read_text() == f"{NOW + 900}\n"
    assert root.path(layout.HARD_DEADLINE).read_text() == f"{NOW + 3600}\n"


def test_a_reboot_does_not_renew_an_empty_lease(root: Root) -> None:
    """It is there, so it stays; the dead-man script ends a machine with such a lease."""
    root.boot()
    root.path(layout.LEASE).write_text("")
    root.stubs.add("systemctl")
    root.boot()
    assert root.path(layout.LEASE).read_text() == ""


def test_a_manager_that_does_not_know_the_timer_is_reloaded(root: Root) -> None:
    flag = root.place / "reloaded"
    root.manager(f"case $1 in daemon-reload) touch {flag} ;; start) [ -e {flag} ] ;; esac")
    root.boot()
    assert root.stubs.calls()[1:] == [
        "systemctl start --no-block vmrun-deadman.timer",
        "systemctl daemon-reload",
        "systemctl start --no-block vmrun-deadman.timer",
    ]


def test_a_machine_that_cannot_be_armed_is_powered_off(root: Root) -> None:
    root.manager("exit 1")
    root.boot()
    assert root.stubs.calls()[-1] == "systemctl poweroff"


def test_a_self_delete_program_is_installed_for_root_alone(root: Root) -> None:
    root.boot(replace(SEED, self_delete="#!/bin/sh\necho 'quoted $HOME' \"`id`\""))
    program = root.path(layout.SELF_DELETE)
    assert program.read_text() == "#!/bin/sh\necho 'quoted $HOME' \"`id`\"\n"
    assert program.stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError):
        user_data(replace(SEED, self_delete="VMRUN-END\nreboot"))


# --- units ---


def test_times_in_units_are_whole_seconds_of_at_least_one() -> None:
    assert "OnBootSec=1s\nOnUnitInactiveSec=1s\n" in units.deadman_timer(poll=0.2)
    assert "OnUnitInactiveSec=3s\n" in units.deadman_timer(poll=2.5)
    assert "VMRUN_FLUSH_GRACE=61\n" in units.deadman_service(flush_grace=60.1)


def test_no_blank_is_left_in_a_unit() -> None:
    for text in (
        units.deadman_script().replace('"$@"', ""),
        units.deadman_service(flush_grace=60),
        units.deadman_timer(poll=30),
        units.agent_service("a" * 64),
    ):
        assert "@" not in text


def test_the_agents_unit_names_its_content() -> None:
    text = units.agent_service("ab" * 32, flush_grace=30)
    assert (
        f"ExecStart=/usr/bin/python3 -I /opt/vmrun/agents/{'ab' * 32}/main.py run /var/lib/vmrun/agent.json\n" in text
    )
    assert "TimeoutStopSec=30\n" in text
    for line in ("Restart=on-failure", "RestartSec=1", "KillMode=mixed", "OOMPolicy=continue"):
        assert f"{line}\n" in text


@pytest.mark.parametrize("every", [1.0, 40.0, 900.0])
def test_an_agent_that_fails_again_and_again_is_given_up(every: float) -> None:
    """Each start renews the lease as soon as it is heard, so that it is not the lease that ends such a machine."""
    found = dict(line.split("=", 1) for line in units.agent_service("a" * 64).splitlines() if "=" in line)
    seconds = {"h": 3600, "s": 1}[found["StartLimitIntervalSec"][-1]] * int(found["StartLimitIntervalSec"][:-1])
    assert int(found["StartLimitBurst"]) * every < seconds


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_only_a_sha256_becomes_a_path(sha256: str) -> None:
    for build in (layout.agent_directory, layout.agent_archive, layout.uv_path, layout.uv_incoming):
        with pytest.raises(UsageError):
            build(sha256)
