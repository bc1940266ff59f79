"""SSH keys: their form as OpenSSH sees it, and files that only their owner can read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vmrun.core.clouds import Address
from vmrun.core.errors import ConfigError
from vmrun.transport.keys import known_hosts_line, new_key_pair, read_private_key, same_key, write_private_key


def test_openssh_derives_the_public_half_from_the_private(tmp_path: Path) -> None:
    pair = new_key_pair("a comment")
    write_private_key(tmp_path / "key", pair.private)
    argv = ["ssh-keygen", "-y", "-f", str(tmp_path / "key")]
    derived = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout
    assert same_key(derived, pair.public)
    assert pair.public.startswith("ssh-ed25519 AAAA")
    assert pair.public.endswith(" a comment")
    assert "\n" not in pair.public


def test_no_two_keys_are_the_same() -> None:
    one, other = new_key_pair(), new_key_pair()
    assert one.private != other.private
    assert not same_key(one.public, other.public)
    assert same_key(one.public, f"{one.public} elsewhere\n")


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    pair = new_key_pair()
    path = tmp_path / "keys" / "vm" / "id"
    write_private_key(path, pair.private)
    write_private_key(path, pair.private)
    assert read_private_key(path) == pair.private
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["id"]


def test_a_mask_that_allows_everything_changes_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private_key(tmp_path / "keys" / "id", "secret")
    finally:
        os.umask(before)
    assert (tmp_path / "keys" / "id").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_files_place_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "id").symlink_to(tmp_path / "target")
    write_private_key(tmp_path / "id", "secret")
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "id").is_symlink()


def test_a_link_is_not_read(tmp_path: Path) -> None:
    write_private_key(tmp_path / "id", "secret")
    (tmp_path / "link").symlink_to(tmp_path / "id")
    with pytest.raises(ConfigError):
        read_private_key(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write_private_key(tmp_path / "id", "secret")
    (tmp_path / "id").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_private_key(tmp_path / "id")
    assert "chmod 600" in caught.value.hint


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_private_key(tmp_path)
    with pytest.raises(ConfigError):
        read_private_key(tmp_path / "absent")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError):
        write_private_key(folder / "id", "secret")
    assert os.listdir(folder) == []


def test_known_hosts_lines() -> None:
    assert known_hosts_line(Address("192.0.2.1"), "ssh-ed25519 AAAA host") == "192.0.2.1 ssh-ed25519 AAAA\n"
    assert known_hosts_line(Address("h", 2222), "ssh-ed25519 AAAA") == "[h]:2222 ssh-ed25519 AAAA\n"
