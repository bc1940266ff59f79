"""Ed25519: how entries are signed and checked, and where the client's private key lies."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from typing import TYPE_CHECKING

from .core.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_KEY_BYTES = 32
#: A key file is about 120 bytes; more than this is none.
_MAX_FILE = 16 * 1024


def new_private_key() -> bytes:
    """A fresh private key: 32 bytes of the operating system's randomness."""
    return os.urandom(_KEY_BYTES)


def public_key(private: bytes) -> bytes:
    """The public half, 32 bytes."""
    return _private(private).public_key().public_bytes_raw()


def public_hex(private: bytes) -> str:
    """The public half as lower-case hexadecimal."""
    return public_key(private).hex()


class Ed25519Signer:
    """Signs under one name with one private key."""

    def __init__(self, name: str, private: bytes) -> None:
        self._name = name
        self._key = _private(private)

    @property
    def name(self) -> str:
        """Who signs: `client` or `vm:<vm id>`."""
        return self._name

    @property
    def public_key(self) -> bytes:
        """The public half, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        return self._key.sign(message)


class Ed25519Scheme:
    """Checks signatures."""

    def check(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` was made with the private half of `public_key`.

        False for a key or a signature that cannot be one.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            _public(bytes(public_key)).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def load_private_key(path: str | os.PathLike[str]) -> bytes:
    """The private key in a file.

    Raises ConfigError when there is none, when others than its owner may read or write it, or when it is a
    symbolic link or no Ed25519 key.
    """
    name = os.fspath(path)
    key = _load(name)
    if key is None:
        raise ConfigError(
            f"there is no key at {name}",
            hint="`vmrun init` makes one, or copy the configuration directory of the machine that has it",
        )
    return key


def ensure_private_key(path: str | os.PathLike[str]) -> bytes:
    """The private key in a file; a new one is made when there is none (all racing callers get the same one)."""
    name = os.fspath(path)
    key = _load(name)
    if key is None:
        with contextlib.suppress(FileExistsError):
            _store(name, new_private_key())
        key = load_private_key(name)
    return key


def store_private_key(path: str | os.PathLike[str], private: bytes) -> None:
    """Write a private key to a new file: mode 0600, in a directory that is made with 0700.

    Raises ConfigError when there is a file already; it is never overwritten.
    """
    name = os.fspath(path)
    try:
        _store(name, private)
    except FileExistsError:
        raise ConfigError(
            f"there is a key at {name} already", hint="keep it: jobs signed with it need it; or move it away first"
        ) from None


def _private(private: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private)


@functools.lru_cache(maxsize=1024)
def _public(public: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(public)


def _load(name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unsafe(name, "is a symbolic link", "put the file itself there") from None
        raise _unusable(name, error) from error
    try:
        status = os.fstat(descriptor)
        _check_safe(name, status)
        return _parse(name, os.read(descriptor, _MAX_FILE))
    except OSError as error:
        raise _unusable(name, error) from error
    finally:
        os.close(descriptor)


def _check_safe(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _unsafe(name, "is no regular file", "remove it")
    if status.st_uid not in {os.geteuid(), 0}:
        raise _unsafe(name, f"belongs to another user (uid {status.st_uid})", f"run `chown {os.geteuid()} {name}`")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise _unsafe(name, f"may be used by others (mode {mode:04o})", f"run `chmod 600 {name}`")


def _parse(name: str, text: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{name} holds no Ed25519 private key in PEM form", hint="restore it from the machine that set it up"
        )
    return key.private_bytes_raw()


def _store(name: str, private: bytes) -> None:
    """Write a new key file by a hard link from a finished one. Raises FileExistsError."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    text = _private(private).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    directory = os.path.dirname(os.path.abspath(name))
    temporary = f"{directory}/.{os.path.basename(name)}.{os.urandom(8).hex()}"
    _make_private_directory(directory)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, name, follow_symlinks=False)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise
    except OSError as error:
        raise _unusable(name, error) from error


def _make_private_directory(directory: str) -> None:
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        mode = os.stat(directory).st_mode
    except OSError as error:
        raise _unusable(directory, error) from error
    if mode & 0o022:
        raise _unsafe(directory, "may be written to by others", f"run `chmod go-w {directory}`")


def _unsafe(name: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"{name} cannot hold a private key: it {why}", hint=hint)


def _unusable(name: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot keep a key at {name}: {error.strerror}",
        hint="make its directory usable for this user, or set VMRUN_CONFIG_DIR to another one",
    )
