"""What fleet work is done with: the desk, the drivers, and this client's own files about machines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from vmrun.catalog.extras import NO_EXTRAS, Extras
from vmrun.core.clock import Clock
from vmrun.core.clouds import Address, Need, Offer, Provisioner
from vmrun.core.errors import Unreachable
from vmrun.core.ids import check_id
from vmrun.core.ledger import Desk
from vmrun.machine.layout import LOGIN_USER

from .order import StoreAccess, Timings

OnStage = Callable[[str], None]


def _itself(on: str) -> tuple[str, ...]:
    return (on,)


def _usual(_: str) -> Timings:
    return Timings()


def _nothing(_: Offer, __: Need) -> Extras:
    return NO_EXTRAS


def _unnoticed(_: str) -> None:
    return


def _untold() -> float | None:
    return None


def _stays() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Deck:
    """The tools of fleet work."""

    desk: Desk
    #: The deployment's id.
    deployment: str
    #: The client's public key, in hexadecimal.
    client_key: str
    provisioner: Callable[[str], Provisioner]
    #: How machines of a cloud, which live so many seconds at most, reach the store.
    store_access: Callable[[str, float], StoreAccess]
    #: The deployment that the store says it is, read anew; "" if it says nothing. Raises StoreError.
    recorded: Callable[[], str]
    state_dir: Path
    cache_dir: Path
    #: The drivers that `--on` stands for.
    clouds: Callable[[str], tuple[str, ...]] = _itself
    #: The host to go through to a driver's machines, as in the configuration; "" for none.
    proxy_jump: Callable[[str], str] = lambda _: ""
    #: The bounds of a machine's life with a driver.
    timings: Callable[[str], Timings] = _usual
    #: What is paid for beside a machine: its disk and its address.
    extras: Callable[[Offer, Need], Extras] = _nothing
    #: Seconds since the epoch on the clock of the store's server; None if it has none. Raises StoreUnavailable.
    store_time: Callable[[], float | None] = _untold
    #: Told of each VM before anything of it is written.
    begun: Callable[[str], None] = _unnoticed
    #: Told of each VM that its cloud accepted for the order's job, or that was given the job.
    joined: Callable[[str], None] = _unnoticed
    #: For giving back, where the desk's clock may end a wait because nobody wants a machine any more.
    steady: Clock | None = None
    #: Whether whoever waits is leaving: then nobody watches what is given back until it is seen to be gone.
    leaving: Callable[[], bool] = _stays
    #: Held while a cloud's account is prepared: several that find nothing there must not all make it.
    preparing: AbstractContextManager[object] = field(default_factory=nullcontext)

    def undisturbed(self) -> Deck:
        """The same, with a clock on which nothing ends a wait."""
        return replace(self, desk=replace(self.desk, clock=self.steady)) if self.steady is not None else self


@dataclass(frozen=True, slots=True)
class Session:
    """A client's way into one machine: kept while the machine lives, for `vmrun ssh`."""

    directory: Path

    @classmethod
    def of(cls, deck: Deck, vm: str) -> Session:
        """The session of a VM, whether or not this client has one."""
        return cls(deck.state_dir / "sessions" / check_id(vm, "VM"))

    @property
    def key_file(self) -> Path:
        """The private key."""
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The pinned host key, in OpenSSH's format."""
        return self.directory / "known_hosts"

    def save(self, private_key: str, host: str, port: int, host_key: str) -> None:
        """Keep the key and the pin, readable by this user only."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = host if port == 22 else f"[{host}]:{port}"
        for path, text in ((self.key_file, private_key), (self.known_hosts, f"{name} {host_key}\n")):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)

    def address(self) -> Address:
        """Where the machine was reached when the pin was saved, for its login user. Raises OSError."""
        name = self.known_hosts.read_text("utf-8").split(" ", 1)[0]
        host, _, port = name.removeprefix("[").partition("]:")
        return Address(host, int(port or 22), LOGIN_USER)

    def exists(self) -> bool:
        """Whether this client has a way in."""
        return self.key_file.is_file()

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def read_json(data: bytes, what: str) -> dict[str, object]:
    """The JSON object in a command's output. Raises Unreachable."""
    try:
        found = json.loads(data.decode().strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Unreachable(f"{what} answered {data[-200:]!r}") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{what} answered {data[-200:]!r}")
    return found
