"""The policy of IAM: valid, short enough, and no wider than the configuration asks for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from vmrun.provisioners.ec2.config import Ec2Config
from vmrun.provisioners.ec2.policy import launcher, partition, store_access
from vmrun.provisioners.ec2.store_credentials import session_policy

CONFIG = Ec2Config()
STORE = "s3://bucket/some/prefix"
CONFIGS = {
    "default": CONFIG,
    "named": replace(CONFIG, image="ami-1", security_group="sg-1", subnets=("subnet-1", "subnet-2")),
    "profile": replace(CONFIG, instance_profile="arn:aws:iam::1:instance-profile/jobs"),
    "role": replace(CONFIG, store_role="arn:aws:iam::1:role/store"),
}
#: What IAM allows an identity's managed policy, spaces not counted.
LONGEST = 6144


def statements(config: Ec2Config, store: str = STORE) -> dict[str, Any]:
    return {one["Sid"]: one for one in json.loads(launcher(config, store))["Statement"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_iam_takes(name: str) -> None:
    text = launcher(CONFIGS[name], STORE)
    document = json.loads(text)

    assert set(document) == {"Version", "Statement"}
    assert len(re.sub(r"\s", "", text)) < LONGEST
    names = [one["Sid"] for one in document["Statement"]]
    assert len(names) == len(set(names))
    for one in document["Statement"]:
        assert re.fullmatch(r"[A-Za-z0-9]+", one["Sid"])
        assert one["Effect"] == "Allow"
        assert set(one) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert all(re.fullmatch(r"[a-z0-9-]+:[A-Za-z]+", action) for action in one["Action"]), "no wildcards"


def test_nothing_is_made_without_the_tag_and_nothing_ended_that_has_none() -> None:
    found = statements(CONFIG)

    assert found["VmrunMake"]["Condition"] == {"Null": {"aws:RequestTag/vmrun-owner": "false"}}
    assert found["VmrunEnd"]["Condition"] == {"Null": {"aws:ResourceTag/vmrun-owner": "false"}}
    assert "ec2:TerminateInstances" in found["VmrunEnd"]["Action"]
    assert found["VmrunTagWhatIsMade"]["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    for one in found.values():
        if "ec2:RunInstances" in one["Action"]:
            assert not any(resource.endswith(":*") for resource in one["Resource"])


def test_what_is_named_in_the_configuration_is_all_that_may_be_used() -> None:
    found = statements(CONFIGS["named"])

    assert found["VmrunMakeFrom"]["Resource"] == [
        "arn:aws:ec2:*::image/ami-1",
        "arn:aws:ec2:*:*:security-group/sg-1",
        "arn:aws:ec2:*:*:subnet/subnet-1",
        "arn:aws:ec2:*:*:subnet/subnet-2",
    ]
    assert "VmrunFindTheImage" not in found


def test_the_default_image_is_found_by_canonicals_parameters_only() -> None:
    assert statements(CONFIG)["VmrunFindTheImage"]["Resource"] == [
        f"arn:aws:ssm:*::parameter/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
        for arch in ("amd64", "arm64")
    ]


def test_no_role_may_be_given_unless_one_is_configured() -> None:
    passing = [one for name in CONFIGS if name != "profile" for one in statements(CONFIGS[name]).values()]

    assert not [one for one in passing if "iam:PassRole" in one["Action"]]
    given = statements(CONFIGS["profile"])["VmrunGiveTheRole"]
    assert given["Resource"] == "arn:aws:iam::*:role/jobs"
    assert given["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_credentials_are_lent_in_one_way_only() -> None:
    assert "VmrunLendRights" in statements(CONFIG)
    assert statements(CONFIGS["role"])["VmrunLendTheRole"]["Resource"] == "arn:aws:iam::1:role/store"
    assert {"VmrunLendRights", "VmrunLendTheRole"}.isdisjoint(statements(CONFIGS["profile"]))
    assert {"VmrunLendRights", "VmrunUseTheStore"}.isdisjoint(statements(CONFIG, "file:///somewhere"))


def test_the_store_is_one_prefix_of_one_bucket() -> None:
    listing, use = store_access("us-east-1", "s3://bucket/some/prefix/")

    assert listing["Resource"] == "arn:aws:s3:::bucket"
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["some/prefix/*", "some/prefix"]}}
    assert use["Resource"] == "arn:aws:s3:::bucket/some/prefix/*"
    whole = store_access("us-east-1", "s3://bucket")
    assert whole[1]["Resource"] == "arn:aws:s3:::bucket/*"
    assert "Condition" not in whole[0]


def test_the_policy_of_a_session_is_short() -> None:
    text = session_policy("us-east-1", STORE)

    assert len(text) < 2048
    assert " " not in text
    assert {action for one in json.loads(text)["Statement"] for action in one["Action"]} == {
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    }


def test_names_begin_as_they_do_in_each_part_of_the_world() -> None:
    assert [partition(region) for region in ("eu-west-1", "cn-north-1", "us-gov-west-1")] == [
        "aws",
        "aws-cn",
        "aws-us-gov",
    ]
    assert "arn:aws-cn:" in launcher(replace(CONFIG, regions=("cn-north-1",)))
