"""Where an S3 store's credentials come from: the options, the environment, or the AWS configuration files."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrun.core.errors import ConfigError

from .options import StoreOptions

if TYPE_CHECKING:
    from obstore.store import S3Credential

#: Entries of a profile that only AWS's own tools can turn into keys.
_INDIRECT = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")


@dataclass(frozen=True)
class S3Access:
    """How to sign requests, and for which region."""

    #: None: what the environment or the machine's own identity provides.
    provider: Callable[[], S3Credential] | None
    region: str


def s3_access(options: StoreOptions, environment: Mapping[str, str] = os.environ) -> S3Access:
    """The first of: keys in `options`, its profile, keys in the environment, `AWS_PROFILE`, the default profile.

    Raises ConfigError for half a pair of keys, and for a profile that is not there or holds no keys but a login.
    """
    region = options.region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
    if options.access_key_id or options.secret_access_key:
        return S3Access(_given(options), region)
    name = options.profile
    if not name and not options.anonymous and not environment.get("AWS_ACCESS_KEY_ID"):
        name = environment.get("AWS_PROFILE") or ""
        if not name and "default" in _profiles(environment):
            name = "default"
    if not name or options.anonymous:
        return S3Access(None, region)
    profiles = _profiles(environment)
    if name not in profiles:
        raise ConfigError(
            f"there is no AWS profile {name!r}",
            hint="correct store.profile or AWS_PROFILE; profiles found: " + (", ".join(sorted(profiles)) or "none"),
        )
    profile = profiles[name]
    return S3Access(_of_profile(name, profile), region or profile.get("region", ""))


def _given(options: StoreOptions) -> Callable[[], S3Credential]:
    if not (options.access_key_id and options.secret_access_key):
        raise ConfigError(
            "of store.access_key_id and store.secret_access_key only one is set", hint="set both or neither"
        )
    return lambda: {
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key.reveal(),
        "token": options.session_token.reveal() or None,
        "expires_at": None,
    }


def _profiles(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The profiles of both AWS configuration files, put together by name."""
    found: dict[str, dict[str, str]] = {}
    home = os.path.expanduser("~/.aws")
    for path in (
        environment.get("AWS_CONFIG_FILE") or f"{home}/config",
        environment.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/credentials",
    ):
        parser = configparser.RawConfigParser(default_section="", strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, UnicodeError, configparser.Error) as error:
            raise ConfigError(f"cannot read {path}: {type(error).__name__}", hint="correct the file") from None
        for section in parser.sections():
            found.setdefault(section.removeprefix("profile ").strip(), {}).update(parser.items(section))
    return found


def _of_profile(name: str, profile: Mapping[str, str]) -> Callable[[], S3Credential] | None:
    key, secret, token = (
        profile.get(part) for part in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    )
    if key and secret:
        return lambda: {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": None}
    if any(part in profile for part in _INDIRECT):
        raise ConfigError(
            f"the AWS profile {name!r} has no keys of its own, only a way to get some",
            hint=f'run `eval "$(aws configure export-credentials --profile {name} --format env)"` and try again',
        )
    return None
