"""The AWS account around the machines: whether it will do, what must be made in it once, and what it charges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmrun.core.clouds import CloudError, Need
from vmrun.core.estates import Finding, Grade, PriceRow
from vmrun.provisioners.caller import Opener, fetch, networks
from vmrun.provisioners.context import ProvisionerContext

from . import prices
from .api import Aws
from .config import ON, Ec2Config
from .founding import Founder
from .networks import Networks, find_vpc, vpc_of
from .policy import launcher
from .preflight import Preflight


def open_estate(context: ProvisionerContext) -> Ec2Estate:
    """The account that the `[ec2]` table names. Nothing is asked of AWS yet."""
    config = Ec2Config.from_table(context.settings)
    return Ec2Estate(Aws(config, context.clock, context.rng), config, context)


class Ec2Estate:
    """What vmrun needs of an AWS account besides machines."""

    name = ON

    def __init__(self, aws: Aws, config: Ec2Config, context: ProvisionerContext, opener: Opener = fetch) -> None:
        self._aws = aws
        self._config = config
        self._clock = context.clock
        self._store_url = context.store_url
        self._opener = opener

    def check(self, need: Need) -> Iterator[Finding]:
        """Credentials first; without them nothing else can be told. Then all that a job needs, region by region."""
        try:
            caller = self._aws.call(self._config.regions[0], "sts:GetCallerIdentity")
        except CloudError as error:
            yield Finding("credentials", Grade.bad, error.message, error.hint)
            return
        yield Finding("credentials", Grade.good, f"{caller['Arn']} of the account {caller['Account']}")
        regions = [region for region in self._config.regions if need.region in ("", region)]
        if not regions:
            yield Finding("region", Grade.bad, f"{need.region} is not among ec2.regions", "add it to ec2.regions")
        for region in regions:
            yield from Preflight(self._aws, self._config, region, self._callers).findings(need)

    def policy(self) -> str:
        """The policy of IAM for who submits jobs, in JSON. `init` needs more, once; an administrator may run it."""
        return launcher(self._config, self._store_url)

    def establish(self, deployment: str) -> Iterator[str]:
        """In each region a group that lets SSH in from the caller only, and a VPC where there is no default one.

        A group that is named in the configuration is the user's own, and left as it is. Raises CloudError, and
        ConfigError for a network of `ec2.ssh_from` that is none.
        """
        for region in self._config.regions:
            yield from self._establish(region, Founder(self._aws, self._clock, region, deployment))

    def dismantle(self, deployment: str) -> Iterator[str]:
        """Remove what `establish` made in the configured regions. CloudError for what machines still use."""
        for region in self._config.regions:
            yield from Founder(self._aws, self._clock, region, deployment).remove()

    def prices(self) -> Iterator[PriceRow]:
        """Types and prices of the configured regions."""
        for region in self._config.regions:
            yield from prices.rows(self._aws, region, self._clock.now())

    def _establish(self, region: str, founder: Founder) -> Iterator[str]:
        try:
            vpc = self._vpc(region)
        except CloudError as error:
            # Only where nothing is configured and AWS has nothing of its own is one made; a mistake stays a mistake.
            if self._config.vpc or self._config.subnets or error.cloud_code:
                raise
            yield from founder.make_vpc()
            vpc = self._vpc(region)
        else:
            if founder.is_mine(vpc):
                # An earlier call may have broken off in the middle of it.
                yield from founder.make_vpc()
        yield f"{region}: VPC {vpc['VpcId']} is there"
        if self._config.security_group:
            yield f"{region}: the group {self._config.security_group} is yours, and left as it is"
            return
        group = founder.make_group(str(vpc["VpcId"]))
        yield f"{region}: group {group} is there"
        yield from founder.open_ssh(group, self._sources(vpc["CidrBlock"]))

    def _vpc(self, region: str) -> dict[str, Any]:
        if self._config.subnets and not self._config.vpc:
            subnets = Networks(self._aws, self._config).subnets(region)
            return vpc_of(self._aws, region, next(iter(subnets.values())).vpc)
        return find_vpc(self._aws, self._config, region)

    def _sources(self, inside: str) -> tuple[str, ...]:
        """Who may reach SSH: as configured, else the VPC itself where machines are private, else the caller."""
        if not self._config.ssh_from and not self._config.public_ip:
            return (inside,)
        return self._callers()

    def _callers(self) -> tuple[str, ...]:
        return networks(self._config.ssh_from, "ec2.ssh_from", self._opener)
