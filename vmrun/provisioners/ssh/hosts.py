"""Hosts as the configuration names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from vmrun.core import keys
from vmrun.core.errors import ConfigError

_HOST = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?(?P<place>[^@\s/]+)")
#: A name or an address; an IPv6 address stands in brackets when a port follows.
_PLACE = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*))(?::(?P<port>\d{1,5}))?")
_BARE_SIX = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]+")


@dataclass(frozen=True, slots=True)
class HostName:
    """Where SSH goes."""

    #: "" for whoever the SSH configuration says.
    user: str
    host: str
    #: 0 for what the SSH configuration says.
    port: int = 0

    @property
    def place(self) -> str:
        """The host without the user: what offers and messages call it."""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def text(self) -> str:
        """As it stands in the configuration."""
        return f"{self.user}@{self.place}" if self.user else self.place

    @property
    def key(self) -> str:
        """What the store calls it: whoever logs in, it is the same host."""
        return keys.host_id(self.host, self.port or 22)


def parse_host(text: str) -> HostName:
    """A host as people write it. Raises ConfigError."""
    found = _HOST.fullmatch(text.strip())
    place = found["place"] if found else ""
    six = _BARE_SIX.fullmatch(place)
    parts = _PLACE.fullmatch(f"[{place}]" if six else place)
    if found is None or parts is None or int(parts["port"] or 0) > 65535:
        raise ConfigError(f"[ssh] hosts: {text[:80]!r} is no host", hint="write user@host or user@host:port")
    return HostName(found["user"] or "", parts["six"] or parts["name"], int(parts["port"] or 0))


def configured_hosts(settings: Mapping[str, object]) -> tuple[HostName, ...]:
    """The hosts of the table `[ssh]`, each once. Raises ConfigError if there is none, or one that is no host."""
    found = {host.key: host for host in map(parse_host, cast("tuple[str, ...]", settings.get("hosts") or ()))}
    if not found:
        raise ConfigError(
            "there is no host to borrow",
            hint='name those that you have in vmrun.toml: [ssh] hosts = ["user@host", …]',
        )
    return tuple(found.values())
