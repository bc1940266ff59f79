"""The composition root: from settings to the tools that the use cases work with. The only place that names them all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cache, cached_property

from .catalog.extras import Extras, extras
from .core.clock import Clock, Rng, SystemClock, system_rng
from .core.clouds import Need, Offer, Provisioner
from .core.estates import Estate
from .core.ledger import Desk
from .core.signing import Keyring
from .core.storage import BlobStore
from .crypto import Ed25519Scheme, Ed25519Signer, ensure_private_key, public_hex, public_key
from .fleet.budget import price
from .fleet.deck import Deck
from .fleet.offering import Sellers
from .fleet.order import StoreAccess, Timings
from .lending import Lender
from .provisioners.context import ProvisionerContext
from .registry import AUTO, CLOUDS, load_estate, load_provisioner
from .settings import DEFAULT_STORE, Settings
from .settings.configured import configured, configured_clouds
from .store.dates import server_of, server_time
from .store.deployment import Deployment, ensure_deployment, read_deployment
from .store.opening import open_store
from .store.options import StoreOptions
from .store.retrying import RetryingStore

#: Seconds that reads and replaces keep trying while a store does not answer.
STORE_BUDGET = 30.0


class Wiring:
    """One deployment's parts, each made at first use."""

    def __init__(self, settings: Settings, clock: Clock | None = None, rng: Rng | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.rng: Rng = rng or system_rng()
        #: Told what long work is at; whoever waits sets it.
        self.on_stage: Callable[[str], None] = lambda _text: None
        self._provisioner = cache(self._open_provisioner)

    def sibling(self, clock: Clock) -> Wiring:
        """The same deployment for another thread: the store is shared, drivers are not. Waits are on `clock`."""
        other = Wiring(self.settings, clock, self.rng)
        other.blobs, other.deployment = self.blobs, self.deployment
        return other

    @cached_property
    def _options(self) -> StoreOptions:
        store = self.settings.store
        return StoreOptions(
            endpoint=store.endpoint,
            region=store.region,
            access_key_id=store.access_key_id.reveal(),
            secret_access_key=store.secret_access_key,
            session_token=store.session_token,
            ca_file=store.ca_file,
            fsync=store.fsync,
        )

    @cached_property
    def blobs(self) -> BlobStore:
        """The store, with retries where they are safe."""
        store = open_store(self.settings.store.url, self._options)
        return RetryingStore(store, self.clock, self.rng, STORE_BUDGET)

    @cached_property
    def _private_key(self) -> bytes:
        return ensure_private_key(self.settings.config_dir / "keys" / "client.key")

    @cached_property
    def deployment(self) -> Deployment:
        """Who owns what is in the store and in the clouds; made, with a probe of the store, at the very first use."""
        found = ensure_deployment(self.blobs, public_key(self._private_key), self.clock, self.rng)
        self._remember_default_store()
        return found

    def recorded(self) -> str:
        """Id of the deployment that the store belongs to right now; "" if it says nothing. Raises StoreError."""
        found = read_deployment(self.blobs)
        return found.id if found is not None else ""

    def store_time(self) -> float | None:
        """Seconds since the epoch on the clock of the store's server; None if it has none. Raises StoreUnavailable."""
        store = self.settings.store
        server = server_of(store.url, store.endpoint)
        return server_time(server, store.ca_file) if server else None

    def _remember_default_store(self) -> None:
        """Note the default store in the configuration directory, which is all that another computer is given."""
        path = self.settings.config_dir / DEFAULT_STORE
        if self.settings.store_is_default and not path.exists():
            with contextlib.suppress(OSError):
                path.write_text(f"{self.settings.store.url}\n", "utf-8")

    @cached_property
    def desk(self) -> Desk:
        """Journals, read and written as the client."""
        keyring = Keyring(Ed25519Scheme(), {"client": public_key(self._private_key)})
        signer = Ed25519Signer("client", self._private_key)
        # No journal before the store is known to be this deployment's own.
        return Desk(self.blobs, self.clock, self.rng, keyring, signer, self.deployment.id)

    @cached_property
    def deck(self) -> Deck:
        """What fleet work is done with."""
        return Deck(
            desk=self.desk,
            deployment=self.deployment.id,
            client_key=public_hex(self._private_key),
            provisioner=self._provisioner,
            store_access=self.store_access,
            recorded=self.recorded,
            state_dir=self.settings.state_dir,
            cache_dir=self.settings.cache_dir,
            clouds=self.clouds,
            timings=self.timings,
            proxy_jump=self.proxy_jump,
            extras=self.extras,
            store_time=self.store_time,
        )

    def extras(self, offer: Offer, need: Need) -> Extras:
        """What the disk and the public address of a machine cost beside it."""
        table = self.settings.driver_table(offer.on)
        disk = max(need.disk, int(table.get("disk") or 0))
        return extras(offer.on, disk=disk, address=bool(table.get("public_ip")))

    def priced(self, need: Need) -> Callable[[Offer], float | None]:
        """What an offer costs an hour with its disk and address; None where its price is not known."""
        return lambda offer: price(offer, self.extras(offer, need))

    def proxy_jump(self, on: str) -> str:
        """The host to go through to machines of that driver; "" for none."""
        return str(self.settings.driver_table(on).get("proxy_jump", ""))

    @property
    def sellers(self) -> Sellers:
        """Whom to ask for offers."""
        return Sellers(self.clock, self.rng, self._provisioner, self.clouds, self._progress)

    def clouds(self, on: str) -> tuple[str, ...]:
        """The drivers that `on` stands for. Raises ConfigError if there is none."""
        return configured_clouds(self.settings, os.environ) if on == AUTO else (on,)

    def configured(self) -> tuple[str, ...]:
        """The clouds that are configured here; none may be."""
        return tuple(name for name in CLOUDS if configured(name, self.settings, os.environ))

    def provisioner(self, name: str) -> Provisioner:
        """The driver of that name, opened once."""
        return self._provisioner(name)

    def _progress(self, text: str) -> None:
        self.on_stage(text)

    def estate(self, name: str) -> Estate:
        """What a cloud account holds besides machines, opened anew."""
        return load_estate(name, self._context(name))

    def _open_provisioner(self, name: str) -> Provisioner:
        return load_provisioner(name, self._context(name))

    def _context(self, name: str) -> ProvisionerContext:
        return ProvisionerContext(
            state_dir=self.settings.state_dir,
            cache_dir=self.settings.cache_dir,
            clock=self.clock,
            rng=self.rng,
            settings=self.settings.driver_table(name),
            store_url="" if self.settings.store.endpoint else self.settings.store.url,
            desk=lambda: self.desk,
            progress=self._progress,
        )

    @cached_property
    def lender(self) -> Lender:
        """How machines get at the store."""
        return Lender(self.settings, self._options, self.clock, self._context)

    def store_access(self, on: str, lifetime: float) -> StoreAccess:
        """How a machine of that driver, which lives `lifetime` seconds at most, reaches the store."""
        return self.lender.access(on, lifetime)

    def timings(self, on: str) -> Timings:
        """The bounds of a machine's life with that driver."""
        section = self.settings.section_for(on)
        near = self.settings.store.url.startswith("file://")
        return Timings(
            boot_grace=section.boot_grace,
            lease=section.lease,
            heartbeat=section.heartbeat,
            dead_after=section.dead_after,
            flush_grace=section.flush_grace,
            deadman_poll=section.deadman_poll,
            ssh_timeout=section.ssh_timeout,
            poll_min=0.002 if near else 0.1,
            poll_max=0.05 if near else 1.0,
        )
