"""Which address this computer is seen under, so that SSH is opened to it and to nobody else. Drivers share it."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.request
from collections.abc import Callable, Iterable

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.errors import ConfigError

#: Answers every caller with the caller's own address, and nothing else.
ECHO = "https://checkip.amazonaws.com"
_TIMEOUT = 5.0
#: Longer than any address.
_LONGEST = 64
_HINT = "name the networks that may reach SSH yourself, as `ssh_from` in the table of the cloud in vmrun.toml"

#: Fetches what an address of the web says; injected in tests.
Opener = Callable[[str], bytes]


def fetch(url: str) -> bytes:
    """The first bytes of what stands there. Raises OSError."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - a constant https address
            return bytes(answer.read(_LONGEST))
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP: {type(error).__name__}") from error


def caller_network(opener: Opener = fetch) -> str:
    """The caller's own address as a network of one, such as `198.51.100.7/32`. Raises CloudError if it is not told."""
    try:
        text = opener(ECHO).decode("ascii", "replace").strip()
    except OSError as error:
        raise _unknown(f"{ECHO} does not answer ({type(error).__name__})") from error
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _unknown(f"{ECHO} did not answer with an address") from None
    if not address.is_global:
        raise _unknown(f"{ECHO} saw this computer as {address}, which is nobody's own address")
    return str(ipaddress.ip_network(address))


def networks(configured: Iterable[str], key: str, opener: Opener = fetch) -> tuple[str, ...]:
    """What may reach SSH: the networks of the configuration's `key`, else the caller's own address, sorted.

    Raises ConfigError for what is no network, CloudError when the caller's address cannot be found out.
    """
    wanted = tuple(configured)
    if not wanted:
        return (caller_network(opener),)
    found = []
    for text in wanted:
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError as error:
            raise ConfigError(f"{key}: {error}", hint="write it as 198.51.100.7/32") from None
    return tuple(sorted(set(found)))


def _unknown(message: str) -> CloudError:
    return CloudError(
        f"this computer's own address is not known: {message}", fault=Fault.config, scope=Scope.cloud, hint=_HINT
    )
