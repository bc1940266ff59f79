"""An EC2 in this process: moto, whose accounts are empty at the start of each test."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.unit.provisioners.ec2.offers import OWNER, REGION, an_offer
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, InstanceSpec, instance_name
from vmrun.core.ids import new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.ec2.api import DRY_RUN, Aws
from vmrun.provisioners.ec2.config import Ec2Config
from vmrun.provisioners.ec2.driver import Ec2Provisioner
from vmrun.provisioners.ec2.errors import Request, refused
from vmrun.provisioners.ec2.networks import TAG_ESTATE

CANONICAL = "099720109477"


@cache
def session() -> Any:
    """One for all tests: most of the time that a client takes to be made is spent on reading the SDK's own data."""
    return boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing")


class TellingAws(Aws):
    """Notes every call, and answers some with an error of AWS instead."""

    def __init__(self, config: Ec2Config, clock: ManualClock, rng: random.Random) -> None:
        super().__init__(config, clock, rng)
        self._session = session()
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        #: Operation -> code of the error, message, and how often (-1: always).
        self.errors: dict[str, list[tuple[str, str]]] = {}
        #: Operation -> what answers instead of AWS.
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}

    def _once(self, request: Request, parameters: Any) -> dict[str, Any]:
        self.calls.append((request.action, request.region, dict(parameters)))
        operation = request.action.partition(":")[2]
        if self.errors.get(operation):
            code, message = self.errors[operation].pop(0)
            if code:
                raise refused(request, code, message)
        if parameters.get("DryRun") and operation.startswith("Describe"):
            # moto answers these as if they were meant, and some with all of its thousands of images.
            raise refused(request, DRY_RUN, "Request would have succeeded, but DryRun flag is set.")
        if operation in self.answers:
            return self.answers[operation](dict(parameters))
        return super()._once(request, parameters)

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of each call of this operation."""
        return [parameters for action, _, parameters in self.calls if action.partition(":")[2] == operation]


@dataclass
class Account:
    """What a test works with: the driver, and a client that looks at the account from the side."""

    tmp_path: Path
    clock: ManualClock = field(default_factory=ManualClock)
    rng: random.Random = field(default_factory=lambda: random.Random(4))
    image: str = ""
    group: str = ""

    def client(self, service: str = "ec2", region: str = REGION) -> Any:
        return session().client(service, region_name=region)

    def context(self, **table: Any) -> ProvisionerContext:
        return ProvisionerContext(
            self.tmp_path / "state",
            self.tmp_path / "cache",
            self.clock,
            self.rng,
            {"image": self.image, "security_group": self.group, **table},
        )

    def driver(self, **table: Any) -> tuple[Ec2Provisioner, TellingAws]:
        context = self.context(**table)
        config = Ec2Config.from_table(context.settings)
        aws = TellingAws(config, self.clock, self.rng)
        return Ec2Provisioner(aws, config, context), aws

    def spec(self, owner: str = OWNER, **offer: Any) -> InstanceSpec:
        vm = new_id(self.clock, self.rng)
        return InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=an_offer(**offer),
            user_data="#cloud-config\n",
            hard_deadline=self.clock.now() + 3600,
            tags={TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: str(int(self.clock.now() + 3600))},
        )


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account with a default VPC, an image of Canonical's and a group for this deployment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with mock_aws():
        made = Account(tmp_path)
        ec2 = made.client()
        images = ec2.describe_images(Owners=[CANONICAL])["Images"]
        made.image = next(one["ImageId"] for one in images if one["Architecture"] == "x86_64")
        vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        made.group = ec2.create_security_group(
            GroupName="vmrun",
            Description="SSH",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [{"Key": TAG_ESTATE, "Value": OWNER}]}],
        )["GroupId"]
        yield made
