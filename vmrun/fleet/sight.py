"""Whether machines of a driver can see the store."""

from __future__ import annotations

from collections.abc import Iterable

from vmrun.core.clouds import Offer, Provisioner
from vmrun.core.errors import UsageError

from .offering import Sellers


def mounts(provisioner: Provisioner, url: str) -> tuple[str, ...]:
    """Directories of this computer that a machine needs to see the store at `url`.

    Raises UsageError for a machine that can never see it.
    """
    if not url.startswith("file://") or provisioner.capabilities.transport == "process":
        return ()
    if not provisioner.capabilities.mounts:
        raise UsageError(
            f"a machine on {provisioner.name} cannot see the store {url}, a directory of this computer",
            hint="set store.url in vmrun.toml, or VMRUN_STORE, to object storage, for instance s3://bucket/prefix",
        )
    return (url.removeprefix("file://"),)


def check_sight(sellers: Sellers, offers: Iterable[Offer], url: str) -> None:
    """Refuse a store that machines of these offers cannot see, before anything is written or rented for them."""
    for on in dict.fromkeys(offer.on for offer in offers):
        mounts(sellers.provisioner(on), url)
