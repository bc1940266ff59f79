"""The SSH client as it is called, what it says when it fails, and hosts as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.core.clouds import Address, CloudError, Fault, Scope
from vmrun.core.errors import ConfigError
from vmrun.core.hosts import Completed
from vmrun.provisioners.ssh.errors import HostError, Trouble, trouble_of
from vmrun.provisioners.ssh.hosts import HostName, configured_hosts, parse_host
from vmrun.provisioners.ssh.openssh import OpenSsh

HOST = HostName("me", "gpu1")
SAID = [
    (255, "Host key verification failed.", Trouble.unknown_key),
    (255, "No ED25519 host key is known for gpu1 and you have requested strict checking.", Trouble.unknown_key),
    (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", Trouble.other_key),
    (255, "me@gpu1: Permission denied (publickey).", Trouble.refused),
    (255, "WARNING: UNPROTECTED PRIVATE KEY FILE!\nme@gpu1: Permission denied (publickey).", Trouble.key_file),
    (255, "ssh: connect to host gpu1 port 22: Connection timed out", Trouble.unreachable),
    (255, "ssh: Could not resolve hostname gpu1: Name or service not known", Trouble.unreachable),
    (1, "sudo: a password is required", Trouble.no_sudo),
    (1, "sudo: /usr/bin/python3: command not found", Trouble.no_python),
    (127, "bash: line 1: sudo: command not found", Trouble.no_sudo),
    (127, "bash: line 1: /usr/bin/python3: No such file or directory", Trouble.no_python),
]


@pytest.mark.parametrize(("code", "said", "trouble"), SAID, ids=[row[1][:40] for row in SAID])
def test_what_is_said_is_understood(code: int, said: str, trouble: Trouble) -> None:
    found = trouble_of(HOST, Completed(code, b"", said.encode()))
    assert found is not None
    assert found.trouble is trouble
    assert found.message.startswith(f"me@gpu1 {trouble.value}")
    assert found.hint
    assert found.scope is Scope.zone
    passing = trouble in (Trouble.unreachable, Trouble.failed)
    assert found.fault is (Fault.stockout if passing else Fault.not_offered)


@pytest.mark.parametrize(("code", "said"), [(0, "a warning of the server's"), (1, "cannot read a file"), (3, "")])
def test_a_command_that_ran_is_no_trouble(code: int, said: str) -> None:
    assert trouble_of(HOST, Completed(code, b"", said.encode())) is None


def client(folder: Path, body: str, **settings: str) -> OpenSsh:
    """With a stand-in for the program."""
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return OpenSsh(settings, str(program))


def test_the_clients_own_checks_are_on_and_nobody_is_asked(tmp_path: Path) -> None:
    ssh = client(
        tmp_path, 'printf "%s\\n" "$@"; cat', identity_file="/k/id", known_hosts="/k/my hosts", proxy_jump="j@gate:2222"
    )
    done = ssh.run(HostName("me", "gpu1", 2200), ["true", "a b", "$(c)"], input=b"fed")
    words = done.stdout.decode().splitlines()
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "IdentitiesOnly=yes"} <= set(words)
    assert 'UserKnownHostsFile="/k/my hosts"' in words
    assert words[words.index("-J") + 1] == "j@gate:2222"
    assert words[words.index("-p") + 1] == "2200"
    assert words[words.index("--") + 1 :] == ["me@gpu1", "sudo -n true 'a b' '$(c)'", "fed"]
    root = ssh.run(HostName("root", "gpu1"), ["true"]).stdout.decode().splitlines()
    assert root[-2:] == ["root@gpu1", "true"]


def test_a_command_that_does_not_end_and_a_client_that_is_not_there(tmp_path: Path) -> None:
    ssh = client(tmp_path, "exec sleep 60")
    with pytest.raises(HostError, match="no end of a command"):
        ssh.run(HOST, ["true"], timeout=-24.5)
    with pytest.raises(CloudError, match="cannot be run") as caught:
        OpenSsh({}, str(tmp_path / "none")).run(HOST, ["true"])
    assert caught.value.fault is Fault.config


def test_an_alias_of_the_configuration_leads_where_it_says(tmp_path: Path) -> None:
    ssh = client(tmp_path, 'case "$*" in *-G*) printf "user me\\nhostname 192.0.2.7\\nport 2022\\n" ;; esac')
    assert ssh.address(HOST, "vmrun") == Address("192.0.2.7", 2022, "vmrun")
    assert client(tmp_path, "exit 1").address(HostName("", "gpu1", 23), "vmrun") == Address("gpu1", 23, "vmrun")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("me@gpu1", HostName("me", "gpu1")),
        ("gpu1.example.com", HostName("", "gpu1.example.com")),
        ("me@10.0.0.1:2222", HostName("me", "10.0.0.1", 2222)),
        ("me@[fd00::1]:2222", HostName("me", "fd00::1", 2222)),
        ("me@fd00::1", HostName("me", "fd00::1")),
    ],
)
def test_hosts_are_read_and_written_back(text: str, host: HostName) -> None:
    assert parse_host(text) == host
    assert parse_host(host.text) == host


@pytest.mark.parametrize("text", ["", "me@", "-oProxyCommand=x", "me@-x", "a b", "me@gpu1:99999", "me@h/../x", "@h"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_host(text)


def test_hosts_are_counted_once_whoever_logs_in() -> None:
    found = configured_hosts({"hosts": ("me@gpu1", "root@GPU1", "me@gpu1:2222")})
    assert [host.port for host in found] == [0, 2222]
    with pytest.raises(ConfigError, match="no host to borrow"):
        configured_hosts({"hosts": ()})
