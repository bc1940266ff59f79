"""Signatures that cost a microsecond and are the same in every run, in the shape of the real ones.

The "public" key is the private one: whoever holds it could sign. That is enough here, where forgers are given
other keys or none.
"""

from __future__ import annotations

import hashlib

from vmrun.core.signing import Keyring


class FakeScheme:
    """A keyed hash in the place of Ed25519."""

    def check(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        return fake_signature(public_key, message) == signature


class FakeSigner:
    """Signs as `name`, with a key that follows from the name unless another is given."""

    def __init__(self, name: str, key: bytes | None = None) -> None:
        self._name = name
        self.key = fake_key(name) if key is None else key

    @property
    def name(self) -> str:
        return self._name

    def sign(self, message: bytes) -> bytes:
        return fake_signature(self.key, message)


def fake_key(name: str) -> bytes:
    """The key of whoever is called so."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def fake_signature(key: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=key, digest_size=16).digest()


def fake_keyring(*writers: str) -> Keyring:
    """Trusts these, and the client."""
    return Keyring(FakeScheme(), {name: fake_key(name) for name in ("client", *writers)})
