"""The double of EC2, as boto3 sees it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from tests.clouds.ec2 import Ec2Double
from tests.clouds.ec2.backend import PARAMETER, image_id
from tests.clouds.machines import PaperMachines, Power
from tests.clouds.trouble import Rule, Trouble

TYPE = "m6i.large"
KEY = "AKIADOUBLEOFEC2VMRUN"
IMAGE = image_id("us-east-1", "amd64")


class Clock:
    """The double's own time."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machines() -> PaperMachines:
    return PaperMachines()


@pytest.fixture
def double(machines: PaperMachines, clock: Clock) -> Iterator[Ec2Double]:
    made = Ec2Double(machines, now=clock)
    yield made
    made.close()


@pytest.fixture
def ec2(double: Ec2Double) -> Iterator[Any]:
    made = client(double, "ec2")
    yield made
    made.close()


def client(double: Ec2Double, service: str, region: str = "us-east-1", key: str = KEY) -> Any:
    """boto3 without retries, so that a test sees each answer."""
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=double.endpoint,
        aws_access_key_id=key,
        aws_secret_access_key="double",
        config=Config(retries={"max_attempts": 0}, connect_timeout=60, read_timeout=60),
    )


def run(ec2: Any, **more: Any) -> dict[str, Any]:
    """One instance."""
    asked = {"ImageId": IMAGE, "InstanceType": TYPE, "MinCount": 1, "MaxCount": 1, **more}
    (instance,) = ec2.run_instances(**asked)["Instances"]
    return instance


def listed(ec2: Any, **asked: Any) -> dict[str, str]:
    """Identifier to state, over all pages."""
    found = {}
    for page in ec2.get_paginator("describe_instances").paginate(**asked):
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                assert instance["InstanceId"] not in found
                found[instance["InstanceId"]] = instance["State"]["Name"]
    return found


def one(ec2: Any, id: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[id])["Reservations"]
    (instance,) = reservation["Instances"]
    return instance


def refusal(call: Any, **asked: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return caught.value


def code(call: Any, **asked: Any) -> str:
    return refusal(call, **asked).response["Error"]["Code"]


def zone_subnet(ec2: Any, zone: str) -> str:
    (subnet,) = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"]
    return subnet["SubnetId"]


# --- what all is there ---


def test_an_instance_is_pending_first_and_then_runs_at_the_machines_address(ec2, double, machines):
    subnet = zone_subnet(ec2, "us-east-1b")
    made = run(
        ec2,
        SubnetId=subnet,
        UserData="#cloud-config\n",
        ClientToken="token",
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"VolumeSize": 120, "VolumeType": "gp3", "Throughput": 300, "Iops": 3000},
            }
        ],
        TagSpecifications=[
            {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "one"}, {"Key": "vmrun-owner", "Value": "me"}]}
            for kind in ("instance", "volume", "network-interface")
        ],
    )
    assert made["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in made

    seen = one(ec2, made["InstanceId"])

    assert seen["State"] == {"Code": 16, "Name": "running"}
    assert (seen["PublicIpAddress"], seen["PrivateIpAddress"]) == ("127.0.0.1", "127.0.0.1")
    assert (seen["Placement"]["AvailabilityZone"], seen["ClientToken"]) == ("us-east-1b", "token")
    assert {tag["Key"]: tag["Value"] for tag in seen["Tags"]} == {"Name": "one", "vmrun-owner": "me"}
    (volume,) = ec2.describe_volumes()["Volumes"]
    assert (volume["Size"], volume["Throughput"], volume["Iops"]) == (120, 300, 3000)
    assert {tag["Key"] for tag in volume["Tags"]} == {"Name", "vmrun-owner"}
    assert machines.user_data == {made["InstanceId"]: "#cloud-config\n"}
    assert double.inventory().instances == {made["InstanceId"]: "running"}
    assert double.inventory().disks == [volume["VolumeId"]]


def test_user_data_may_be_compressed_and_is_limited(ec2, machines):
    text = "#cloud-config\n" + "#" * 40_000
    made = run(ec2, UserData=gzip.compress(text.encode()))
    assert machines.user_data[made["InstanceId"]] == text

    error = refusal(run, ec2=ec2, UserData="#" * 16_385)

    assert error.response["Error"]["Code"] == "InvalidParameterValue"
    assert "User data is limited to 16384 bytes" in error.response["Error"]["Message"]


def test_ubuntus_image_is_named_by_a_public_parameter_and_belongs_to_canonical(ec2, double):
    ssm = client(double, "ssm")
    for arch, kind, instance_type in (("amd64", "x86_64", "m6i.large"), ("arm64", "arm64", "m7g.large")):
        path = PARAMETER.format(arch)
        (found,) = ssm.get_parameters(Names=[path])["Parameters"]
        assert ssm.get_parameter(Name=path)["Parameter"]["Value"] == found["Value"]
        (image,) = ec2.describe_images(ImageIds=[found["Value"]])["Images"]
        assert (image["OwnerId"], image["Architecture"], image["RootDeviceName"]) == ("099720109477", kind, "/dev/sda1")
        assert run(ec2, ImageId=f"resolve:ssm:{path}", InstanceType=instance_type)["ImageId"] == found["Value"]
    assert code(run, ec2=ec2, InstanceType="m7g.large") == "InvalidParameterValue"
    ssm.close()


def test_each_region_has_its_own_instances_at_the_same_address(ec2, double):
    here = run(ec2)
    west = client(double, "ec2", "us-west-2")
    assert listed(west) == {}
    there = run(west, ImageId=image_id("us-west-2", "amd64"))
    assert listed(west) == {there["InstanceId"]: "running"}
    assert listed(ec2) == {here["InstanceId"]: "running"}
    assert set(double.inventory().instances) == {here["InstanceId"], there["InstanceId"]}
    west.close()


def test_two_doubles_know_nothing_of_each_other(ec2):
    run(ec2)
    other = Ec2Double(PaperMachines())
    second = client(other, "ec2")
    assert listed(second) == {}
    second.close()
    other.close()


def test_filters_work_as_those_of_ec2(ec2):
    first = run(ec2, ClientToken="a", TagSpecifications=[tags(owner="me", Name="vmrun-me-1")])["InstanceId"]
    second = run(ec2, ClientToken="b", TagSpecifications=[tags(owner="you", Name="vmrun-you-1")])["InstanceId"]
    ec2.terminate_instances(InstanceIds=[second])
    wanted = {
        "client-token": ["a"],
        "tag:owner": ["me"],
        "tag:Name": ["vmrun-me-*"],
        "instance-state-name": ["pending", "running"],
        "instance-id": [first],
    }
    for name, values in wanted.items():
        assert list(listed(ec2, Filters=[{"Name": name, "Values": values}])) == [first], name
    assert set(listed(ec2, Filters=[{"Name": "tag-key", "Values": ["owner"]}])) == {first, second}
    assert code(ec2.describe_instances, Filters=[{"Name": "colour", "Values": ["red"]}]) == "InvalidParameterValue"


def tags(**given: str) -> dict[str, Any]:
    return {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in given.items()]}


def test_what_stands_beside_ec2_answers(ec2, double):
    double.prices.on_demand[TYPE] = 0.096
    double.quotas.set("L-1216C47A", 64)
    with_services = {name: client(double, name) for name in ("sts", "service-quotas", "pricing", "iam")}

    assert with_services["sts"].get_caller_identity()["Account"] == double.account
    credentials = with_services["sts"].get_federation_token(Name="vm", Policy="{}")["Credentials"]
    assert credentials["AccessKeyId"].startswith("ASIA")
    quota = with_services["service-quotas"].get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert quota["Value"] == 64.0
    (text,) = with_services["pricing"].get_products(
        ServiceCode="AmazonEC2", Filters=[{"Type": "TERM_MATCH", "Field": "instanceType", "Value": TYPE}]
    )["PriceList"]
    (term,) = json.loads(text)["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert float(dimension["pricePerUnit"]["USD"]) == 0.096
    prices = ec2.describe_spot_price_history(InstanceTypes=[TYPE], AvailabilityZone="us-east-1a")["SpotPriceHistory"]
    assert [float(price["SpotPrice"]) for price in prices] == [pytest.approx(0.0384)]
    assert ec2.describe_instance_types(InstanceTypes=["r6a.32xlarge"])["InstanceTypes"][0]["MemoryInfo"] == {
        "SizeInMiB": 1 << 20
    }
    for one_client in with_services.values():
        one_client.close()


def test_credentials_of_somebody_else_are_refused(double):
    for service, call, expected in (
        ("ec2", "describe_instances", "AuthFailure"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
    ):
        stranger = client(double, service, key="AKIASOMEBODYELSESKEY")
        assert code(getattr(stranger, call)) == expected
        stranger.close()


def test_what_the_double_does_not_do_it_says(ec2):
    assert code(ec2.describe_capacity_block_offerings, CapacityDurationHours=1) == "InvalidAction"


# --- the end of an instance ---


def test_a_power_off_from_inside_terminates_and_takes_the_disk_when_that_was_asked_for(ec2, double, machines):
    made = run(ec2, InstanceInitiatedShutdownBehavior="terminate")["InstanceId"]
    machines.stop(made)  # by itself

    seen = one(ec2, made)

    assert seen["State"]["Name"] == "terminated"
    assert seen["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert "PrivateIpAddress" not in seen
    assert ec2.describe_volumes()["Volumes"] == []
    assert double.inventory().instances == {}
    assert machines.power(made) is Power.absent


def test_a_power_off_from_inside_stops_otherwise_and_the_instance_starts_again(ec2, double, machines):
    made = run(ec2)["InstanceId"]
    double.power_off(made)
    assert double.inventory().instances == {made: "stopped"}
    assert len(double.inventory().disks) == 1

    (change,) = ec2.start_instances(InstanceIds=[made])["StartingInstances"]

    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    assert machines.power(made) is Power.on
    assert listed(ec2) == {made: "running"}


def test_terminating_is_idempotent_and_the_instance_is_shown_for_an_hour(ec2, double, clock):
    made = run(ec2)["InstanceId"]
    (change,) = ec2.terminate_instances(InstanceIds=[made])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    (change,) = ec2.terminate_instances(InstanceIds=[made])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "terminated"
    clock.time += 3599
    assert listed(ec2) == {made: "terminated"}
    clock.time += 2
    assert listed(ec2) == {}
    assert code(ec2.terminate_instances, InstanceIds=[made]) == "InvalidInstanceID.NotFound"
    assert code(ec2.terminate_instances, InstanceIds=["i-nonsense"]) == "InvalidInstanceID.Malformed"


def test_a_disk_that_is_not_to_go_with_its_instance_stays(ec2, double):
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 20, "DeleteOnTermination": False}}
    made = run(ec2, BlockDeviceMappings=[disk])["InstanceId"]
    ec2.terminate_instances(InstanceIds=[made])
    (volume,) = ec2.describe_volumes()["Volumes"]
    assert double.inventory().disks == [volume["VolumeId"]]
    assert volume["State"] == "available"


def test_what_a_person_does_in_the_console_is_seen(ec2, double, machines):
    stopped, deleted = run(ec2)["InstanceId"], run(ec2)["InstanceId"]
    double.stop_by_hand(stopped)
    double.delete_by_hand(deleted)
    assert listed(ec2) == {stopped: "stopped", deleted: "terminated"}
    assert (machines.power(stopped), machines.power(deleted)) == (Power.off, Power.absent)


def test_spot_machines_are_taken_back(ec2, double, machines):
    made = run(ec2, InstanceMarketOptions={"MarketType": "spot"})
    double.preempt(made["InstanceId"])
    seen = one(ec2, made["InstanceId"])
    assert (made["InstanceLifecycle"], seen["State"]["Name"]) == ("spot", "terminated")
    assert seen["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert machines.power(made["InstanceId"]) is Power.absent
    with pytest.raises(ValueError, match="not a spot"):
        double.preempt(run(ec2)["InstanceId"])


def test_spot_and_the_shutdown_behaviour(ec2, double):
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    asked = {"ec2": ec2, **spot}
    assert code(run, **asked, InstanceInitiatedShutdownBehavior="stop") == "InvalidParameterCombination"
    run(**asked, InstanceInitiatedShutdownBehavior="terminate")
    double.refuse_shutdown_behavior_of_spot()
    assert code(run, **asked, InstanceInitiatedShutdownBehavior="terminate") == "InvalidParameterCombination"
    run(**asked)


def test_a_planted_machine_is_somebody_elses(ec2, double):
    planted = double.plant("theirs", tags={"vmrun-owner": "you"}, zone="us-east-1c")
    seen = one(ec2, planted)
    assert (seen["State"]["Name"], seen["Placement"]["AvailabilityZone"]) == ("running", "us-east-1c")
    assert {tag["Key"]: tag["Value"] for tag in seen["Tags"]} == {"Name": "theirs", "vmrun-owner": "you"}
    assert double.inventory().instances == {planted: "running"}
    double.power_off("theirs")
    assert double.inventory().instances == {planted: "stopped"}


def test_the_console_is_the_machines(ec2):
    made = run(ec2)["InstanceId"]
    assert ec2.get_console_output(InstanceId=made)["Output"] == f"{made}: paper has no console\n"


# --- one client token, one instance ---


def test_the_same_call_with_the_same_token_gets_the_same_instance(ec2, double):
    first = ec2.run_instances(ImageId=IMAGE, InstanceType=TYPE, MinCount=1, MaxCount=1, ClientToken="t")
    again = ec2.run_instances(ImageId=IMAGE, InstanceType=TYPE, MinCount=1, MaxCount=1, ClientToken="t")
    assert again["ReservationId"] == first["ReservationId"]
    assert again["Instances"][0]["InstanceId"] == first["Instances"][0]["InstanceId"]
    assert again["Instances"][0]["State"]["Name"] == "running"
    assert len(double.inventory().instances) == 1


def test_another_call_with_the_same_token_is_refused_but_not_in_another_region(ec2, double):
    run(ec2, ClientToken="t")
    assert code(run, ec2=ec2, ClientToken="t", InstanceType="m6i.xlarge") == "IdempotentParameterMismatch"
    west = client(double, "ec2", "us-west-2")
    run(west, ClientToken="t", ImageId=image_id("us-west-2", "amd64"))
    assert len(double.inventory().instances) == 2
    west.close()


def test_a_token_whose_instance_is_gone_makes_no_other_one_for_a_day(ec2, double, clock):
    made = run(ec2, ClientToken="t")["InstanceId"]
    ec2.terminate_instances(InstanceIds=[made])
    assert code(run, ec2=ec2, ClientToken="t") == "IdempotentInstanceTerminated"
    clock.time += 23 * 3600
    assert code(run, ec2=ec2, ClientToken="t") == "IdempotentInstanceTerminated"
    clock.time += 2 * 3600
    assert run(ec2, ClientToken="t")["InstanceId"] != made


def test_a_lost_reply_is_found_again_by_its_token(ec2, double):
    double.script.add(Rule(Trouble.reply_lost, operation="RunInstances"))
    with pytest.raises(HTTPClientError):
        run(ec2, ClientToken="t")
    (made,) = listed(ec2, Filters=[{"Name": "client-token", "Values": ["t"]}])
    assert run(ec2, ClientToken="t")["InstanceId"] == made
    assert len(double.inventory().instances) == 1


def test_a_lost_request_did_nothing(ec2, double):
    double.script.add(Rule(Trouble.request_lost, operation="RunInstances"))
    with pytest.raises(HTTPClientError):
        run(ec2, ClientToken="t")
    assert double.inventory().instances == {}
    assert [call.outcome for call in double.script.calls] == ["cut"]
    run(ec2, ClientToken="t")


def test_a_refused_call_leaves_its_token_free(ec2, double):
    double.script.add(Rule(Trouble.stockout))
    assert code(run, ec2=ec2, ClientToken="t") == "InsufficientInstanceCapacity"
    run(ec2, ClientToken="t")


def test_calls_at_once_with_one_token_make_one_instance(ec2, double):
    ready = threading.Barrier(6)

    def attempt(_: int) -> str:
        ready.wait(120)
        return run(ec2, ClientToken="t")["InstanceId"]

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(attempt, range(6)))) == 1
    assert len(double.inventory().instances) == 1


# --- troubles ---


@pytest.mark.parametrize(
    ("trouble", "expected", "status"),
    [
        (Trouble.stockout, "InsufficientInstanceCapacity", 500),
        (Trouble.quota, "VcpuLimitExceeded", 400),
        (Trouble.not_offered, "Unsupported", 400),
        (Trouble.permission, "UnauthorizedOperation", 403),
        (Trouble.billing, "PendingVerification", 400),
        (Trouble.throttle, "RequestLimitExceeded", 503),
        (Trouble.config, "InvalidAMIID.NotFound", 400),
        (Trouble.unavailable, "InternalError", 500),
        (Trouble.unknown, "IncompatibleMoonPhase", 400),
    ],
)
def test_a_refusal_creates_nothing_and_is_over_when_its_times_are(ec2, double, trouble, expected, status):
    double.script.add(Rule(trouble, operation="RunInstances", times=2))
    for _ in range(2):
        error = refusal(run, ec2=ec2)
        assert error.response["Error"]["Code"] == expected
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert double.inventory().instances == {}
    run(ec2)
    assert [call.outcome for call in double.script.calls] == [expected, expected, "ok"]


def test_a_rule_may_be_narrowed_to_a_type_and_a_zone(ec2, double):
    double.script.add(Rule(Trouble.stockout, instance_type=TYPE, zone="us-east-1a", times=-1))
    first, second = zone_subnet(ec2, "us-east-1a"), zone_subnet(ec2, "us-east-1b")
    assert code(run, ec2=ec2, SubnetId=first) == "InsufficientInstanceCapacity"
    run(ec2, SubnetId=first, InstanceType="c6i.large")
    run(ec2, SubnetId=second)
    about = [call.about for call in double.script.calls if call.operation == "RunInstances"]
    assert [(one["instance_type"], one["zone"]) for one in about] == [
        (TYPE, "us-east-1a"),
        ("c6i.large", "us-east-1a"),
        (TYPE, "us-east-1b"),
    ]


def test_calls_to_other_services_are_refused_in_their_own_words(ec2, double):
    expectations = [
        ("sts", "get_caller_identity", {}, Trouble.permission, "AccessDenied"),
        ("sts", "get_caller_identity", {}, Trouble.throttle, "Throttling"),
        ("ssm", "get_parameters", {"Names": ["x"]}, Trouble.permission, "AccessDeniedException"),
        ("service-quotas", "list_service_quotas", {"ServiceCode": "ec2"}, Trouble.throttle, "ThrottlingException"),
    ]
    for service, call, asked, trouble, expected in expectations:
        double.script.add(Rule(trouble))
        other = client(double, service)
        assert code(getattr(other, call), **asked) == expected
        other.close()
    double.script.add(Rule(Trouble.billing))
    assert code(ec2.describe_vpcs) == "OptInRequired"


def test_a_denial_can_be_decoded(ec2, double):
    double.script.add(Rule(Trouble.permission, operation="RunInstances"))
    message = refusal(run, ec2=ec2).response["Error"]["Message"]
    sts = client(double, "sts")
    told = sts.decode_authorization_message(EncodedMessage=message.rpartition(" ")[2])["DecodedMessage"]
    assert json.loads(told)["context"]["action"] == "ec2:RunInstances"
    assert (
        code(sts.decode_authorization_message, EncodedMessage="bm9uc2Vuc2U=") == "InvalidAuthorizationMessageException"
    )
    sts.close()


def test_a_dry_run_creates_nothing_and_tells_what_is_allowed(ec2, double):
    assert code(run, ec2=ec2, DryRun=True, ClientToken="t") == "DryRunOperation"
    assert code(ec2.terminate_instances, InstanceIds=["i-0123456789abcdef0"], DryRun=True) == "DryRunOperation"
    double.script.add(Rule(Trouble.permission, operation="RunInstances"))
    assert code(run, ec2=ec2, DryRun=True, ClientToken="t") == "UnauthorizedOperation"
    assert double.inventory().instances == {}


def test_an_accepted_request_may_fail_afterwards(ec2, double, machines):
    double.script.add(Rule(Trouble.accepted_then_failed))
    made = run(ec2, ClientToken="t")
    assert made["State"]["Name"] == "pending"
    seen = one(ec2, made["InstanceId"])
    assert seen["State"]["Name"] == "terminated"
    assert seen["StateReason"]["Code"] == "Server.InsufficientInstanceCapacity"
    assert (double.inventory().instances, double.inventory().disks) == ({}, [])
    assert machines.user_data == {}


def test_a_late_instance_is_nowhere_for_a_while(ec2, double, clock):
    double.script.add(Rule(Trouble.late, seconds=10))
    made = run(ec2, ClientToken="t")["InstanceId"]
    clock.time += 9
    assert listed(ec2) == {}
    assert code(ec2.describe_instances, InstanceIds=[made]) == "InvalidInstanceID.NotFound"
    assert code(ec2.terminate_instances, InstanceIds=[made]) == "InvalidInstanceID.NotFound"
    assert double.inventory().instances == {made: "running"}
    assert run(ec2, ClientToken="t")["InstanceId"] == made
    clock.time += 1
    assert listed(ec2) == {made: "running"}


def test_lists_may_lag_while_look_ups_do_not(ec2, double, clock):
    double.script.add(Rule(Trouble.list_lag, seconds=30, times=-1))
    first = run(ec2)["InstanceId"]
    clock.time += 31
    ec2.terminate_instances(InstanceIds=[first])
    second = run(ec2)["InstanceId"]
    assert listed(ec2) == {first: "running"}
    assert one(ec2, second)["State"]["Name"] == "running"
    clock.time += 31
    assert listed(ec2) == {first: "terminated", second: "running"}


def test_pages_are_as_small_as_a_rule_has_them(ec2, double):
    made = {run(ec2)["InstanceId"] for _ in range(5)}
    double.script.add(Rule(Trouble.small_pages, size=2))
    pages = list(ec2.get_paginator("describe_instances").paginate())
    assert [len(page["Reservations"]) for page in pages] == [2, 2, 1]
    assert set(listed(ec2)) == made
    double.script.add(Rule(Trouble.small_pages, operation="DescribeVolumes", size=3))
    pages = list(ec2.get_paginator("describe_volumes").paginate())
    assert [len(page["Volumes"]) for page in pages] == [3, 2]


def test_pages_are_as_asked_for_and_tokens_are_checked(ec2):
    for _ in range(6):
        run(ec2)
    first = ec2.describe_instances(MaxResults=5)
    assert len(first["Reservations"]) == 5
    assert len(ec2.describe_instances(NextToken=first["NextToken"])["Reservations"]) == 1
    assert code(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
    assert code(ec2.describe_instances, NextToken="nonsense") == "InvalidNextToken"


def test_half_a_list_is_followed_by_an_error(ec2, double):
    for _ in range(4):
        run(ec2)
    double.script.add(Rule(Trouble.half_a_list))
    first = ec2.describe_instances()
    assert len(first["Reservations"]) == 2
    for _ in range(2):
        assert code(ec2.describe_instances, NextToken=first["NextToken"]) == "InternalError"
    assert len(listed(ec2)) == 4


def test_a_real_quota_is_kept(ec2, double):
    double.quotas.set("L-1216C47A", 6)
    first = run(ec2)["InstanceId"]
    run(ec2, InstanceType="m6i.xlarge")
    error = refusal(run, ec2=ec2)
    assert error.response["Error"]["Code"] == "VcpuLimitExceeded"
    assert "current vCPU limit of 6" in error.response["Error"]["Message"]
    run(ec2, InstanceMarketOptions={"MarketType": "spot"})
    ec2.terminate_instances(InstanceIds=[first])
    run(ec2)


def test_a_type_is_only_where_ec2_offers_it(ec2):
    # m6i is in no zone e of this region.
    error = refusal(run, ec2=ec2, SubnetId=zone_subnet(ec2, "us-east-1e"))
    assert error.response["Error"]["Code"] == "Unsupported"
    assert "us-east-1a" in error.response["Error"]["Message"]
    assert code(run, ec2=ec2, InstanceType="q9.huge") == "InvalidParameterValue"
    assert code(run, ec2=ec2, ImageId="ami-0123456789abcdef0") == "InvalidAMIID.NotFound"
    assert code(run, ec2=ec2, SubnetId="subnet-0123456789abcdef0") == "InvalidSubnetID.NotFound"
    assert code(run, ec2=ec2, SecurityGroupIds=["sg-0123456789abcdef0"]) == "InvalidGroup.NotFound"


def test_the_speed_of_disks_is_checked(ec2):
    def disk(**ebs: Any) -> list[dict[str, Any]]:
        return [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 100, **ebs}}]

    fast = disk(VolumeType="gp2", Throughput=250)
    assert code(run, ec2=ec2, BlockDeviceMappings=fast) == "InvalidParameterCombination"
    fast = disk(VolumeType="gp3", Throughput=1000, Iops=3000)
    assert code(run, ec2=ec2, BlockDeviceMappings=fast) == "InvalidParameterValue"
    run(ec2, BlockDeviceMappings=disk(VolumeType="gp3", Throughput=1000, Iops=4000))


def test_a_group_in_use_cannot_be_deleted(ec2, double):
    group = ec2.create_security_group(GroupName="vmrun", Description="vmrun")["GroupId"]
    made = run(ec2, SecurityGroupIds=[group])["InstanceId"]
    assert one(ec2, made)["SecurityGroups"] == [{"GroupId": group, "GroupName": "vmrun"}]
    assert code(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[made])
    assert double.inventory().groups == [group]
    ec2.delete_security_group(GroupId=group)
    assert double.inventory().groups == []
