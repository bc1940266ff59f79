"""The account around the machines: what `init` makes, what `doctor` says, what things cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.clouds.drivers.ec2.conftest import Account, TellingAws
from tests.unit.provisioners.ec2.offers import OTHER, OWNER
from vmrun.core.clouds import CloudError, Fault, Market, Need
from vmrun.core.errors import ConfigError
from vmrun.core.estates import Finding, Grade
from vmrun.provisioners.ec2.config import Ec2Config
from vmrun.provisioners.ec2.estate import Ec2Estate, open_estate
from vmrun.provisioners.ec2.founding import rule_changes
from vmrun.provisioners.ec2.networks import TAG_ESTATE
from vmrun.provisioners.ec2.prices import on_demand_prices, price_row, spot_prices
from vmrun.provisioners.ec2.store_credentials import lend

HOME = "8.8.4.4"


def at(address: str) -> Callable[[str], bytes]:
    return lambda _url: address.encode()


def estate(account: Account, address: str = HOME, **table: Any) -> tuple[Ec2Estate, TellingAws]:
    context = account.context(security_group="", **table)
    config = Ec2Config.from_table(context.settings)
    aws = TellingAws(config, account.clock, account.rng)
    return Ec2Estate(aws, config, context, at(address)), aws


def groups(account: Account, deployment: str) -> list[dict[str, Any]]:
    mine = [{"Name": f"tag:{TAG_ESTATE}", "Values": [deployment]}]
    return account.client().describe_security_groups(Filters=mine)["SecurityGroups"]


def ingress(group: dict[str, Any]) -> list[tuple[int, int, list[str]]]:
    return [
        (one["FromPort"], one["ToPort"], [source["CidrIp"] for source in one["IpRanges"]])
        for one in group["IpPermissions"]
    ]


def drop_default_vpc(account: Account) -> None:
    ec2 = account.client()
    for group in ec2.describe_security_groups()["SecurityGroups"]:
        if group["GroupName"] != "default":
            ec2.delete_security_group(GroupId=group["GroupId"])
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])


# --- init ---


def test_init_makes_a_group_that_only_the_caller_reaches_by_ssh(account: Account) -> None:
    made, _ = estate(account)

    told = list(made.establish(OTHER))

    (group,) = groups(account, OTHER)
    assert ingress(group) == [(22, 22, [f"{HOME}/32"])]
    assert any(group["GroupId"] in line for line in told)
    driver, _ = account.driver(security_group="")
    assert driver.create(account.spec(OTHER)).id


def test_init_again_changes_nothing(account: Account) -> None:
    list(estate(account)[0].establish(OTHER))
    again, aws = estate(account)

    list(again.establish(OTHER))

    assert len(groups(account, OTHER)) == 1
    assert {action for action, _, _ in aws.calls if not action.startswith("ec2:Describe")} == set()


def test_init_from_elsewhere_moves_the_way_in(account: Account) -> None:
    list(estate(account)[0].establish(OTHER))

    list(estate(account, "9.9.9.9")[0].establish(OTHER))

    (group,) = groups(account, OTHER)
    assert ingress(group) == [(22, 22, ["9.9.9.9/32"])]


def test_init_closes_what_somebody_opened(account: Account) -> None:
    list(estate(account)[0].establish(OTHER))
    (group,) = groups(account, OTHER)
    account.client().authorize_security_group_ingress(
        GroupId=group["GroupId"],
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )

    list(estate(account)[0].establish(OTHER))

    assert ingress(groups(account, OTHER)[0]) == [(22, 22, [f"{HOME}/32"])]


def test_init_opens_ssh_to_what_is_configured(account: Account) -> None:
    list(estate(account, ssh_from=("203.0.113.0/24", "198.51.100.7"))[0].establish(OTHER))

    (group,) = groups(account, OTHER)
    sources = sorted(source for _, _, found in ingress(group) for source in found)
    assert sources == ["198.51.100.7/32", "203.0.113.0/24"]
    with pytest.raises(ConfigError, match=r"ec2\.ssh_from"):
        list(estate(account, ssh_from=("nowhere",))[0].establish(OTHER))


def test_init_opens_private_machines_to_their_own_vpc(account: Account) -> None:
    list(estate(account, public_ip=False)[0].establish(OTHER))

    vpc = account.client().describe_vpcs()["Vpcs"][0]
    assert ingress(groups(account, OTHER)[0]) == [(22, 22, [vpc["CidrBlock"]])]


def test_init_of_two_at_the_same_time_makes_one_group(account: Account) -> None:
    """The other one's group appears between the look and the creation."""
    slow, aws = estate(account)
    quick, _ = estate(account)
    list(quick.establish(OTHER))
    seen = iter([{"SecurityGroups": []}])

    def first_look_is_too_early(parameters: dict[str, Any]) -> dict[str, Any]:
        empty = next(seen, None)
        return empty if empty is not None else account.client().describe_security_groups(**parameters)

    aws.answers["DescribeSecurityGroups"] = first_look_is_too_early

    list(slow.establish(OTHER))

    assert len(aws.sent("CreateSecurityGroup")) == 1
    assert len(groups(account, OTHER)) == 1


def test_init_makes_a_vpc_where_there_is_no_default_one_and_takes_it_away_again(account: Account) -> None:
    drop_default_vpc(account)
    made, _ = estate(account)

    list(made.establish(OTHER))
    again, aws = estate(account)
    list(again.establish(OTHER))

    assert {action for action, _, _ in aws.calls if not action.startswith("ec2:Describe")} == set()
    ec2 = account.client()
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    subnets = ec2.describe_subnets()["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == len(subnets) > 1
    assert all(subnet["MapPublicIpOnLaunch"] for subnet in subnets)
    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"]
    assert any(route.get("GatewayId", "").startswith("igw-") for route in table["Routes"])
    driver, _ = account.driver(security_group="")
    assert len({offer.zone for offer in driver.offers(Need(cpus=128))}) > 1
    driver.delete(driver.create(account.spec(OTHER)).id)

    list(made.dismantle(OTHER))
    list(made.dismantle(OTHER))

    assert ec2.describe_vpcs()["Vpcs"] == []
    assert ec2.describe_internet_gateways()["InternetGateways"] == []
    assert groups(account, OTHER) == []


def test_init_that_broke_off_goes_on_where_it_was(account: Account) -> None:
    drop_default_vpc(account)
    broken, aws = estate(account)
    aws.errors["CreateInternetGateway"] = [("UnauthorizedOperation", "no")]
    with pytest.raises(CloudError):
        list(broken.establish(OTHER))

    list(estate(account)[0].establish(OTHER))

    assert len(account.client().describe_vpcs()["Vpcs"]) == 1
    assert len(account.client().describe_internet_gateways()["InternetGateways"]) == 1


def test_a_vpc_that_is_not_there_is_not_made_in_its_place(account: Account) -> None:
    with pytest.raises(CloudError, match="no VPC nowhere"):
        list(estate(account, vpc="nowhere")[0].establish(OTHER))

    assert len(account.client().describe_vpcs()["Vpcs"]) == 1


def test_dismantle_leaves_what_others_have(account: Account) -> None:
    made, _ = estate(account)
    list(made.establish(OTHER))

    list(made.dismantle(OTHER))

    assert groups(account, OTHER) == []
    assert [group["GroupId"] for group in groups(account, OWNER)] == [account.group]
    assert len(account.client().describe_vpcs()["Vpcs"]) == 1


def test_dismantle_waits_for_machines_to_go_but_not_for_ever(account: Account) -> None:
    made, aws = estate(account)
    list(made.establish(OTHER))
    aws.errors["DeleteSecurityGroup"] = [("DependencyViolation", "it is used")] * 3
    began = account.clock.now()

    list(made.dismantle(OTHER))

    assert account.clock.now() - began >= 6
    list(made.establish(OTHER))
    aws.errors["DeleteSecurityGroup"] = [("DependencyViolation", "it is used")] * 1000
    with pytest.raises(CloudError, match="still used") as caught:
        list(made.dismantle(OTHER))
    assert "vmrun reap" in caught.value.hint
    assert account.clock.now() - began < 300


def test_rules_are_compared_source_by_source() -> None:
    present = [
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": "8.8.4.4/32", "Description": "x"}, {"CidrIp": "0.0.0.0/0"}],
            "UserIdGroupPairs": [{"GroupId": "sg-9"}],
        },
        {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ]

    missing, surplus = rule_changes(present, ["8.8.4.4/32", "2a00::/16"])

    assert [one["Ipv6Ranges"][0]["CidrIpv6"] for one in missing] == ["2a00::/16"]
    assert surplus == [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": "sg-9"}]},
        {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ]


# --- doctor ---


def quota(limit: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda _: {"Quota": {"Value": limit}}


def findings(made: Ec2Estate, need: Need | None = None) -> dict[str, Finding]:
    return {found.what.removesuffix(" in us-east-1"): found for found in made.check(need or Need(cpus=128))}


def test_all_is_well(account: Account) -> None:
    list(estate(account)[0].establish(OTHER))
    made, aws = estate(account)
    aws.answers["GetServiceQuota"] = quota(640.0)

    found = findings(made)

    assert {name: one.grade for name, one in found.items()} == {
        "credentials": Grade.good,
        "permission ec2:Describe*": Grade.good,
        "image": Grade.good,
        "network": Grade.good,
        "security group": Grade.good,
        "ssh": Grade.good,
        "permission ec2:RunInstances": Grade.good,
        "permission ec2:TerminateInstances": Grade.unclear,
        "quota": Grade.good,
    }
    assert account.client().describe_instances()["Reservations"] == [], "a check creates nothing"
    assert all(parameters.get("DryRun") for parameters in aws.sent("RunInstances"))


def test_without_credentials_nothing_else_is_asked(account: Account) -> None:
    made, aws = estate(account)
    aws.errors["GetCallerIdentity"] = [("ExpiredToken", "it has expired")]

    (only,) = made.check(Need())

    assert (only.what, only.grade) == ("credentials", Grade.bad)
    assert "log in" in only.hint


def test_each_missing_permission_has_its_own_finding(account: Account) -> None:
    made, aws = estate(account)
    aws.errors["DescribeVolumes"] = [("UnauthorizedOperation", "not authorized to perform: ec2:DescribeVolumes")]
    aws.errors["RunInstances"] = [("UnauthorizedOperation", "not authorized to perform: ec2:CreateTags on it")]

    found = findings(made)

    assert found["permission ec2:DescribeVolumes"].grade is Grade.bad
    assert '"ec2:DescribeVolumes"' in found["permission ec2:DescribeVolumes"].hint
    assert found["permission ec2:RunInstances"].grade is Grade.bad
    assert '"ec2:CreateTags"' in found["permission ec2:RunInstances"].hint


def test_ending_is_rehearsed_on_a_machine_that_is_there(account: Account) -> None:
    driver, _ = account.driver()
    made_machine = driver.create(account.spec())
    made, aws = estate(account)

    assert findings(made)["permission ec2:TerminateInstances"].grade is Grade.good
    (rehearsed,) = aws.sent("TerminateInstances")
    assert rehearsed["DryRun"] is True
    assert driver.get(made_machine.id).state.value == "running"


def test_a_quota_that_does_not_do_is_told_with_the_number_to_ask_for(account: Account) -> None:
    driver, _ = account.driver()
    driver.create(account.spec())
    made, aws = estate(account)
    aws.answers["GetServiceQuota"] = quota(32.0)

    found = findings(made, Need(cpus=128, memory=10**12))["quota"]

    assert found.grade is Grade.bad
    assert "of 32 vCPUs" in found.message
    assert "--quota-code L-1216C47A" in found.hint
    assert aws.sent("GetServiceQuota") == [{"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}]
    findings(made, Need(cpus=128, market=Market.spot))
    assert aws.sent("GetServiceQuota")[-1]["QuotaCode"] == "L-34B43A08"


def test_machines_that_run_count_against_the_quota(account: Account) -> None:
    made, aws = estate(account)
    aws.answers["GetServiceQuota"] = quota(200.0)
    running = {"InstanceType": "r6a.32xlarge", "CpuOptions": {"CoreCount": 64, "ThreadsPerCore": 2}}
    others = [{**running, "InstanceLifecycle": "spot"}, {**running, "InstanceType": "x2idn.32xlarge"}]

    def shows(*machines: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda _: {"Reservations": [{"Instances": [{"InstanceId": "i-00000001", **one} for one in machines]}]}

    aws.answers["DescribeInstances"] = shows(*others)
    assert findings(made)["quota"].grade is Grade.good
    aws.answers["DescribeInstances"] = shows(running, *others)
    assert findings(made)["quota"].grade is Grade.bad


def test_a_quota_that_may_not_be_read_is_unclear(account: Account) -> None:
    made, aws = estate(account)
    aws.errors["GetServiceQuota"] = [
        ("AccessDeniedException", "not authorized to perform: servicequotas:GetServiceQuota")
    ]

    found = findings(made)["quota"]

    assert found.grade is Grade.unclear
    assert "servicequotas:GetServiceQuota" in found.hint


def test_an_account_before_init_is_sent_there(account: Account) -> None:
    account.client().delete_security_group(GroupId=account.group)
    made, _ = estate(account)

    found = findings(made)

    assert found["security group"].grade is Grade.bad
    assert "vmrun init ec2" in found["security group"].hint


def test_ssh_that_is_shut_to_the_caller_is_told_before_a_machine_is_paid_for(account: Account) -> None:
    list(estate(account)[0].establish(OTHER))

    elsewhere = findings(estate(account, "9.9.9.9")[0])["ssh"]
    mute = findings(estate(account, "no address")[0])["ssh"]

    assert (elsewhere.grade, mute.grade) == (Grade.bad, Grade.unclear)
    assert "9.9.9.9/32" in elsewhere.message


def test_a_foreign_image_is_found(account: Account) -> None:
    made, _ = estate(account, image_owners=("self",))

    assert findings(made)["image"].grade is Grade.bad


def test_a_region_that_is_not_configured_is_told(account: Account) -> None:
    found = list(estate(account)[0].check(Need(region="eu-west-1")))

    assert [(one.what, one.grade) for one in found] == [("credentials", Grade.good), ("region", Grade.bad)]


# --- policy, prices ---


def test_the_policy_is_that_of_the_configuration(account: Account) -> None:
    context = replace(account.context(instance_profile="jobs"), store_url="s3://bucket/jobs")

    actions = [one["Action"] for one in json.loads(open_estate(context).policy())["Statement"]]

    assert ["iam:PassRole"] in actions
    assert ["s3:ListBucket"] in actions


def product(name: str, usd: str, unit: str = "Hrs") -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": usd}}
    terms = {"OnDemand": {"x": {"priceDimensions": {"y": dimension}}}}
    return json.dumps({"product": {"attributes": {"instanceType": name}}, "terms": terms})


def test_prices_are_rows_of_the_catalogue(account: Account) -> None:
    made, aws = estate(account)
    aws.answers["GetProducts"] = lambda _: {"PriceList": [product("r6a.32xlarge", "7.2576"), product("x", "0")]}
    aws.answers["DescribeSpotPriceHistory"] = lambda _: {"SpotPriceHistory": [], "NextToken": ""}

    rows = {row.instance_type: row for row in made.prices()}

    row = rows["r6a.32xlarge"]
    assert (row.vcpus, row.cores, row.memory_gib, row.arch) == (128, 64, 1024.0, "x86_64")
    assert (row.usd_per_hour, row.spot_usd_per_hour) == (7.2576, None)
    assert row.priced_at == datetime.fromtimestamp(account.clock.now(), UTC).date().isoformat()
    assert rows["r6a.16xlarge"].usd_per_hour is None
    assert rows["r6a.16xlarge"].priced_at == ""
    assert not any(name.startswith(("p3", "g4", "mac")) or name.endswith(".metal") for name in rows)


def test_only_prices_by_the_hour_count() -> None:
    assert on_demand_prices([product("a", "1.5"), product("b", "2", "Quantity"), product("c", "0.0")]) == {"a": 1.5}


def test_the_spot_price_is_the_lowest_of_the_newest_in_each_zone() -> None:
    def one(zone: str, day: int, price: str) -> dict[str, Any]:
        when = datetime(2026, 5, day, tzinfo=UTC)
        return {"InstanceType": "a", "AvailabilityZone": zone, "Timestamp": when, "SpotPrice": price}

    assert spot_prices([one("z1", 1, "0.1"), one("z1", 2, "0.7"), one("z2", 2, "0.5")]) == {"a": 0.5}


def test_types_for_other_work_have_no_row() -> None:
    raw = {
        "InstanceType": "a",
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "VCpuInfo": {"DefaultVCpus": 2, "DefaultCores": 1},
        "MemoryInfo": {"SizeInMiB": 4096},
        "InstanceStorageInfo": {"TotalSizeInGB": 75},
    }

    row = price_row(raw, "r", {}, {}, "2026-05-01")
    assert row is not None
    assert (row.memory_gib, row.local_ssd_gb, row.cores) == (4.0, 75, 1)
    assert price_row({**raw, "GpuInfo": {"Gpus": []}}, "r", {}, {}, "") is None
    assert price_row({**raw, "ProcessorInfo": {"SupportedArchitectures": ["x86_64_mac"]}}, "r", {}, {}, "") is None


# --- credentials for machines ---


def test_credentials_are_lent_from_a_role_or_a_user_and_bounded(account: Account) -> None:
    _, aws = estate(account)
    role = Ec2Config(store_role="arn:aws:iam::123456789012:role/store")

    lent = lend(aws, role, "s3://bucket/prefix", 60.0)
    own = lend(aws, Ec2Config(), "s3://bucket/prefix", 1e9)

    for found in (lent, own):
        assert set(found) == {"access_key_id", "secret_access_key", "session_token"}
        assert all(found.values())
    (taken,) = aws.sent("AssumeRole")
    (federated,) = aws.sent("GetFederationToken")
    assert (taken["DurationSeconds"], federated["DurationSeconds"]) == (900, 129_600)
    for asked in (taken, federated):
        assert "arn:aws:s3:::bucket/prefix/*" in asked["Policy"]


def test_a_role_that_may_be_taken_for_an_hour_is_taken_for_an_hour(account: Account) -> None:
    _, aws = estate(account)
    aws.errors["AssumeRole"] = [("ValidationError", "exceeds the MaxSessionDuration set for this role")]

    role, told = Ec2Config(store_role="arn:aws:iam::123456789012:role/store"), list[str]()

    lend(aws, role, "s3://bucket", 7200.0, tell=told.append)

    assert [asked["DurationSeconds"] for asked in aws.sent("AssumeRole")] == [7200, 3600]
    # A job that takes longer would lose its way to the store unwarned
    assert "ec2.instance_profile" in told[0]
    lend(aws, role, "s3://bucket", 7200.0, tell=told.append)
    assert len(told) == 1


def test_credentials_that_cannot_be_lent_name_the_ways_out(account: Account) -> None:
    _, aws = estate(account)
    aws.errors["GetFederationToken"] = [("AccessDenied", "Cannot call GetFederationToken with session credentials")]

    with pytest.raises(CloudError) as caught:
        lend(aws, Ec2Config(), "s3://bucket", 60.0)

    assert caught.value.fault is Fault.permission
    assert "ec2.instance_profile" in caught.value.hint
    with pytest.raises(ConfigError):
        lend(aws, Ec2Config(), "gs://bucket", 60.0)
