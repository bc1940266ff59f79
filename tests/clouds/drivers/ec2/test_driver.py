"""The driver's behaviour, seen from both sides: what it says, and what the account then holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.clouds.drivers.ec2.conftest import Account
from tests.unit.provisioners.ec2.offers import OTHER, OWNER, an_offer
from vmrun.core.clouds import CloudError, Fault, InstanceNotFound, InstanceState, Market, Need


def raw(account: Account, id: str) -> dict[str, Any]:
    region, _, identifier = id.partition("/")
    found = account.client(region=region).describe_instances(InstanceIds=[identifier])
    return found["Reservations"][0]["Instances"][0]


def test_create_makes_one_machine_with_all_that_its_end_needs(account: Account) -> None:
    driver, aws = account.driver()
    spec = account.spec()

    made = driver.create(spec)

    assert (made.name, made.on, made.zone, made.instance_type) == (spec.name, "ec2", "us-east-1a", "r6a.32xlarge")
    assert made.id.startswith("us-east-1/i-")
    assert made.state in (InstanceState.pending, InstanceState.running)
    assert spec.tags.items() <= made.tags.items()
    seen = raw(account, made.id)
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    volume = account.client().describe_volumes()["Volumes"][0]
    assert volume["VolumeType"] == "gp3"
    assert {tag["Key"]: tag["Value"] for tag in volume["Tags"]}["vmrun-owner"] == OWNER
    assert len(aws.sent("RunInstances")) == 1


def test_the_same_spec_sends_the_same_call(account: Account) -> None:
    driver, aws = account.driver()
    again, aws_again = account.driver()
    spec = account.spec()

    driver.create(spec)
    again.create(spec)

    assert aws.sent("RunInstances") == aws_again.sent("RunInstances")


def test_get_knows_id_and_name_and_says_what_it_does_not_know(account: Account) -> None:
    driver, _ = account.driver()
    spec = account.spec()
    made = driver.create(spec)

    assert driver.get(made.id).name == spec.name
    assert driver.get(spec.name).id == made.id
    for unknown in ("us-east-1/i-0123456789abcdef0", "us-east-1/i-1", "../..", "", "vmrun-x-y", "*", "vmrun-*"):
        with pytest.raises(InstanceNotFound):
            driver.get(unknown)


def test_instances_are_found_by_tag_and_by_name_in_all_regions_each_once(account: Account) -> None:
    driver, _ = account.driver(regions=("us-east-1", "us-west-2"))
    with_both = driver.create(account.spec()).id
    without_tags = driver.create(account.spec()).id
    without_name = driver.create(account.spec()).id
    gone = driver.create(account.spec()).id
    driver.create(account.spec(OTHER))
    west = account.client(region="us-west-2")
    images = west.describe_images(Owners=["099720109477"])["Images"]
    far = west.run_instances(
        ImageId=images[0]["ImageId"],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "vmrun-owner", "Value": OWNER}]}],
    )["Instances"][0]["InstanceId"]
    ec2 = account.client()
    ec2.delete_tags(Resources=[without_tags.partition("/")[2]], Tags=[{"Key": "vmrun-owner"}])
    ec2.delete_tags(Resources=[without_name.partition("/")[2]], Tags=[{"Key": "Name"}])
    driver.delete(gone)

    found = [one.id for one in driver.instances(OWNER)]

    assert sorted(found) == sorted([with_both, without_tags, without_name, f"us-west-2/{far}"])


def test_a_region_that_cannot_be_listed_is_an_error_before_anything_is_told(account: Account) -> None:
    driver, aws = account.driver(regions=("us-east-1", "us-west-2"))
    driver.create(account.spec())
    aws.errors["DescribeInstances"] = [("", ""), ("", ""), ("UnauthorizedOperation", "no")]

    with pytest.raises(CloudError) as caught:
        driver.instances(OWNER)

    assert caught.value.fault is Fault.permission


def test_every_page_of_a_list_is_read(account: Account) -> None:
    driver, aws = account.driver()

    def page(parameters: dict[str, Any]) -> dict[str, Any]:
        number = int(parameters.get("NextToken", "0"))
        name = f"i-{number:017x}"
        one = {"InstanceId": name, "State": {"Name": "running"}}
        more = {"NextToken": str(number + 1)} if number < 4 else {}
        return {"Reservations": [{"Instances": [one]}], **more}

    aws.answers["DescribeInstances"] = page

    assert len(list(driver.instances(OWNER))) == 5


def test_a_list_without_an_end_is_an_error(account: Account) -> None:
    driver, aws = account.driver()
    aws.answers["DescribeInstances"] = lambda _: {"Reservations": [], "NextToken": "same"}

    with pytest.raises(CloudError, match="no end"):
        driver.instances(OWNER)


def test_delete_ends_it_and_is_fine_again(account: Account) -> None:
    driver, aws = account.driver()
    made = driver.create(account.spec())

    driver.delete(made.id)
    aws.errors["TerminateInstances"] = [("InvalidInstanceID.NotFound", "it does not exist")]
    driver.delete(made.id)
    driver.delete("us-east-1/i-0123456789abcdef0")
    driver.delete("no-such-instance")

    assert raw(account, made.id)["State"]["Name"] == "terminated"
    assert driver.get(made.id).state is InstanceState.gone
    assert list(driver.instances(OWNER)) == []
    assert list(driver.leftovers(OWNER)) == []


def test_delete_by_name_spares_a_strangers_machine_of_that_name(account: Account) -> None:
    driver, _ = account.driver()
    spec = account.spec()
    made = driver.create(spec)
    stranger = account.client().run_instances(
        ImageId=account.image,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": spec.name}]}],
    )["Instances"][0]["InstanceId"]

    assert driver.get(spec.name).id == made.id
    driver.delete(spec.name)

    assert driver.get(made.id).state is InstanceState.gone
    assert raw(account, f"us-east-1/{stranger}")["State"]["Name"] == "running"


def test_a_name_of_another_owner_is_refused_before_any_call(account: Account) -> None:
    driver, aws = account.driver()

    with pytest.raises(CloudError) as caught:
        driver.create(replace(account.spec(OTHER), name=account.spec(OWNER).name))

    assert caught.value.fault is Fault.config
    assert aws.calls == []


def test_a_create_call_is_sent_once_whatever_comes(account: Account) -> None:
    """Whether to send it again is decided by who keeps the record of it."""
    for code, fault in (
        ("RequestLimitExceeded", Fault.throttle),
        ("InternalError", Fault.unavailable),
        ("InsufficientInstanceCapacity", Fault.stockout),
    ):
        driver, aws = account.driver()
        aws.errors["RunInstances"] = [(code, "said AWS")]

        with pytest.raises(CloudError) as caught:
            driver.create(account.spec())

        assert caught.value.fault is fault
        assert len(aws.sent("RunInstances")) == 1


def test_reads_are_repeated_a_few_times(account: Account) -> None:
    driver, aws = account.driver()
    made = driver.create(account.spec())
    aws.errors["DescribeInstances"] = [("RequestLimitExceeded", "slow")] * 2

    assert driver.get(made.id).id == made.id

    aws.errors["DescribeInstances"] = [("RequestLimitExceeded", "slow")] * 3
    with pytest.raises(CloudError) as caught:
        driver.get(made.id)
    assert caught.value.fault is Fault.throttle


def test_a_spot_market_that_refuses_the_shutdown_behaviour_is_asked_without_it(account: Account) -> None:
    driver, aws = account.driver()
    aws.errors["RunInstances"] = [("InvalidParameterCombination", "shutdown behavior is not supported for spot")]

    made = driver.create(account.spec(spot=True))

    first, second = aws.sent("RunInstances")
    assert made.id
    assert first["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "InstanceInitiatedShutdownBehavior" not in second
    assert first["ClientToken"] != second["ClientToken"]


def test_an_on_demand_call_that_is_wrong_is_not_sent_in_another_form(account: Account) -> None:
    driver, aws = account.driver()
    aws.errors["RunInstances"] = [("InvalidParameterCombination", "no")]

    with pytest.raises(CloudError) as caught:
        driver.create(account.spec())

    assert caught.value.fault is Fault.config
    assert len(aws.sent("RunInstances")) == 1


def described(account: Account, driver: Any, aws: Any, id: str) -> None:
    """From now on a look for a token finds this machine; moto keeps no tokens."""
    found = account.client().describe_instances(InstanceIds=[id.partition("/")[2]])
    aws.answers["DescribeInstances"] = lambda _: {"Reservations": found["Reservations"]}


def test_parameters_that_changed_lead_to_the_machine_that_was_made_before(account: Account) -> None:
    driver, aws = account.driver()
    spec = account.spec()
    made = driver.create(spec)
    aws.errors["RunInstances"] = [("IdempotentParameterMismatch", "the image is another one")]
    described(account, driver, aws, made.id)

    assert driver.create(spec).id == made.id
    wanted = aws.sent("DescribeInstances")[-1]["Filters"][0]
    assert wanted["Name"] == "client-token"
    assert aws.sent("RunInstances")[0]["ClientToken"] in wanted["Values"]


def test_a_machine_of_the_token_that_is_gone_is_told_as_gone(account: Account) -> None:
    driver, aws = account.driver()
    spec = account.spec()
    made = driver.create(spec)
    driver.delete(made.id)
    aws.errors["RunInstances"] = [("IdempotentInstanceTerminated", "it has been terminated")] * 2
    described(account, driver, aws, made.id)

    assert (driver.create(spec).id, driver.create(spec).state) == (made.id, InstanceState.gone)
    # EC2 shows what is gone for an hour, and remembers its token for a day.
    aws.errors["RunInstances"] = [("IdempotentInstanceTerminated", "it has been terminated")]
    aws.answers["DescribeInstances"] = lambda _: {"Reservations": []}
    with pytest.raises(CloudError) as caught:
        driver.create(spec)
    assert caught.value.fault is Fault.preempted


def test_a_token_of_somebody_elses_machine_is_not_adopted(account: Account) -> None:
    driver, aws = account.driver()
    made = driver.create(account.spec())
    aws.errors["RunInstances"] = [("IdempotentParameterMismatch", "no")]
    described(account, driver, aws, made.id)

    with pytest.raises(CloudError) as caught:
        driver.create(account.spec())

    assert caught.value.fault is Fault.name_taken


def test_a_token_that_is_known_and_not_shown_yet_is_left_in_doubt(account: Account) -> None:
    driver, aws = account.driver()
    aws.errors["RunInstances"] = [("IdempotentParameterMismatch", "no")]

    with pytest.raises(CloudError) as caught:
        driver.create(account.spec())

    assert caught.value.fault is Fault.unavailable


def test_offers_are_the_catalogues_in_each_zone_that_can_be_used(account: Account) -> None:
    driver, aws = account.driver()

    found = list(driver.offers(Need(cpus=128, memory=10**12)))

    assert found[0].instance_type == "r6a.32xlarge"
    zones = {offer.zone for offer in found if offer.instance_type == "r6a.32xlarge"}
    assert zones <= {f"us-east-1{letter}" for letter in "abcdef"}
    assert len(zones) > 1
    assert all(offer.bucket for offer in found)
    first = len(aws.calls)
    assert list(driver.offers(Need(cpus=128, memory=10**12))) == found
    assert len(aws.calls) == first, "what is known of a region is not asked for again"


def test_offers_of_one_zone_and_of_none(account: Account) -> None:
    driver, _ = account.driver()

    assert {one.zone for one in driver.offers(Need(cpus=128, zone="us-east-1b"))} == {"us-east-1b"}
    assert list(driver.offers(Need(zone="us-east-1z"))) == []
    assert list(driver.offers(Need(region="eu-west-1"))) == []


def test_zones_that_do_not_have_a_type_are_not_offered(account: Account) -> None:
    driver, aws = account.driver()
    aws.answers["DescribeInstanceTypeOfferings"] = lambda _: {
        "InstanceTypeOfferings": [{"InstanceType": "r6a.32xlarge", "Location": "us-east-1c"}]
    }

    found = list(driver.offers(Need(instance_type="r6a.32xlarge")))

    assert [one.zone for one in found] == ["us-east-1c"]


def test_without_the_right_to_ask_where_types_are_every_zone_is_offered(account: Account) -> None:
    driver, aws = account.driver()
    aws.errors["DescribeInstanceTypeOfferings"] = [("UnauthorizedOperation", "no")]

    found = list(driver.offers(Need(instance_type="r6a.32xlarge")))

    assert len(found) == len(account.client().describe_subnets()["Subnets"])


def test_spot_is_offered_as_such(account: Account) -> None:
    driver, _ = account.driver()

    assert {one.spot for one in driver.offers(Need(cpus=128, market=Market.spot))} == {True}


def test_a_region_that_cannot_be_looked_at_is_passed_over_while_there_is_another(account: Account) -> None:
    driver, aws = account.driver(regions=("us-east-1", "us-west-2"))
    aws.errors["DescribeVpcs"] = [("AuthFailure", "the region is not enabled")]

    found = list(driver.offers(Need(cpus=128)))

    assert {one.region for one in found} == {"us-west-2"}

    lonely, aws = account.driver()
    aws.errors["DescribeVpcs"] = [("AuthFailure", "the region is not enabled")]
    with pytest.raises(CloudError) as caught:
        lonely.offers(Need(cpus=128))
    assert caught.value.fault is Fault.permission


def test_a_zone_without_a_subnet_is_not_offered_there(account: Account) -> None:
    driver, _ = account.driver()

    with pytest.raises(CloudError) as caught:
        driver.create(replace(account.spec(), offer=an_offer(zone="us-east-1z")))

    assert caught.value.fault is Fault.not_offered


def test_without_a_group_the_next_step_is_named(account: Account) -> None:
    driver, aws = account.driver(security_group="")

    with pytest.raises(CloudError) as caught:
        driver.create(account.spec(OTHER))

    assert caught.value.fault is Fault.config
    assert "vmrun init ec2" in caught.value.hint
    assert aws.sent("RunInstances") == []
    assert driver.create(account.spec(OWNER)).id, "the group of this deployment is found by its tag"


def test_an_image_of_a_stranger_is_refused(account: Account) -> None:
    driver, aws = account.driver(image_owners=("self",))

    with pytest.raises(CloudError) as caught:
        driver.create(account.spec())

    assert caught.value.fault is Fault.config
    assert "099720109477" in caught.value.message
    assert "ec2.image_owners" in caught.value.hint
    assert aws.sent("RunInstances") == []


def test_the_image_is_named_by_a_public_parameter(account: Account) -> None:
    driver, aws = account.driver(image="")
    aws.answers["GetParameter"] = lambda _: {"Parameter": {"Value": account.image}}

    driver.create(account.spec())
    driver.create(account.spec())

    (asked,) = aws.sent("GetParameter")
    assert asked["Name"] == "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    assert aws.sent("RunInstances")[0]["ImageId"] == account.image


def test_an_image_of_another_architecture_is_refused(account: Account) -> None:
    driver, _ = account.driver()

    with pytest.raises(CloudError, match="is for x86_64 machines, not arm64"):
        driver.create(account.spec(arch="arm64"))


def test_an_image_may_be_given_by_its_name(account: Account) -> None:
    name = account.client().describe_images(ImageIds=[account.image])["Images"][0]["Name"]
    driver, aws = account.driver(image=name)

    driver.create(account.spec())

    assert aws.sent("RunInstances")[0]["ImageId"] == account.image
    with pytest.raises(CloudError, match="image named nothing-like-it"):
        account.driver(image="nothing-like-it")[0].create(account.spec())


def test_leftovers_are_what_no_instance_uses_and_can_be_discarded(account: Account) -> None:
    driver, _ = account.driver()
    driver.create(account.spec())
    ec2 = account.client()
    tagged = [{"Key": "vmrun-owner", "Value": OWNER}, {"Key": "Name", "Value": "vmrun-left"}]
    volume = ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=8, TagSpecifications=[{"ResourceType": "volume", "Tags": tagged}]
    )["VolumeId"]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tagged}])[
        "AllocationId"
    ]
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=8)

    found = {one.kind: one for one in driver.leftovers(OWNER)}

    assert {kind: one.id for kind, one in found.items()} == {
        "volume": f"us-east-1/{volume}",
        "address": f"us-east-1/{address}",
    }
    assert found["volume"].created_at > 0
    assert found["volume"].name == "vmrun-left"
    for one in found.values():
        driver.discard(one)
        driver.discard(one)
    assert list(driver.leftovers(OWNER)) == []
    assert ec2.describe_addresses()["Addresses"] == []


def test_a_disk_that_is_used_by_now_is_left_alone(account: Account) -> None:
    driver, aws = account.driver()
    made = driver.create(account.spec())
    ec2 = account.client()
    volume = ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=8,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "vmrun-owner", "Value": OWNER}]}],
    )["VolumeId"]
    (found,) = driver.leftovers(OWNER)
    ec2.attach_volume(VolumeId=volume, InstanceId=made.id.partition("/")[2], Device="/dev/sdf")

    driver.discard(found)

    assert aws.sent("DeleteVolume") == []
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "in-use"


def test_the_console_is_read_also_from_types_that_keep_only_the_last_of_it(account: Account) -> None:
    driver, aws = account.driver()
    made = driver.create(account.spec())
    aws.errors["GetConsoleOutput"] = [("UnsupportedOperation", "not on this type")]
    aws.answers["GetConsoleOutput"] = lambda _: {"Output": "\n".join(map(str, range(500)))}

    log = driver.boot_log(made.id)

    assert log.splitlines()[-1] == "499"
    assert len(log.splitlines()) == 100
    assert [parameters.get("Latest") for parameters in aws.sent("GetConsoleOutput")] == [True, None]
    assert driver.boot_log("no-such-instance") == ""
