"""What time a store's server thinks it is: clouds refuse requests of a computer whose clock is minutes off."""

from __future__ import annotations

import email.utils
import ssl
import urllib.error
import urllib.request

from vmrun.core.errors import StoreUnavailable

#: Seconds for the answer.
TIMEOUT = 10.0


def server_of(url: str, endpoint: str) -> str:
    """The address of the server behind a store's URL; "" for a store that has none, or none that is known."""
    if endpoint:
        return endpoint
    scheme, _, rest = url.partition("://")
    if scheme == "az":
        return f"https://{rest.partition('.')[0]}.blob.core.windows.net" if ".blob." in rest else ""
    return {"s3": "https://s3.amazonaws.com", "gs": "https://storage.googleapis.com"}.get(scheme, "")


def server_time(address: str, ca_file: str = "") -> float:
    """Seconds since the epoch on the server's clock, to the second. Raises StoreUnavailable when it does not tell."""
    if not address.startswith(("http://", "https://")):
        raise StoreUnavailable(f"{address} is no address of a server", hint="see to store.endpoint")
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 -- http and https only, see above
        context = ssl.create_default_context(cafile=ca_file or None)
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
            told = answer.headers.get("Date", "")
    except urllib.error.HTTPError as error:
        # A refusal has a date as well.
        told = error.headers.get("Date", "")
        error.close()
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"{address} does not answer: {error}") from error
    try:
        return email.utils.parsedate_to_datetime(told).timestamp()
    except (TypeError, ValueError) as error:
        raise StoreUnavailable(f"{address} does not tell the time") from error
