"""The programs of bring-up, run as they are on a machine: `python3 -I -c`, with a manager that is a stand-in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.unit.machine.stubs import Stubs


def text(name: str) -> str:
    return files("vmrun.machine").joinpath("programs", f"{name}.py").read_text()


def run(
    name: str, *arguments: object, stubs: Stubs | None = None, input: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-I", "-c", text(name), *map(str, arguments)]
    if stubs is not None:
        return stubs.run(argv, input=input)
    return subprocess.run(argv, input=input, capture_output=True, timeout=120, check=False)


def document(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# --- install ---


def tar(*members: tuple[str, bytes], change: Any = None, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if change is not None:
                change(member)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def pushed(place: Path, content: bytes) -> tuple[Path, str]:
    file = place / "pushed"
    file.write_bytes(content)
    return file, hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_install_unpacks_once(tmp_path: Path, mode: str) -> None:
    content = tar(("main.py", b"main"), ("lib/a/b.py", b"deep"), mode=mode)
    file, sha256 = pushed(tmp_path, content)
    target = tmp_path / "agents" / sha256
    assert document(run("install", file, sha256, target)) == {"installed": True}
    assert (target / "lib/a/b.py").read_bytes() == b"deep"
    assert not file.exists()
    # Whoever runs jobs may read all of it.
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in target.rglob("*"))
    assert target.stat().st_mode & 0o777 == 0o755
    assert document(run("install", file, sha256, target)) == {"installed": False}
    assert os.listdir(target.parent) == [sha256]


def test_install_refuses_what_was_altered(tmp_path: Path) -> None:
    content = tar(("main.py", b"main"))
    file, _ = pushed(tmp_path, content)
    target = tmp_path / "there" / "it"
    done = run("install", file, hashlib.sha256(content + b"x").hexdigest(), target)
    assert done.returncode != 0
    assert b"SHA-256" in done.stderr
    assert not target.exists()


def link(kind: bytes) -> Any:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    return change


@pytest.mark.parametrize(
    "content",
    [
        tar(("/etc/cron.d/evil", b"x")),
        tar(("../evil", b"x")),
        tar(("lib/../../evil", b"x")),
        tar(("good.py", b"x"), ("evil", b""), change=link(tarfile.SYMTYPE)),
        tar(("evil", b""), change=link(tarfile.LNKTYPE)),
        tar(("evil", b""), change=link(tarfile.CHRTYPE)),
        tar(("evil", b""), change=link(tarfile.FIFOTYPE)),
    ],
    ids=["absolute", "parent", "inner parent", "symlink", "hard link", "device", "pipe"],
)
def test_install_refuses_members_that_lead_elsewhere(tmp_path: Path, content: bytes) -> None:
    file, sha256 = pushed(tmp_path, content)
    target = tmp_path / "agents" / sha256
    done = run("install", file, sha256, target)
    assert done.returncode != 0
    assert b"refused" in done.stderr
    assert os.listdir(target.parent) == []
    assert not (tmp_path / "evil").exists()


def test_install_leaves_nothing_of_a_broken_archive(tmp_path: Path) -> None:
    file, sha256 = pushed(tmp_path, tar(("main.py", b"x" * 5000), mode="w:gz")[:-40])
    target = tmp_path / "agents" / sha256
    assert run("install", file, sha256, target).returncode != 0
    assert os.listdir(target.parent) == []


def test_install_twice_at_once_ends_with_one(tmp_path: Path) -> None:
    content = tar(*[(f"lib/{number}.py", b"x" * 1000) for number in range(200)])
    sha256 = hashlib.sha256(content).hexdigest()
    target = tmp_path / "agents" / sha256
    together = threading.Barrier(4)

    def install(number: int) -> subprocess.CompletedProcess[bytes]:
        file = tmp_path / f"pushed-{number}"
        file.write_bytes(content)
        together.wait(timeout=120)
        return run("install", file, sha256, target)

    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(install, range(4)):
            document(done)
    assert os.listdir(target.parent) == [sha256]
    assert len(os.listdir(target / "lib")) == 200


# --- boot ---


def test_boot_tells_what_cloud_init_found(tmp_path: Path) -> None:
    status = {"v1": {"stage": None, "init": {"errors": ["('ssh', KeyError())"]}, "init-local": {"errors": []}}}
    (tmp_path / "status.json").write_text(json.dumps(status))
    (tmp_path / "result.json").write_text(json.dumps({"v1": {"datasource": "NoCloud", "errors": ["late"]}}))
    found = document(run("boot", "30", tmp_path))
    assert found == {"finished": True, "disabled": False, "stage": "", "errors": ["('ssh', KeyError())", "late"]}


def test_boot_waits_until_it_is_through(tmp_path: Path) -> None:
    waiting = subprocess.Popen([sys.executable, "-I", "-c", text("boot"), "40", str(tmp_path)], stdout=subprocess.PIPE)
    (tmp_path / "status.json").write_text(json.dumps({"v1": {"stage": "init"}}))
    assert waiting.poll() is None
    (tmp_path / "result.json.new").write_text("{}")
    os.replace(tmp_path / "result.json.new", tmp_path / "result.json")
    found, _ = waiting.communicate(timeout=120)
    assert json.loads(found)["finished"] is True


def test_boot_does_not_wait_longer_than_it_is_told(tmp_path: Path) -> None:
    assert document(run("boot", "0.1", tmp_path / "absent")) == {
        "finished": False,
        "disabled": False,
        "stage": "",
        "errors": [],
    }


def test_boot_sees_a_machine_without_cloud_init(tmp_path: Path) -> None:
    (tmp_path / "disabled").touch()
    found = document(run("boot", "30", tmp_path))
    assert (found["finished"], found["disabled"]) == (False, True)


# --- facts ---


def test_facts_are_plausible_here(tmp_path: Path) -> None:
    found = document(run("facts", tmp_path))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["cpus"] <= (os.cpu_count() or 1)
    assert 1 << 20 < found["memory"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found["disk_free"] <= shutil.disk_usage(tmp_path).total
    assert found["uid"] == os.getuid()


# --- timer ---


def timer(tmp_path: Path, answer: str) -> Any:
    stubs = Stubs(tmp_path)
    stubs.add("systemctl", f"cat <<'EOF'\n{answer}\nEOF")
    return document(run("timer", "vmrun-deadman.timer", tmp_path, stubs=stubs))


def test_timer_reads_state_and_times(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("1800000000\n")
    (tmp_path / "hard_deadline").write_text("1800003600\n")
    answer = "UnitFileState=enabled\nActiveState=active\nNextElapseUSecMonotonic=1y 2month 3w 4d 5h 6min 7.5s"
    found = timer(tmp_path, answer)
    assert (found["active"], found["enabled"]) == ("active", "enabled")
    assert (found["lease"], found["hard_deadline"]) == (1800000000, 1800003600)
    spoken = 31557600 + 2 * 2629800 + 3 * 604800 + 4 * 86400 + 5 * 3600 + 6 * 60 + 7.5
    with open("/proc/uptime") as file:
        uptime = float(file.read().split()[0])
    assert abs(found["next_in"] - (spoken - uptime)) < 60


@pytest.mark.parametrize("elapse", ["infinity", "", "0"])
def test_timer_that_judges_now_or_never_has_no_next_time(tmp_path: Path, elapse: str) -> None:
    found = timer(tmp_path, f"ActiveState=active\nNextElapseUSecMonotonic={elapse}")
    assert (found["next_in"], found["lease"], found["hard_deadline"]) == (None, None, None)


def test_timer_that_is_not_there_is_not_active(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("soon\n")
    found = timer(tmp_path, "ActiveState=inactive\nUnitFileState=")
    assert (found["active"], found["enabled"], found["lease"]) == ("inactive", "", None)


# --- the agent's unit ---


def unit_stubs(tmp_path: Path, state: str = "active") -> Stubs:
    stubs = Stubs(tmp_path)
    stubs.add("systemctl", f'[ "$1" = show ] && echo {state}; exit 0')
    return stubs


def test_agent_unit_is_installed_and_started(tmp_path: Path) -> None:
    stubs = unit_stubs(tmp_path)
    units = tmp_path / "units"
    units.mkdir()
    done = document(run("agent_unit", "vmrun-agent.service", units, stubs=stubs, input=b"[Unit]\n"))
    assert done == {"changed": True, "state": "active"}
    assert (units / "vmrun-agent.service").read_bytes() == b"[Unit]\n"
    assert (units / "vmrun-agent.service").stat().st_mode & 0o777 == 0o644
    assert [call for call in stubs.calls() if " show " not in call] == [
        "systemctl daemon-reload",
        "systemctl enable vmrun-agent.service",
        "systemctl reset-failed vmrun-agent.service",
        "systemctl restart vmrun-agent.service",
    ]


@pytest.mark.parametrize(("state", "restarted"), [("active", False), ("failed", True), ("inactive", True)])
def test_agent_unit_that_is_there_is_only_started_if_it_does_not_run(
    tmp_path: Path, state: str, restarted: bool
) -> None:
    stubs = unit_stubs(tmp_path, state)
    (tmp_path / "vmrun-agent.service").write_bytes(b"[Unit]\n")
    done = document(run("agent_unit", "vmrun-agent.service", tmp_path, stubs=stubs, input=b"[Unit]\n"))
    assert done["changed"] is False
    assert ("systemctl restart vmrun-agent.service" in stubs.calls()) == restarted


def test_agent_unit_says_what_the_manager_said(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path)
    stubs.add("systemctl", "echo no such thing >&2; exit 1")
    done = run("agent_unit", "vmrun-agent.service", tmp_path, stubs=stubs, input=b"[Unit]\n")
    assert done.returncode != 0
    assert b"daemon-reload failed: no such thing" in done.stderr


# --- the host key ---


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A host key in force."""
    path = tmp_path / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=120)
    return path


def key_stubs(tmp_path: Path, manager: str = "exit 0") -> Stubs:
    stubs = Stubs(tmp_path)
    found = shutil.which("ssh-keygen")
    assert found is not None
    (stubs.place / "ssh-keygen").symlink_to(found)
    stubs.add("systemctl", manager)
    return stubs


def public(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def test_host_key_is_replaced_in_two_steps(tmp_path: Path, key: Path) -> None:
    stubs = key_stubs(tmp_path)
    before, private = public(key), key.read_bytes()
    following = document(run("host_key", "prepare", key, stubs=stubs))["public"]
    assert following != before
    assert (public(key), key.read_bytes()) == (before, private)
    assert document(run("host_key", "prepare", key, stubs=stubs))["public"] == following

    assert document(run("host_key", "activate", key, stubs=stubs))["public"] == following
    assert document(run("host_key", "activate", key, stubs=stubs))["public"] == following

    assert public(key) == following
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, check=True, timeout=120).stdout
    assert derived.decode().split()[:2] == following.split()
    assert key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("ssh_host*")) == [key.name, f"{key.name}.pub"]
    assert [call for call in stubs.calls() if call.startswith("systemctl")] == [
        "systemctl try-reload-or-restart ssh.service",
        "systemctl try-reload-or-restart sshd.service",
    ] * 2


def test_host_key_is_activated_after_a_break_at_any_point(tmp_path: Path, key: Path) -> None:
    """A program that was killed after the public half was replaced finds the private half still to do."""
    stubs = key_stubs(tmp_path)
    following = document(run("host_key", "prepare", key, stubs=stubs))["public"]
    shutil.copy(f"{key}.next.pub", f"{key}.pub")
    assert document(run("host_key", "activate", key, stubs=stubs))["public"] == following
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, check=True, timeout=120).stdout
    assert derived.decode().split()[:2] == following.split()


def test_host_key_needs_a_server_under_one_of_its_names(tmp_path: Path, key: Path) -> None:
    run("host_key", "prepare", key, stubs=key_stubs(tmp_path))
    shutil.rmtree(tmp_path / "bin")
    one = key_stubs(tmp_path, '[ "$2" = sshd.service ]')
    assert run("host_key", "activate", key, stubs=one).returncode == 0
    shutil.rmtree(tmp_path / "bin")
    none = key_stubs(tmp_path, "exit 5")
    assert run("host_key", "activate", key, stubs=none).returncode != 0
