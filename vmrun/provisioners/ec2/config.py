"""The `[ec2]` table as the driver reads it: typed, with the defaults of the settings for what a caller leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from vmrun.core.errors import ConfigError

#: What `--on` and the tables of the configuration call this cloud.
ON = "ec2"


@dataclass(frozen=True, slots=True)
class Ec2Config:
    """What is configured; the meaning of each key stands in `configs/reference.toml`."""

    regions: tuple[str, ...] = ("us-east-1",)
    profile: str = ""
    endpoint: str = ""
    metadata_endpoint: str = ""
    vpc: str = ""
    subnets: tuple[str, ...] = ()
    security_group: str = ""
    image: str = ""
    image_owners: tuple[str, ...] = ("099720109477", "amazon", "self")
    instance_profile: str = ""
    store_role: str = ""
    #: Bytes.
    disk: int = 100 * 10**9
    public_ip: bool = True
    proxy_jump: str = ""
    ssh_from: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> Ec2Config:
        """The keys that concern this driver. Raises ConfigError for one of another type than its default's."""
        found: dict[str, object] = {}
        for each in fields(cls):
            if each.name not in table:
                continue
            value = table[each.name]
            value = tuple(value) if isinstance(value, list) else value
            if type(value) is not type(each.default):
                raise ConfigError(f"ec2.{each.name} is not a {type(each.default).__name__}", hint="see vmrun.toml")
            found[each.name] = value
        return cls(**found)  # type: ignore[arg-type]
