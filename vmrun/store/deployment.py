"""Whose store this is: one record per bucket (or prefix), written when the store has passed the probe."""

from __future__ import annotations

from dataclasses import dataclass

from vmrun.core import keys
from vmrun.core.clock import Clock, Rng
from vmrun.core.codec import canonical, from_data, parse, to_data
from vmrun.core.errors import ConfigError, Corrupt, KeyExists, KeyNotFound, SchemaError, StoreUnavailable
from vmrun.core.ids import DEPLOYMENT_CHARACTERS, new_deployment_id
from vmrun.core.storage import BlobStore

from .probe import probe

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Deployment:
    """All jobs and VMs that share one store and one client key."""

    #: 8 characters a-z and 0-9: part of the name of every VM.
    id: str
    schema: int
    #: Seconds since the epoch, by the clock of the client that made it.
    created: float
    #: When the store passed the probe; same clock.
    probed: float
    #: The client's public key, hexadecimal: whose signatures count here.
    public_key: str


def read_deployment(store: BlobStore) -> Deployment | None:
    """The store's record; None when the store is not in use yet.

    Raises SchemaError when a newer vmrun wrote it, Corrupt when it cannot be read.
    """
    try:
        body = store.get(keys.DEPLOYMENT)
    except KeyNotFound:
        return None
    data = parse(body)
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise SchemaError(
            f"the store was set up by a newer version of vmrun (schema {schema}, known {SCHEMA})",
            hint="upgrade vmrun: `pip install --upgrade vmrun`",
        )
    deployment = from_data(Deployment, data)
    if not _is_deployment_id(deployment.id):
        raise Corrupt(
            f"{keys.DEPLOYMENT} holds no usable id", hint="restore the object from a backup, or use an empty store"
        )
    return deployment


def ensure_deployment(store: BlobStore, public_key: bytes, clock: Clock, rng: Rng) -> Deployment:
    """The store's record; for a fresh store it is made, after the store has passed the probe.

    Of clients that do this at once all get the same one. Raises ConfigError when the record names another client
    key than `public_key`, StoreUnsafe when the store does not pass.
    """
    deployment = read_deployment(store)
    if deployment is None:
        probe(store, clock, rng)
        deployment = _create(store, public_key, clock, rng)
    if deployment.public_key != public_key.hex():
        raise ConfigError(
            f"this store belongs to another deployment ({deployment.id}), whose key is not in the configuration "
            "directory",
            hint="copy the configuration directory (VMRUN_CONFIG_DIR) of the machine that set the store up, "
            "or set store.url (VMRUN_STORE) to a store or prefix of your own",
        )
    return deployment


def _create(store: BlobStore, public_key: bytes, clock: Clock, rng: Rng) -> Deployment:
    now = clock.now()
    mine = Deployment(new_deployment_id(clock, rng), SCHEMA, now, now, public_key.hex())
    try:
        store.create(keys.DEPLOYMENT, canonical(to_data(mine)))
    except KeyExists:
        pass
    except StoreUnavailable:
        if read_deployment(store) is None:
            raise
    else:
        return mine
    other = read_deployment(store)
    if other is None:
        raise StoreUnavailable(f"{keys.DEPLOYMENT} was there and is gone again", hint="is somebody emptying the store?")
    return other


def _is_deployment_id(text: str) -> bool:
    return len(text) == DEPLOYMENT_CHARACTERS and text.isascii() and text.isalnum() and text == text.lower()
