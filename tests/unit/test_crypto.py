"""Signatures, and the file of the client's private key."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.errors import ConfigError
from vmrun.core.signing import Keyring
from vmrun.crypto import (
    Ed25519Scheme,
    Ed25519Signer,
    ensure_private_key,
    load_private_key,
    new_private_key,
    public_hex,
    public_key,
    store_private_key,
)

SIGNER = Ed25519Signer("client", bytes(range(32)))
SIGNATURE = SIGNER.sign(b"message")


# --- signatures ---


def test_the_published_example() -> None:
    # RFC 8032, 7.1, test 2.
    signer = Ed25519Signer("x", bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert signer.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_keyring_trusts_whom_it_knows() -> None:
    ring = Keyring(Ed25519Scheme(), {"client": SIGNER.public_key})
    assert SIGNER.name == "client"
    assert ring.verify("client", b"message", SIGNATURE)
    assert not ring.verify("client", b"massage", SIGNATURE)
    assert not ring.verify("vm:1", b"message", SIGNATURE)
    ring.add("vm:1", public_key(new_private_key()))
    assert not ring.verify("vm:1", b"message", SIGNATURE)


@given(st.integers(0, 8 * 64 - 1))
def test_no_bit_of_a_signature_can_be_changed(bit: int) -> None:
    changed = bytearray(SIGNATURE)
    changed[bit // 8] ^= 1 << bit % 8
    assert not Ed25519Scheme().check(SIGNER.public_key, b"message", bytes(changed))


@pytest.mark.parametrize("wrong", [b"", b"short", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(64)])
def test_what_is_no_signature_does_not_count(wrong: bytes) -> None:
    assert not Ed25519Scheme().check(SIGNER.public_key, b"message", wrong)


@pytest.mark.parametrize("wrong", [b"", b"short", bytes(31), bytes(33), b"\xff" * 32])
def test_what_is_no_key_checks_nothing(wrong: bytes) -> None:
    assert not Ed25519Scheme().check(wrong, b"message", SIGNATURE)


def test_the_library_is_loaded_at_first_use_and_keys_are_not_shown() -> None:
    program = "import sys, vmrun.crypto; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"
    assert bytes(range(32)).hex() not in f"{SIGNER!r} {vars(SIGNER)!r}"


# --- the key file ---


def test_a_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "vmrun" / "client.key"
    before = os.umask(0)
    try:
        key = ensure_private_key(path)
    finally:
        os.umask(before)
    assert len(key) == 32
    assert ensure_private_key(path) == load_private_key(str(path)) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["client.key"]
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert public_hex(key) == Ed25519Signer("client", key).public_key.hex()


def test_keys_differ() -> None:
    assert len({public_hex(new_private_key()) for _ in range(20)}) == 20


def test_racing_clients_get_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(ensure_private_key, [tmp_path / "config" / "client.key"] * 8))
    assert len(keys) == 1
    assert os.listdir(tmp_path / "config") == ["client.key"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    first, second = new_private_key(), new_private_key()
    store_private_key(tmp_path / "client.key", first)
    with pytest.raises(ConfigError, match="already"):
        store_private_key(tmp_path / "client.key", second)
    assert load_private_key(tmp_path / "client.key") == first
    assert os.listdir(tmp_path) == ["client.key"]


def test_a_missing_key_says_where_to_get_it(tmp_path: Path) -> None:
    for path in (tmp_path / "client.key", tmp_path / "none" / "client.key"):
        with pytest.raises(ConfigError, match=str(path)) as caught:
            load_private_key(path)
        assert "vmrun init" in caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "client.key"
    store_private_key(path, new_private_key())
    path.chmod(mode)
    for use in (load_private_key, ensure_private_key):
        with pytest.raises(ConfigError, match=f"mode 0{mode:o}") as caught:
            use(path)
        assert caught.value.hint == f"run `chmod 600 {path}`"


def test_a_key_in_a_directory_of_others_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="may be written to by others"):
        ensure_private_key(tmp_path / "open" / "client.key")
    assert os.listdir(tmp_path / "open") == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store_private_key(tmp_path / "real.key", new_private_key())
    for target in ("real.key", "absent.key"):
        link = tmp_path / f"link-to-{target}"
        link.symlink_to(tmp_path / target)
        for use in (load_private_key, ensure_private_key):
            with pytest.raises(ConfigError, match="symbolic link"):
                use(link)
    assert not (tmp_path / "absent.key").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "half", "other algorithm", "encrypted", "directory", "pipe"])
def test_what_holds_no_key_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "client.key"
    store_private_key(tmp_path / "good.key", new_private_key())
    good = (tmp_path / "good.key").read_bytes()
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if kind == "directory":
        path.mkdir(mode=0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"
        texts = {"text": b"secret text", "empty": b"", "half": good[:60], "other algorithm": other}
        path.write_bytes(texts.get(kind, encrypted))
        path.chmod(0o600)
    for use in (load_private_key, ensure_private_key):
        with pytest.raises(ConfigError, match=str(path)) as caught:
            use(path)
        assert "secret text" not in str(caught.value)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot keep a key at"):
        ensure_private_key(tmp_path / "file" / "below" / "client.key")
