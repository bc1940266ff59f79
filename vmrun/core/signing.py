"""Signatures as the protocol sees them; the cryptography lives outside (`vmrun.crypto`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Signer(Protocol):
    """Holds one private key."""

    @property
    def name(self) -> str:
        """Who signs: `client` or `vm:<vm id>`. Written into each entry as its writer."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`."""
        ...


class Verifier(Protocol):
    """Knows the public keys of those who may write."""

    def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is `writer`'s over `message`; False for a writer it does not know."""
        ...


class Keyring:
    """Public keys by writer, over one signature check (`check(public_key, message, signature)`)."""

    def __init__(self, scheme: SignatureScheme, keys: Mapping[str, bytes]) -> None:
        self._scheme = scheme
        self._keys = dict(keys)

    def add(self, writer: str, public_key: bytes) -> None:
        """Trust `public_key` for `writer` from now on."""
        self._keys[writer] = public_key

    def knows(self, writer: str) -> bool:
        """Whether there is a key for `writer`."""
        return writer in self._keys

    def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
        key = self._keys.get(writer)
        return key is not None and self._scheme.check(key, message, signature)


class SignatureScheme(Protocol):
    """One way to check a signature."""

    def check(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` was made with the private half of `public_key`."""
        ...


class ClientsOnly:
    """Trusts the client, and no VM: none is to get itself, or others, a machine."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
        return writer == "client" and self._keyring.verify(writer, message, signature)


class OwnCheck:
    """Trusts, in a VM's journal, the client and that VM."""

    def __init__(self, keyring: Keyring, vm: str) -> None:
        self._keyring = keyring
        self._vm = vm

    def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
        # Another VM's entry is refused by everybody, not only by those who have not met that VM yet.
        if writer.startswith("vm:") and writer != f"vm:{self._vm}":
            return False
        return self._keyring.verify(writer, message, signature)
