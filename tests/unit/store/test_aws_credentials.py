"""Which keys sign S3 requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.core.errors import ConfigError
from vmrun.core.secret import Secret
from vmrun.store.aws_credentials import s3_access
from vmrun.store.options import StoreOptions

CREDENTIALS = """
[default]
aws_access_key_id = DEFAULT
aws_secret_access_key = d%fault

[temporary]
aws_access_key_id = TEMPORARY
aws_secret_access_key = temporary
aws_session_token = token
"""
CONFIG = """
[default]
region = eu-central-1

[profile temporary]
region = us-west-2

[profile login]
sso_session = company
region = eu-north-1

[sso-session company]
sso_start_url = https://company.example/start
"""
GIVEN = StoreOptions(access_key_id="GIVEN", secret_access_key=Secret("given"))


@pytest.fixture
def aws(isolated: Path) -> Path:
    (isolated / ".aws").mkdir()
    (isolated / ".aws" / "credentials").write_text(CREDENTIALS)
    (isolated / ".aws" / "config").write_text(CONFIG)
    return isolated / ".aws"


def signs_with(options: StoreOptions, environment: dict[str, str]) -> tuple[str | None, str]:
    access = s3_access(options, environment)
    return access.provider()["access_key_id"] if access.provider else None, access.region


@pytest.mark.parametrize(
    ("options", "environment", "key_id", "region"),
    [
        (GIVEN, {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_PROFILE": "temporary"}, "GIVEN", ""),
        (StoreOptions(profile="temporary"), {"AWS_ACCESS_KEY_ID": "ENVIRONMENT"}, "TEMPORARY", "us-west-2"),
        (StoreOptions(profile="temporary", region="sa-east-1"), {}, "TEMPORARY", "sa-east-1"),
        (StoreOptions(), {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_PROFILE": "temporary"}, None, ""),
        (StoreOptions(), {"AWS_PROFILE": "temporary", "AWS_REGION": "ap-south-1"}, "TEMPORARY", "ap-south-1"),
        (StoreOptions(), {"AWS_DEFAULT_REGION": "ap-east-1"}, "DEFAULT", "ap-east-1"),
        (StoreOptions(), {}, "DEFAULT", "eu-central-1"),
        (StoreOptions(anonymous=True), {"AWS_PROFILE": "temporary"}, None, ""),
        (StoreOptions(), {"AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}, None, ""),
    ],
)
@pytest.mark.usefixtures("aws")
def test_the_nearest_keys_count(
    options: StoreOptions, environment: dict[str, str], key_id: str | None, region: str
) -> None:
    assert signs_with(options, environment) == (key_id, region)


@pytest.mark.usefixtures("aws")
def test_a_profile_brings_its_session_token() -> None:
    access = s3_access(StoreOptions(profile="temporary"), {})
    assert access.provider is not None
    assert access.provider()["token"] == "token"
    access = s3_access(GIVEN, {"AWS_SESSION_TOKEN": "stale"})
    assert access.provider is not None
    assert access.provider()["token"] is None


@pytest.mark.usefixtures("aws")
def test_a_login_and_an_unknown_profile_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="'login'") as caught:
        s3_access(StoreOptions(profile="login"), {})
    assert "aws configure export-credentials --profile login" in caught.value.hint
    with pytest.raises(ConfigError, match="'nobody'") as caught:
        s3_access(StoreOptions(), {"AWS_PROFILE": "nobody"})
    assert "default, login" in caught.value.hint


def test_a_broken_file_is_named_and_not_quoted(aws: Path) -> None:
    (aws / "credentials").write_text("aws_secret_access_key = s3cret\n")
    with pytest.raises(ConfigError, match="credentials") as caught:
        s3_access(StoreOptions(), {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.usefixtures("isolated")
def test_without_any_file_the_machine_itself_is_asked() -> None:
    assert signs_with(StoreOptions(), {}) == (None, "")
