"""What everybody who reads or writes journals works with."""

from __future__ import annotations

from dataclasses import dataclass

from .clock import Clock, Rng
from .errors import Corrupt
from .journal import Journal
from .signing import Keyring, Signer, Verifier
from .storage import BlobStore


@dataclass(frozen=True, slots=True)
class Desk:
    """The store, who writes, and whom to trust."""

    store: BlobStore
    clock: Clock
    rng: Rng
    keyring: Keyring
    signer: Signer | None = None
    #: Id of the deployment; jobs and VMs of another one, copied here, are refused. "" knows of no others.
    deployment: str = ""

    def check_deployment(self, found: str, whose: str) -> None:
        """Raise Corrupt when `found` is another deployment than this one."""
        if self.deployment and found != self.deployment:
            raise Corrupt(
                f"{whose} belongs to another deployment ({found[:40]!r}); nothing of it was used",
                hint="it was copied into this store, and has to be deleted from it",
            )

    def journal(self, prefix: str, verifier: Verifier | None = None) -> Journal:
        """The journal under `prefix`, nothing read yet."""
        return Journal(
            self.store,
            prefix,
            clock=self.clock,
            rng=self.rng,
            verifier=verifier or self.keyring,
            signer=self.signer,
        )
