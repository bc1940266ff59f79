"""The SSH host against a server that can misbehave; OpenSSH's own server is met in the Docker tests."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from tests.unit.transport.server import PATIENCE, Behaviour, Server, bound
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import Address
from vmrun.core.errors import Unreachable
from vmrun.core.hosts import Host
from vmrun.transport.keys import KeyPair, new_key_pair
from vmrun.transport.ssh import (
    CommandTimeout,
    HostKeyMismatch,
    Login,
    LoginRefused,
    SshHost,
    SshLimits,
    TooMuchOutput,
    open_shell_argv,
)
from vmrun.transport.ssh_channel import exchange

CLIENT = new_key_pair()
#: Where nothing is to run out: long enough for a computer that stands still for a while.
LIMITS = SshLimits(dial=PATIENCE, handshake=PATIENCE, login=PATIENCE, channel=PATIENCE, reconnect=PATIENCE)


class World:
    """A server, and hosts that reach it."""

    def __init__(self) -> None:
        self.server = Server(CLIENT)
        self._hosts: list[SshHost] = []

    def host(self, *host_keys: str, client: KeyPair = CLIENT, limits: SshLimits = LIMITS, **more) -> SshHost:
        pinned = host_keys or (self.server.behaviour.host_key.public,)
        host = SshHost(
            Login(more.pop("address", self.server.address), client.private, pinned),
            SystemClock(),
            limits=limits,
            become=(),
            **more,
        )
        self._hosts.append(host)
        return host

    def close(self) -> None:
        for host in self._hosts:
            host.close()
        self.server.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


# --- run ---


def test_is_a_host(world: World) -> None:
    host: Host = world.host()
    assert host.run(["echo", "hello"]).stdout == b"hello\n"


def test_arguments_reach_the_command_as_they_are(world: World) -> None:
    words = [
        "",
        " ",
        "a b",
        "'",
        '"',
        "$HOME",
        "`id`",
        "$(id)",
        "; exit 3",
        "a\nb",
        "*",
        "\\",
        "ä😀",
        "-n",
        "&",
        "#",
        "~",
    ]
    done = world.host().run([sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words])
    assert json.loads(done.stdout) == words


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes_come_back(world: World, code: int) -> None:
    done = world.host().run(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"out\n", b"err\n")


def test_a_command_that_a_signal_ended_has_no_exit_code(world: World) -> None:
    host = world.host()
    assert host.run(["sh", "-c", "kill -KILL $$"]).exit_code == -1
    assert host.run(["true"]).exit_code == 0  # the connection is as good as before


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 5_000_000])
def test_input_of_any_size_arrives(world: World, size: int) -> None:
    data = os.urandom(size)
    assert world.host().run(["cat"], input=data).stdout == data


def test_output_on_both_streams_may_exceed_their_buffers(world: World) -> None:
    done = world.host().run(["sh", "-c", "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero"])
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 5_000_000)


def test_input_that_nobody_reads_does_not_hold_up_the_end(world: World) -> None:
    done = world.host().run(["sh", "-c", "exit 3"], input=bytes(8_000_000), timeout=120)
    assert done.exit_code == 3


def test_output_has_a_limit(world: World) -> None:
    host = world.host(limits=replace(LIMITS, output_bytes=1_000_000))
    with pytest.raises(TooMuchOutput):
        host.run(["sh", "-c", "cat /dev/zero"], timeout=120)
    with pytest.raises(TooMuchOutput):
        host.run(["sh", "-c", "cat /dev/zero >&2"], timeout=120)
    assert len(host.run(["head", "-c", "1000000", "/dev/zero"]).stdout) == 1_000_000


@pytest.mark.parametrize("script", ["sleep 60", "echo started; sleep 60", "while :; do echo; sleep 0.01; done", "yes"])
def test_a_command_has_a_limit_in_time(world: World, script: str) -> None:
    host = world.host(limits=replace(LIMITS, output_bytes=10**9))
    start = time.monotonic()
    with pytest.raises(CommandTimeout) as caught:
        host.run(["sh", "-c", script], timeout=0.5)
    assert 0.4 < time.monotonic() - start < 55
    assert caught.value.retryable
    assert host.run(["echo", "still here"]).stdout == b"still here\n"


def test_waiting_for_output_takes_no_descriptor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's pipe for `select` is written to after it was closed: into whatever has its number by then."""

    def make_pipe():
        raise AssertionError("a pipe was made for a channel")

    monkeypatch.setattr(paramiko.pipe, "make_pipe", make_pipe)
    host = world.host(limits=replace(LIMITS, output_bytes=10**9))
    assert host.run(["sh", "-c", "sleep 0.2; echo out; sleep 0.2; echo err >&2; exit 3"]).exit_code == 3
    with pytest.raises(CommandTimeout):
        host.run(["yes"], timeout=0.2)


@pytest.mark.parametrize(
    ("trouble", "closed"),
    [
        (EOFError(), True),
        (OSError(9, "Bad file descriptor"), True),
        (paramiko.ChannelException(1, "no more sessions"), False),
        (paramiko.SSHException("Timeout opening channel."), False),
    ],
)
def test_a_connection_that_is_gone_is_let_go_at_once(trouble: Exception, closed: bool) -> None:
    """The library may take a while to know it: the next command must not meet the same connection again."""

    class Gone:
        channel_timeout, ended = 1.0, False

        def open_session(self, timeout: float):
            raise trouble

        def close(self) -> None:
            self.ended = True

    transport = Gone()
    with (
        pytest.raises(Unreachable, match="cannot start date"),
        exchange(transport, "date", "date", SystemClock()),  # type: ignore[arg-type]
    ):
        raise AssertionError("a command was started")
    assert transport.ended == closed


def test_several_threads_may_use_one_host(world: World) -> None:
    host, found = world.host(), {}

    def use(number: int) -> None:
        found[number] = host.run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {number: f"{number}\n".encode() for number in range(8)}
    assert world.server.connections == 1


def test_a_connection_that_breaks_is_noticed_and_made_again(world: World, tmp_path: Path) -> None:
    host = world.host()
    marks = tmp_path / "marks"
    script = f"echo run >> {marks}; sleep 60"
    # Not as soon as the file is there: the shell makes it first and then writes to it.
    threading.Thread(target=lambda: _when(lambda: _size(marks), world.server.hang_up), daemon=True).start()
    with pytest.raises(Unreachable) as caught:
        host.run(["sh", "-c", script], timeout=120)
    assert not isinstance(caught.value, CommandTimeout)
    # The command was not sent a second time; the next one is sent over a new connection.
    assert marks.read_text() == "run\n"
    assert host.run(["echo", "back"]).stdout == b"back\n"
    assert world.server.connections == 2


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _when(condition, action) -> None:
    give_up = time.monotonic() + 60
    while not condition() and time.monotonic() < give_up:
        threading.Event().wait(0.01)
    action()


def test_closing_twice_is_fine_and_it_opens_again(world: World) -> None:
    host = world.host()
    host.run(["true"])
    host.close()
    host.close()
    assert host.run(["true"]).exit_code == 0


def test_closing_ends_the_wait_for_a_connection(world: World) -> None:
    world.server.behaviour.closed = 1000
    host = world.host()
    start = time.monotonic()
    with pytest.raises(Unreachable, match="closed while"):
        host.connect(timeout=200, note=lambda _: threading.Thread(target=host.close).start())
    assert time.monotonic() - start < 100


def test_small_packets_are_not_held_back(world: World) -> None:
    host = world.host()
    host.connect()
    transport = host._transport
    assert transport is not None
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


# --- the host key ---


def test_another_host_key_ends_it_before_a_login(world: World) -> None:
    host = world.host(new_key_pair().public)
    notes: list[str] = []
    with pytest.raises(HostKeyMismatch) as caught:
        host.connect(timeout=90, note=notes.append)
    assert not caught.value.retryable
    assert caught.value.exit_code == 5
    # Tried once, and nothing went out: no user name, no signature of our key.
    assert (world.server.connections, world.server.logins, notes) == (1, [], [])
    with pytest.raises(HostKeyMismatch):
        host.run(["true"])
    with pytest.raises(HostKeyMismatch):
        host.put("/nowhere", [b"secret"])
    assert (world.server.logins, world.server.commands) == ([], [])


def test_a_host_key_that_changes_between_connections_is_noticed(world: World) -> None:
    host = world.host()
    host.run(["true"])
    world.server.behaviour.host_key = new_key_pair()
    world.server.hang_up()
    with pytest.raises(HostKeyMismatch):
        _until_refused(host)
    assert world.server.commands == ["true"]


def _until_refused(host: SshHost) -> None:
    """The break itself may be what the first command meets."""
    for _ in range(3):
        try:
            host.run(["true"])
        except HostKeyMismatch:
            raise
        except Unreachable:
            continue


def test_either_of_two_pinned_keys_will_do(world: World) -> None:
    old, new = world.server.behaviour.host_key, new_key_pair()
    host = world.host(old.public, f"{new.public} with a comment")
    assert host.run(["true"]).exit_code == 0
    world.server.behaviour.host_key = new
    host.close()
    assert host.run(["true"]).exit_code == 0


def test_a_server_without_a_key_of_the_pinned_kind_is_not_logged_in_to(world: World) -> None:
    world.server.behaviour.other_key = paramiko.ECDSAKey.generate()
    with pytest.raises(Unreachable):
        world.host().connect(timeout=1.0)
    assert world.server.logins == []


# --- while a machine boots ---


def test_waits_for_a_port_that_does_not_answer_yet(world: World) -> None:
    late: list[Server] = []
    behaviour = world.server.behaviour
    port = bound()

    def note(_: str) -> None:
        notes.append(_)
        if len(notes) == 3:
            late.append(Server(CLIENT, behaviour, listener=port))

    notes: list[str] = []
    host = world.host(address=Address(*port.getsockname(), "vmrun"))
    try:
        host.connect(timeout=90, note=note)
        assert host.run(["true"]).exit_code == 0
    finally:
        host.close()
        (late[0] if late else port).close()
    assert len(notes) >= 3
    assert "refused" in notes[0]


def test_waits_for_a_server_whose_banner_is_late(world: World) -> None:
    world.server.behaviour.silent = 2
    host = world.host(limits=replace(LIMITS, handshake=1.0))

    def note(_: str) -> None:
        # The next one gets a banner, and may take its time with it.
        if not world.server.behaviour.silent:
            host._limits = LIMITS

    host.connect(timeout=90, note=note)
    assert host.run(["true"]).exit_code == 0
    assert world.server.connections == 3


def test_waits_for_a_server_that_hangs_up(world: World) -> None:
    """As behind a load balancer, or when sshd starts again in the midst of the boot."""
    world.server.behaviour.closed = 2
    host = world.host()
    host.connect(timeout=90)
    assert world.server.connections == 3


def test_waits_while_logins_are_refused_in_the_boot(world: World) -> None:
    """The user is not there yet, or "System is booting up. Unprivileged users are not permitted to log in yet"."""
    world.server.behaviour.refusals = 2
    notes: list[str] = []
    world.host().connect(timeout=90, note=notes.append)
    assert len(world.server.logins) >= 3
    assert all("refuses the login" in note for note in notes)
    assert notes


def test_a_login_that_stays_refused_is_not_waited_for_for_ever(world: World) -> None:
    world.server.behaviour.refusals = -1
    start = time.monotonic()
    with pytest.raises(LoginRefused) as caught:
        world.host(limits=replace(LIMITS, boot=0.5)).connect(timeout=200)
    assert time.monotonic() - start < 60
    assert caught.value.hint


def test_another_clients_key_is_refused(world: World) -> None:
    with pytest.raises(LoginRefused):
        world.host(client=new_key_pair(), limits=replace(LIMITS, boot=0.3)).connect(timeout=90)
    assert world.server.commands == []


def test_waiting_ends_in_time_and_says_why() -> None:
    with Silence() as address:
        host = SshHost(
            Login(address, CLIENT.private, (new_key_pair().public,)), SystemClock(), limits=SshLimits(handshake=0.3)
        )
        start = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            host.connect(timeout=1.0)
        assert time.monotonic() - start < 30
        assert "no SSH after 1 s" in caught.value.message
        assert caught.value.hint


class Silence:
    """A port where connections are taken, and nothing is ever said."""

    def __enter__(self) -> Address:
        self._server = Server(CLIENT, Behaviour(silent=1000))
        return self._server.address

    def __exit__(self, *_: object) -> None:
        self._server.close()


def test_an_address_that_does_not_resolve_is_unreachable() -> None:
    login = Login(Address("no-such-host.invalid"), CLIENT.private, (new_key_pair().public,))
    with pytest.raises(Unreachable):
        SshHost(login, SystemClock()).connect(timeout=0.3)


# --- put ---


@pytest.mark.parametrize("chunks", [[], [b""], [b"one"], [b"a", b"", b"b" * 3_000_000, b"c"], [bytearray(b"xy")]])
def test_put_writes_all_chunks(world: World, tmp_path: Path, chunks: list[bytes]) -> None:
    path = tmp_path / "new" / "folder" / "a file"
    world.host().put(str(path), iter(chunks), mode=0o640)
    assert path.read_bytes() == b"".join(chunks)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["a file"]


def test_put_keeps_to_itself_by_default(world: World, tmp_path: Path) -> None:
    world.host().put(str(tmp_path / "secret"), [b"x"])
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_put_replaces_a_file_whole(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    reader = path.open()
    with reader:
        world.host().put(str(path), [b"new"])
        assert reader.read() == "old"  # another file took its name
    assert path.read_text() == "new"


def test_put_does_not_follow_a_link_in_the_files_place(world: World, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    world.host().put(str(tmp_path / "link"), [b"new"])
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()


def test_put_of_something_that_breaks_off_leaves_the_old(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def chunks() -> Iterator[bytes]:
        yield b"n" * 100_000
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        world.host().put(str(path), chunks())
    _the_writer_ended(world)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def _the_writer_ended(world: World) -> None:
    """The folder looks the same before the writer has begun: what it leaves is seen when it is gone."""
    _when(lambda: world.server.ended, lambda: None)
    assert len(world.server.ended) == 1


def test_put_over_a_connection_that_breaks_leaves_the_old(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def chunks() -> Iterator[bytes]:
        yield b"n" * 100_000
        world.server.hang_up()
        for _ in range(200):
            yield b"n" * 100_000

    with pytest.raises(Unreachable):
        world.host().put(str(path), chunks())
    _the_writer_ended(world)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_put_where_nothing_can_be_says_why(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unreachable) as caught:
        world.host().put(str(tmp_path / "file" / "below"), (b"x" * 100_000 for _ in range(100)))
    assert "below" in caught.value.message
    assert "FileExistsError" in caught.value.message or "NotADirectoryError" in caught.value.message


def test_put_gives_up_on_a_machine_that_takes_nothing(world: World, tmp_path: Path) -> None:
    """As one whose disk hangs; here the writer is a program that does not read."""
    host = world.host(limits=replace(LIMITS, stall=0.5))
    host._become = ("sh", "-c", "exec sleep 200")
    start = time.monotonic()
    with pytest.raises(Unreachable, match="took nothing"):
        host.put(str(tmp_path / "file"), (b"x" * 1_000_000 for _ in range(50)))
    assert time.monotonic() - start < 100


def writer(path: Path, sent: bytes) -> subprocess.CompletedProcess[bytes]:
    program = Path(sys.modules["vmrun.transport"].__path__[0], "writer.py").read_text()
    argv = [sys.executable, "-I", "-c", program, str(path), "600"]
    return subprocess.run(argv, input=sent, capture_output=True, timeout=120, check=False)


BLOCK = (5).to_bytes(4, "big") + b"hello"
DIGEST = hashlib.sha256(b"hello").digest()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        BLOCK[:6],
        BLOCK,
        BLOCK + bytes(4),
        BLOCK + bytes(4) + DIGEST[:31],
        BLOCK + bytes(4) + DIGEST[:31] + b"x",
        BLOCK[:-1] + b"0" + bytes(4) + DIGEST,
    ],
)
def test_the_writer_takes_only_what_is_whole(tmp_path: Path, sent: bytes) -> None:
    assert writer(tmp_path / "file", sent).returncode != 0
    assert os.listdir(tmp_path) == []


def test_the_writer_takes_what_is_whole(tmp_path: Path) -> None:
    assert writer(tmp_path / "file", BLOCK + bytes(4) + DIGEST).returncode == 0
    assert (tmp_path / "file").read_bytes() == b"hello"


# --- the OpenSSH client ---


def test_a_persons_session_is_as_strict(tmp_path: Path) -> None:
    """What the client itself makes of the arguments."""
    folder = tmp_path / "with space and 100%"
    argv = open_shell_argv(Address("192.0.2.1", 2222), folder / "key", folder / "known")
    assert argv[0] == "ssh"
    done = subprocess.run(["ssh", "-G", *argv[1:]], capture_output=True, text=True, timeout=120, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (found["user"], found["hostname"], found["port"]) == ("vmrun", "192.0.2.1", "2222")
    assert found["stricthostkeychecking"] in ("true", "yes")
    assert found["identitiesonly"] == "yes"
    assert found["forwardagent"] == found["forwardx11"] == found["passwordauthentication"] == "no"
    assert found["globalknownhostsfile"] == "/dev/null"
    assert found["hostkeyalgorithms"] == "ssh-ed25519"
    assert "identityagent" not in found or found["identityagent"] == "none"


def test_a_persons_session_ignores_the_persons_configuration(tmp_path: Path) -> None:
    """`Host *` in somebody's ~/.ssh/config changes nothing."""
    argv = open_shell_argv(Address("192.0.2.1"), tmp_path / "key", tmp_path / "known")
    assert argv[1:3] == ["-F", "none"]
    assert argv[-2:] == ["--", "vmrun@192.0.2.1"]


def test_the_ssh_library_is_not_loaded_before_it_is_used() -> None:
    program = (
        "import sys, vmrun.transport.ssh, vmrun.transport.keys\n"
        "sys.exit(bool({'paramiko', 'cryptography'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


def test_no_private_key_is_in_a_representation() -> None:
    login = Login(Address("h"), CLIENT.private, (CLIENT.public,))
    assert CLIENT.private.splitlines()[2] not in repr(login) + repr(CLIENT) + repr(SshHost(login, SystemClock()))
