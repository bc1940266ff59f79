"""Credentials for machines without an instance profile: they last for a while, and reach one prefix of one bucket."""

from __future__ import annotations

import json
from collections.abc import Callable

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.errors import ConfigError
from vmrun.core.units import format_duration
from vmrun.provisioners.context import ProvisionerContext

from .api import Aws
from .config import Ec2Config
from .policy import store_access

#: Seconds that AWS lends credentials for, at least and at most: a role's, a user's own, and a role's without its say.
_SHORTEST = 900
_LONGEST_OF_ROLE, _LONGEST_OF_USER = 43_200, 129_600
_ROLE_WITHOUT_SAY = 3600
#: The name under which they appear in AWS's records; the policy of the launcher names it too.
_NAME = "vmrun"
_HINT = "set ec2.instance_profile (best), or ec2.store_role, or submit with an IAM user's own keys"


def store_credentials(context: ProvisionerContext, url: str, lifetime: float) -> dict[str, str]:
    """Keys for a machine that lives `lifetime` seconds, by the names of the store's options; {} when it needs none.

    It needs none when it has an instance profile. Otherwise they come from `ec2.store_role`, or from the caller's own
    rights, and are never more than the caller's. Raises CloudError; ConfigError for a URL that is not s3://.
    """
    config = Ec2Config.from_table(context.settings)
    if config.instance_profile:
        return {}
    return lend(Aws(config, context.clock, context.rng), config, url, lifetime, tell=context.progress)


def lend(
    aws: Aws, config: Ec2Config, url: str, lifetime: float, *, tell: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """As `store_credentials`, through a given connection. `tell` hears it when they do not last for the lifetime."""
    if not url.startswith("s3://") or url == "s3://":
        raise ConfigError(f"the store {url} is not one that AWS can lend credentials for", hint="s3://bucket/prefix")
    region = config.regions[0]
    policy = session_policy(region, url)
    if config.store_role:
        found, seconds = _of_role(aws, region, config.store_role, policy, lifetime)
    else:
        found, seconds = _of_user(aws, region, policy, lifetime)
    if seconds < lifetime:
        tell(
            f"machines on ec2 reach the store for {format_duration(seconds)} and may live {format_duration(lifetime)}: "
            "for longer jobs set ec2.instance_profile"
        )
    return {
        "access_key_id": found["AccessKeyId"],
        "secret_access_key": found["SecretAccessKey"],
        "session_token": found["SessionToken"],
    }


def session_policy(region: str, url: str) -> str:
    """The most that the credentials may do, in JSON without spaces: AWS limits its length."""
    statements = [{key: value for key, value in one.items() if key != "Sid"} for one in store_access(region, url)]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _of_role(aws: Aws, region: str, role: str, policy: str, lifetime: float) -> tuple[dict[str, str], int]:
    def take(seconds: int) -> dict[str, str]:
        answer = aws.call(
            region,
            "sts:AssumeRole",
            RoleArn=role,
            RoleSessionName=_NAME,
            Policy=policy,
            DurationSeconds=seconds,
        )
        return dict(answer["Credentials"])

    seconds = bounded(lifetime, _LONGEST_OF_ROLE)
    try:
        return take(seconds), seconds
    except CloudError as error:
        # The role says for how long it may be taken, and whoever has taken one already may take it for an hour.
        if error.cloud_code != "ValidationError" or seconds <= _ROLE_WITHOUT_SAY:
            raise
        return take(_ROLE_WITHOUT_SAY), _ROLE_WITHOUT_SAY


def _of_user(aws: Aws, region: str, policy: str, lifetime: float) -> tuple[dict[str, str], int]:
    seconds = bounded(lifetime, _LONGEST_OF_USER)
    try:
        answer = aws.call(region, "sts:GetFederationToken", Name=_NAME, Policy=policy, DurationSeconds=seconds)
    except CloudError as error:
        if error.fault is not Fault.permission:
            raise
        raise CloudError(
            f"no short-lived credentials for the machines: {error.message}",
            fault=Fault.permission,
            scope=Scope.cloud,
            cloud_code=error.cloud_code,
            hint=f"{_HINT}; {error.hint}",
        ) from error
    return dict(answer["Credentials"]), seconds


def bounded(lifetime: float, longest: int) -> int:
    """Whole seconds that AWS accepts, as near to `lifetime` as it does."""
    return int(min(max(lifetime, _SHORTEST), longest))
