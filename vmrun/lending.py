"""How machines get at the store: by an identity of their own, with keys lent for a while, or with the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import Enum

from .core.clock import Clock
from .core.errors import ConfigError
from .fleet.order import StoreAccess
from .provisioners.context import ProvisionerContext
from .registry import EC2, lend_store_access
from .settings import Settings
from .store.options import StoreOptions

#: Seconds for which keys that were lent for one machine are given to the next one, too.
LOAN_REUSED = 300.0
#: Machines that are this computer: nothing is placed anywhere.
_HERE = ("local",)


class Way(Enum):
    """Whose keys a machine works with."""

    #: The store needs none.
    none = "none"
    #: Those of [store]: the user wrote them down for this.
    given = "given"
    #: Those of this process, as there is nobody to lend others.
    own = "own"
    #: Those of this process, which end by themselves.
    session = "session"
    #: Others, that last for the machine's life at most, and reach one prefix of one bucket.
    lent = "lent"


class Lender:
    """One deployment's ways to its store."""

    def __init__(
        self,
        settings: Settings,
        options: StoreOptions,
        clock: Clock,
        context: Callable[[str], ProvisionerContext],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`context` is what a driver of that name is opened with."""
        self._settings = settings
        self._options = options
        self._clock = clock
        self._context = context
        self._environ = environ
        #: By driver: when it was lent, for how many seconds, and what.
        self._loans: dict[str, tuple[float, float, dict[str, str]]] = {}

    def access(self, on: str, lifetime: float) -> StoreAccess:
        """How a machine of that driver, which lives `lifetime` seconds at most, reaches the store.

        Raises CloudError when keys are to be lent and AWS refuses.
        """
        options, secrets = self._options.to_data(), self._options.secrets_to_data()
        if endpoint := self._endpoint(on):
            options["endpoint"] = endpoint
        way = self.way(on)
        if way not in (Way.none, Way.given):
            lent = self._lent(on, lifetime) if way is Way.lent else None
            secrets, found = _apart(_of_environment(self._environ) if lent is None else lent)
            options.update(found)
        return StoreAccess(self._settings.store.url, options, secrets)

    def way(self, on: str) -> Way:
        """Whose keys a machine of that driver works with."""
        if self._options.secrets_to_data():
            return Way.given
        if not self._settings.store.url.startswith("s3://"):
            return Way.none
        if self._endpoint(on) or on in _HERE:
            return Way.own
        role = self._settings.driver_table(EC2).get("store_role")
        if on != EC2 and self._environ.get("AWS_SESSION_TOKEN") and not role:
            # Nothing can be lent by who works with borrowed keys; they end soon enough.
            return Way.session
        return Way.lent

    def warning(self, on: str) -> str:
        """That long-lived keys of the user's are placed on machines of that driver, and why; "" if none are."""
        way = self.way(on)
        where = f"in a file on tmpfs that only root reads (0600) on each machine of {on}"
        if on in _HERE or (self._options.session_token and way is Way.given):
            return ""
        if way is Way.given:
            return f"the keys in [store] are placed as they are, {where}"
        if way is Way.own and self._environ.get("AWS_SECRET_ACCESS_KEY") and not self._environ.get("AWS_SESSION_TOKEN"):
            return f"your own keys are placed, {where}: the service at {self._endpoint(on)} lends none for a while"
        return ""

    def _endpoint(self, on: str) -> str:
        return str(self._settings.driver_table(on).get("store_endpoint") or self._options.endpoint)

    def _lent(self, on: str, lifetime: float) -> dict[str, str] | None:
        """What is lent; asked for anew when it is a few minutes old, or would end before the machine does.

        None where the SDK for that is not installed.
        """
        now = self._clock.monotonic()
        at, seconds, lent = self._loans.get(on, (float("-inf"), 0.0, {}))
        if now - at <= LOAN_REUSED and lifetime <= seconds - (now - at):
            return lent
        context = self._context(EC2)
        try:
            lent = lend_store_access(on, context, self._settings.store.url, lifetime, region=self._options.region)
        except ConfigError as error:
            if on == EC2 or "not installed" not in error.message:
                raise
            context.progress(f"your own keys are placed on machines of {on}: {error.hint} lets others be lent")
            return None
        self._loans[on] = now, lifetime, lent
        return lent


def _apart(keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Keys as secrets, and as options that are none."""
    secrets = {name: value for name, value in keys.items() if name != "access_key_id"}
    return secrets, {name: value for name, value in keys.items() if name not in secrets}


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The keys that this process works with, by the names of the store's options; {} for half a pair."""
    key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key or not secret:
        return {}
    token = environ.get("AWS_SESSION_TOKEN")
    return {"access_key_id": key, "secret_access_key": secret, **({"session_token": token} if token else {})}
