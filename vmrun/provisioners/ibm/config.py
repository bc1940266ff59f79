"""The driver's table of the configuration as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from vmrun.core.secret import Secret

ON = "ibm"
#: Date of the API's behaviour. From 2026-09-01 on `vcpu_count` of a profile is an enumeration or a range.
API_VERSION = "2026-06-30"


@dataclass(frozen=True, slots=True)
class IbmConfig:
    """`[ibm]` of the configuration; the meaning of each key stands in its settings."""

    regions: tuple[str, ...] = ("us-south",)
    api_key: Secret = field(default_factory=lambda: Secret(""))
    endpoint: str = ""
    iam_endpoint: str = ""
    resource_group: str = ""
    vpc: str = ""
    subnets: tuple[str, ...] = ()
    security_group: str = ""
    image: str = ""
    trusted_profile: str = ""
    #: Bytes.
    disk: int = 100 * 10**9
    public_ip: bool = True
    ssh_from: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> IbmConfig:
        """The keys that this driver knows, of a table that was checked already."""
        known = {key: settings[key] for key in cls.__dataclass_fields__ if settings.get(key) is not None}
        known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
        return cls(**cast(dict[str, Any], known))

    @property
    def one_server(self) -> bool:
        """Whether one address answers for all regions, so that its lists are not of one region alone."""
        return bool(self.endpoint)

    def address(self, region: str) -> str:
        """Base of the VPC API's paths in a region."""
        return f"{(self.endpoint or f'https://{region}.iaas.cloud.ibm.com').rstrip('/')}/v1"
