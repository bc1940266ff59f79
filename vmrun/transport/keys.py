"""Ed25519 keys for SSH: one client key per VM, and host keys. Private keys live in memory or in files of mode 0600."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from vmrun.core.clouds import Address
from vmrun.core.errors import ConfigError

#: No key file is longer; a longer one is something else.
_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One key in OpenSSH form: the private half as PEM, the public half as one line without a newline."""

    private: str = field(repr=False)
    public: str


def new_key_pair(comment: str = "") -> KeyPair:
    """A fresh ed25519 key from the operating system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return KeyPair(private, f"{public} {comment}".strip())


def same_key(one: str, other: str) -> bool:
    """Whether two public keys in OpenSSH form are the same key, whatever their comments."""
    return one.split()[:2] == other.split()[:2]


def write_private_key(path: Path, private: str) -> None:
    """Write a private key, whole or not at all, readable by its owner only; missing directories get 0700.

    ConfigError if the directory is not the caller's own or others may write to it.
    """
    folder = path.parent
    _make_private(folder)
    _check_folder(folder)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")  # 0600, never through a link
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(private.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_private_key(path: Path) -> str:
    """The private key in this file. ConfigError unless it is a plain file that only its owner can read."""
    try:
        # Without blocking, in case that a pipe stands in its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot open the key {path}: {error.strerror}", hint="it must be a plain file") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(f"others may read the key {path}", hint=f"make it yours alone: chmod 600 {path}")
        return os.read(descriptor, _MAX_BYTES).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def known_hosts_line(address: Address, host_key: str) -> str:
    """The line that pins `host_key` for this address in a known_hosts file of OpenSSH."""
    host = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    return f"{host} {' '.join(host_key.split()[:2])}\n"


def _make_private(folder: Path) -> None:
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _check_folder(folder: Path) -> None:
    found = os.stat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(f"others may write to {folder}", hint=f"make it yours alone: chmod 700 {folder}")
