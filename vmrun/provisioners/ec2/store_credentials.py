"""Keys for machines without an instance profile, here or elsewhere: they last a while, and reach one prefix."""

from __future__ import annotations

import json
from collections.abc import Callable

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.errors import ConfigError
from vmrun.core.units import format_duration
from vmrun.provisioners.context import ProvisionerContext

from .api import Aws
from .config import ON, Ec2Config
from .policy import store_access

#: Seconds that AWS lends credentials for, at least and at most: a role's, a user's own, and a role's without its say.
_SHORTEST = 900
_LONGEST_OF_ROLE, _LONGEST_OF_USER = 43_200, 129_600
_ROLE_WITHOUT_SAY = 3600
#: The name under which they appear in AWS's records; the policy of the launcher names it too.
_NAME = "vmrun"
_HINT = "set ec2.instance_profile (best), or ec2.store_role, or submit with an IAM user's own keys"
_HINT_ELSEWHERE = (
    "set ec2.store_role, or write keys that reach this bucket alone into [store]: those are given as they are"
)


def store_credentials(context: ProvisionerContext, url: str, lifetime: float, on: str = ON) -> dict[str, str]:
    """Keys for a machine that lives `lifetime` seconds, by the names of the store's options; {} when it needs none.

    It needs none when it is one of EC2's (by `on`) and has an instance profile. Otherwise they come from
    `ec2.store_role`, or from the caller's own rights, and are never more than the caller's. Raises CloudError;
    ConfigError for a URL that is not s3://.
    """
    config = Ec2Config.from_table(context.settings)
    if config.instance_profile and on == ON:
        return {}
    return lend(Aws(config, context.clock, context.rng), config, url, lifetime, tell=context.progress, on=on)


def lend(
    aws: Aws,
    config: Ec2Config,
    url: str,
    lifetime: float,
    *,
    tell: Callable[[str], None] = lambda _: None,
    on: str = ON,
) -> dict[str, str]:
    """As `store_credentials`, through a given connection. `tell` hears it when they do not last for the lifetime."""
    if not url.startswith("s3://") or url == "s3://":
        raise ConfigError(f"the store {url} is not one that AWS can lend credentials for", hint="s3://bucket/prefix")
    region = config.regions[0]
    policy = session_policy(region, url)
    if config.store_role:
        found, seconds = _of_role(aws, region, config.store_role, policy, lifetime)
    else:
        found, seconds = _of_user(aws, region, policy, lifetime, on)
    if seconds < lifetime:
        longer = "set ec2.instance_profile" if on == ON else "write keys for this bucket alone into [store]"
        tell(
            f"machines on {on} reach the store for {format_duration(seconds)} and may live "
            f"{format_duration(lifetime)}: for longer jobs {longer}"
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


def _of_user(aws: Aws, region: str, policy: str, lifetime: float, on: str) -> tuple[dict[str, str], int]:
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
            hint=f"{_HINT if on == ON else _HINT_ELSEWHERE}; {error.hint}",
        ) from error
    return dict(answer["Credentials"]), seconds


def bounded(lifetime: float, longest: int) -> int:
    """Whole seconds that AWS accepts, as near to `lifetime` as it does."""
    return int(min(max(lifetime, _SHORTEST), longest))
