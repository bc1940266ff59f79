"""The body of the create call: what it says, and that the same spec always says the same."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace

import pytest

from tests.unit.provisioners.ec2.offers import OWNER, an_offer
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, CloudError, Fault, InstanceSpec
from vmrun.core.errors import ConfigError
from vmrun.provisioners.ec2.config import Ec2Config
from vmrun.provisioners.ec2.images import Image
from vmrun.provisioners.ec2.request import USER_DATA_LIMIT, Place, client_token, run_instances

VM = "0abcdefghjkmnpqrstvwxyz012"
IMAGE = Image("ami-00000000000000001", "/dev/sda1", 8)
PLACE = Place("subnet-1", "sg-1")
SPEC = InstanceSpec(
    vm=VM,
    owner=OWNER,
    name=f"vmrun-{OWNER}-{VM}",
    offer=an_offer(),
    user_data="#cloud-config\n",
    hard_deadline=1_780_003_600.0,
    tags={TAG_OWNER: OWNER, TAG_VM: VM, TAG_DEADLINE: "1780003600", "vmrun-proof": "x"},
)


def test_the_body_has_all_that_the_end_of_the_machine_needs() -> None:
    body = run_instances(Ec2Config(), SPEC, IMAGE, PLACE)

    assert (body["MinCount"], body["MaxCount"]) == (1, 1)
    assert body["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert body["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {
                "VolumeType": "gp3",
                "VolumeSize": 94,
                "Iops": 3000,
                "Throughput": 500,
                "DeleteOnTermination": True,
            },
        }
    ]
    assert body["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "SubnetId": "subnet-1",
            "Groups": ["sg-1"],
            "AssociatePublicIpAddress": True,
            "DeleteOnTermination": True,
        }
    ]
    assert body["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    assert "InstanceMarketOptions" not in body
    assert "IamInstanceProfile" not in body
    assert "KeyName" not in body


def test_everything_that_is_created_bears_the_tags() -> None:
    on_demand = run_instances(Ec2Config(), SPEC, IMAGE, PLACE)["TagSpecifications"]
    spot = run_instances(Ec2Config(), replace(SPEC, offer=an_offer(spot=True)), IMAGE, PLACE)["TagSpecifications"]

    assert [one["ResourceType"] for one in on_demand] == ["instance", "volume", "network-interface"]
    assert [one["ResourceType"] for one in spot][3:] == ["spot-instances-request"]
    for one in spot:
        assert {tag["Key"]: tag["Value"] for tag in one["Tags"]} == {**SPEC.tags, "Name": SPEC.name}


def test_a_spec_without_tags_is_tagged_all_the_same() -> None:
    (first, *_) = run_instances(Ec2Config(), replace(SPEC, tags={}), IMAGE, PLACE)["TagSpecifications"]

    assert {tag["Key"] for tag in first["Tags"]} == {"Name", TAG_OWNER, TAG_VM, TAG_DEADLINE}


def test_the_order_of_tags_does_not_matter() -> None:
    turned = replace(SPEC, tags=dict(reversed(SPEC.tags.items())))

    assert run_instances(Ec2Config(), turned, IMAGE, PLACE) == run_instances(Ec2Config(), SPEC, IMAGE, PLACE)


def test_spot_is_asked_for_once_and_ends_for_good() -> None:
    body = run_instances(Ec2Config(), replace(SPEC, offer=an_offer(spot=True)), IMAGE, PLACE)

    assert body["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert body["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_the_plain_form_differs_in_behaviour_and_token_only() -> None:
    spec = replace(SPEC, offer=an_offer(spot=True))
    body, plain = (run_instances(Ec2Config(), spec, IMAGE, PLACE, plain=plain) for plain in (False, True))

    del body["InstanceInitiatedShutdownBehavior"]
    assert body.pop("ClientToken") != plain.pop("ClientToken")
    assert body == plain


def test_each_intent_and_offer_has_its_token() -> None:
    specs = [
        SPEC,
        replace(SPEC, vm=VM[:-1] + "3"),
        replace(SPEC, owner=OWNER[:-1] + "z"),
        *(
            replace(SPEC, offer=offer)
            for offer in (
                an_offer("r7a.32xlarge"),
                an_offer(zone="us-east-1b"),
                an_offer(region="us-west-2"),
                an_offer(spot=True),
            )
        ),
    ]
    tokens = {client_token(spec) for spec in specs} | {client_token(SPEC, plain=True)}

    assert len(tokens) == len(specs) + 1
    assert all(len(token) <= 64 and token.isascii() and token.isprintable() for token in tokens)
    assert client_token(SPEC) == client_token(replace(SPEC, tags={})) == client_token(SPEC)
    assert len(client_token(replace(SPEC, vm="v" * 200))) <= 64


@pytest.mark.parametrize(
    ("configured", "asked", "of_image", "size"),
    [(100 * 10**9, 0, 8, 94), (10 * 10**9, 2 * 10**12, 8, 1863), (10 * 10**9, 0, 500, 500), (1 << 30, 1, 1, 1)],
)
def test_the_disk_is_the_largest_that_anyone_asks_for(configured: int, asked: int, of_image: int, size: int) -> None:
    image = replace(IMAGE, disk_gib=of_image, root_device="/dev/xvda")
    (disk,) = run_instances(Ec2Config(disk=configured), replace(SPEC, disk=asked), image, PLACE)["BlockDeviceMappings"]

    assert disk["DeviceName"] == "/dev/xvda"
    assert disk["Ebs"]["VolumeSize"] == size


def test_settings_reach_the_body() -> None:
    config = Ec2Config(public_ip=False, instance_profile="vmrun")
    body = run_instances(config, SPEC, IMAGE, PLACE)
    by_arn = run_instances(replace(config, instance_profile="arn:aws:iam::1:instance-profile/x"), SPEC, IMAGE, PLACE)

    assert body["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert body["IamInstanceProfile"] == {"Name": "vmrun"}
    assert by_arn["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/x"}


def test_long_user_data_is_compressed_to_the_same_bytes_each_time() -> None:
    text = "#cloud-config\n" + "x: y\n" * 5000
    bodies = [run_instances(Ec2Config(), replace(SPEC, user_data=text), IMAGE, PLACE) for _ in range(2)]

    assert bodies[0] == bodies[1]
    assert len(bodies[0]["UserData"]) <= USER_DATA_LIMIT
    assert gzip.decompress(bodies[0]["UserData"]).decode() == text
    assert run_instances(Ec2Config(), SPEC, IMAGE, PLACE)["UserData"] == SPEC.user_data


def test_user_data_that_does_not_fit_is_refused_here() -> None:
    noise = random.Random(7).randbytes(20_000).hex()

    with pytest.raises(CloudError) as caught:
        run_instances(Ec2Config(), replace(SPEC, user_data=noise), IMAGE, PLACE)

    assert caught.value.fault is Fault.config


def test_a_table_of_the_configuration_is_read_with_its_types() -> None:
    config = Ec2Config.from_table({"regions": ["a-b-1"], "disk": 5, "boot_grace": 3.0, "public_ip": False})

    assert (config.regions, config.disk, config.public_ip) == (("a-b-1",), 5, False)
    with pytest.raises(ConfigError, match=r"ec2\.disk"):
        Ec2Config.from_table({"disk": "5"})
