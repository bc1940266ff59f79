"""User data as vmrun sends it, and the way in that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.docker.machines import BOOT, CLOCK
from vmrun.core.clouds import Address
from vmrun.machine.user_data import Seed, user_data
from vmrun.transport.keys import KeyPair, new_key_pair
from vmrun.transport.ssh import Login, SshHost


@dataclass(frozen=True)
class Keys:
    """For one machine."""

    client: KeyPair
    host: KeyPair

    def user_data(self, lifetime: float = 600.0) -> str:
        """cloud-config that lets this key in and powers the machine off after `lifetime` seconds."""
        seed = Seed(
            hard_deadline=float(int(CLOCK.now() + lifetime)),
            client_public_key=self.client.public,
            host_private_key=self.host.private,
            host_public_key=self.host.public,
            boot_grace=300.0,
        )
        return user_data(seed)

    def enter(self, address: str, timeout: float = BOOT) -> SshHost:
        """A connection to the machine there, which must show the host key of its user data."""
        host = SshHost(Login(Address(address), self.client.private, (self.host.public,)), CLOCK)
        host.connect(timeout=timeout)
        return host


def new_keys() -> Keys:
    """Keys that no other machine has."""
    return Keys(new_key_pair("client"), new_key_pair("host"))
