"""What a store needs to know beside its URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vmrun.core.errors import ConfigError
from vmrun.core.secret import Secret

_NONE = Secret("")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How to reach and use an object store; the defaults suit a directory, and AWS with credentials in the environment.

    Without keys here, those of the environment, of the AWS configuration files or of the machine's own identity
    are used. For az:// the key id is the storage account and the secret its key; for gs:// the session token is
    a bearer token.
    """

    #: URL of an S3-compatible service; empty: the cloud's own.
    endpoint: str = ""
    region: str = ""
    #: Section of the AWS configuration files; empty: `AWS_PROFILE`, else `default`.
    profile: str = ""
    access_key_id: str = ""
    secret_access_key: Secret = _NONE
    session_token: Secret = _NONE
    #: PEM file with certificates to trust in addition to the system's.
    ca_file: str = ""
    #: Whether the bucket stands in the path (else in the host name).
    path_style: bool = True
    #: Send requests unsigned.
    anonymous: bool = False
    #: For a directory: whether an acknowledged write survives a power failure.
    fsync: bool = True

    def to_data(self) -> dict[str, Any]:
        """Everything but the secrets, as JSON values; what has its default is left out."""
        return {
            field.name: value
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), Secret) and value != field.default
        }

    def secrets_to_data(self) -> dict[str, str]:
        """The secrets, as JSON values: to be sent over a safe channel and never stored beside the rest."""
        return {
            field.name: value.reveal()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Secret) and value
        }

    @classmethod
    def from_data(cls, data: Mapping[str, object], secrets: Mapping[str, str] | None = None) -> StoreOptions:
        """The options that `to_data` and `secrets_to_data` came from.

        Raises ConfigError for a name or a type that does not belong there, a secret among the data included.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in data.items():
            if name not in defaults or type(value) is not type(defaults[name]):
                raise _unexpected(name)
            values[name] = value
        for name, text in (secrets or {}).items():
            if not isinstance(defaults.get(name), Secret):
                raise _unexpected(name)
            values[name] = Secret(text)
        return cls(**values)


def _unexpected(name: str) -> ConfigError:
    known = ", ".join(field.name for field in fields(StoreOptions))
    return ConfigError(f"store option {name!r} is unknown or not of its type", hint=f"the store options are {known}")
