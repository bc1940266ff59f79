"""The way through a jump host: verified by the user's own known hosts, or not gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.transport.server import PATIENCE, Behaviour, Server, bound
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import Address
from vmrun.core.errors import ConfigError, Unreachable
from vmrun.transport.jump import Jump, read_jump
from vmrun.transport.keys import new_key_pair
from vmrun.transport.ssh import Login, SshHost, SshLimits, open_shell_argv

PERSON, CLIENT = new_key_pair(), new_key_pair()
LIMITS = SshLimits(dial=PATIENCE, handshake=PATIENCE, login=PATIENCE, channel=PATIENCE, reconnect=0.1, boot=0.1)


class Way:
    """A gate and, behind it, a machine; and what a person's ~/.ssh holds."""

    def __init__(self, folder: Path) -> None:
        self.gate, self.machine = Server(PERSON), Server(CLIENT)
        self.folder = folder
        (folder / "id_ed25519").write_text(PERSON.private)
        self.know(self.gate.behaviour.host_key.public)

    def know(self, public_key: str) -> None:
        port = self.gate.address.port
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public_key}\n")

    def host(self) -> SshHost:
        jump = Jump(Address("127.0.0.1", self.gate.address.port, "person"), self.folder)
        pinned = (self.machine.behaviour.host_key.public,)
        return SshHost(
            Login(self.machine.address, CLIENT.private, pinned, jump), SystemClock(), limits=LIMITS, become=()
        )

    def refused(self) -> str:
        host = self.host()
        try:
            with pytest.raises(Unreachable) as caught:
                host.connect(timeout=0.1)
        finally:
            host.close()
        assert self.machine.connections == 0
        return caught.value.message


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Way(tmp_path)
    yield made
    made.machine.close()
    made.gate.close()


def test_commands_reach_the_machine_through_the_gate(way: Way) -> None:
    host = way.host()
    host.connect(timeout=60)
    assert host.run(["echo", "here"], timeout=60).stdout == b"here\n"
    host.close()
    assert way.gate.logins == ["person"]
    assert way.gate.forwarded == [(way.machine.address.host, way.machine.address.port)]
    # The gate runs nothing and sees no login of the machine's
    assert way.gate.commands == []
    assert set(way.machine.logins) == {"vmrun"}


def test_a_gate_that_is_not_known_is_not_trusted(way: Way) -> None:
    (way.folder / "known_hosts").unlink()
    assert "is not known" in way.refused()
    assert way.gate.logins == []


def test_a_gate_with_another_key_is_not_trusted(way: Way) -> None:
    way.know(new_key_pair().public)
    assert "not the one in known_hosts" in way.refused()
    assert way.gate.logins == []


def test_a_gate_that_lets_nobody_in_is_said(way: Way) -> None:
    way.gate.behaviour.refusals = -1
    assert "refuses the login of person" in way.refused()


def test_a_gate_that_is_not_there_is_said(way: Way) -> None:
    with bound() as port:
        way.gate.address = Address(*port.getsockname(), "vmrun")
        assert "the jump host 127.0.0.1 does not answer" in way.refused()


def test_the_machine_behind_the_gate_is_verified_all_the_same(way: Way) -> None:
    way.machine.behaviour = Behaviour(host_key=new_key_pair())
    host = way.host()
    pinned = new_key_pair().public
    host._login = Login(host._login.address, CLIENT.private, (pinned,), host._login.jump)
    with pytest.raises(Unreachable, match="is not the VM's"):
        host.connect(timeout=60)
    host.close()
    assert way.machine.logins == []


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("me@gate.example:2222", "me", "gate.example", 2222),
        ("me@192.0.2.1", "me", "192.0.2.1", 22),
        ("me@[2001:db8::1]:22", "me", "2001:db8::1", 22),
    ],
)
def test_a_gate_is_written_as_in_ssh(text: str, user: str, host: str, port: int) -> None:
    jump = read_jump(text)
    assert jump is not None
    assert jump.address == Address(host, port, user)
    assert read_jump("") is None


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "me@", "me@gate:port", "me@-gate", "a;b", "$(x)", "-l@h"])
def test_what_is_no_gate(text: str) -> None:
    with pytest.raises(ConfigError, match="proxy_jump"):
        read_jump(text)


def test_a_persons_session_goes_through_the_gate_and_asks_nobody(tmp_path: Path) -> None:
    jump = read_jump("me@gate.example:2222", tmp_path)
    argv = open_shell_argv(Address("192.0.2.1"), tmp_path / "key", tmp_path / "known", jump)
    done = subprocess.run(["ssh", "-G", *argv[1:]], capture_output=True, text=True, timeout=120, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    command = found["proxycommand"]
    assert command == "ssh -o StrictHostKeyChecking=yes -p 2222 -l me -W %h:%p -- gate.example"
