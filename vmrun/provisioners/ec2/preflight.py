"""What `vmrun doctor` asks of an AWS account in one region: permissions by rehearsal, image, network, quota."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from vmrun import catalog
from vmrun.core.clouds import TAG_OWNER, CloudError, Fault, InstanceSpec, Need, Offer, instance_name
from vmrun.core.errors import VmrunError
from vmrun.core.estates import Finding, Grade

from .api import Aws
from .config import ON, Ec2Config
from .errors import raise_quota, statement
from .founding import ssh_sources
from .images import Image, Images
from .networks import TAG_ESTATE, Networks, Subnet
from .policy import LOOKS
from .request import Place, run_instances

#: Names a machine that is only rehearsed; no deployment has this id.
_REHEARSAL = "0" * 26
#: What is looked at only by commands other than `submit` and `reap`.
_SELDOM = ("ec2:DescribeInstanceTypes", "ec2:DescribeSpotPriceHistory")
_SSH = "so that no machine could be reached"


class Preflight:
    """One region. Nothing is created; what cannot be found out is said so."""

    def __init__(self, aws: Aws, config: Ec2Config, region: str, caller: Callable[[], tuple[str, ...]]) -> None:
        self._aws = aws
        self._config = config
        self._region = region
        self._caller = caller

    def findings(self, need: Need) -> Iterator[Finding]:
        """One for each thing that is checked, as they come."""
        yield from self._looks()
        offer = self._offer(need)
        if offer is None:
            yield self._say("offer", Grade.warning, "nothing in the catalogue fits", "ask for less, or add ec2.regions")
            offer = next(iter(catalog.offers(ON, Need(), [self._region])), None)
        image = yield from self._image(offer.arch if offer else "x86_64")
        subnets = yield from self._network()
        group = yield from self._group(subnets)
        if offer is not None and image is not None and subnets and group is not None:
            yield self._rehearse(offer, image, subnets, group)
        yield self._ending()
        if offer is not None:
            yield self._quota(offer, max(need.cpus, offer.vcpus))

    def _looks(self) -> Iterator[Finding]:
        """The rights to look; those that are there in one finding, those that are missing one by one."""
        granted = []
        for action in LOOKS:
            said = self._aws.allowed(self._region, action)
            if said is None:
                granted.append(action.removeprefix("ec2:"))
            else:
                grade = Grade.warning if action in _SELDOM and said.fault is Fault.permission else _grade(said)
                yield self._say(f"permission {action}", grade, said.message, said.hint)
        if granted:
            yield self._say("permission ec2:Describe*", Grade.good, f"may be used: {', '.join(granted)}")

    def _offer(self, need: Need) -> Offer | None:
        """What a job with this need would be tried with first."""
        found = catalog.offers(ON, need, [self._region], exclude=self._config.exclude)
        return found[0] if found else None

    def _image(self, arch: str) -> Generator[Finding, None, Image | None]:
        try:
            image = Images(self._aws, self._config).find(self._region, arch)
        except CloudError as error:
            yield self._said("image", error)
            return None
        yield self._say("image", Grade.good, f"{image.id}, {self._config.image or 'Ubuntu 24.04'} for {arch}")
        return image

    def _network(self) -> Generator[Finding, None, dict[str, Subnet]]:
        try:
            subnets = Networks(self._aws, self._config).subnets(self._region)
        except CloudError as error:
            yield self._said("network", error)
            return {}
        yield self._say("network", Grade.good, f"a subnet in each of {', '.join(subnets)}")
        return subnets

    def _group(self, subnets: Mapping[str, Subnet]) -> Generator[Finding, None, str | None]:
        if not subnets:
            return None
        wanted = self._config.security_group
        filters = [{"Name": "vpc-id", "Values": sorted({subnet.vpc for subnet in subnets.values()})}]
        if wanted:
            filters.append({"Name": "group-id" if wanted.startswith("sg-") else "group-name", "Values": [wanted]})
        else:
            filters.append({"Name": "tag-key", "Values": [TAG_ESTATE]})
        try:
            found = self._aws.pages(self._region, "ec2:DescribeSecurityGroups", "SecurityGroups", Filters=filters)
        except CloudError as error:
            yield self._said("security group", error)
            return None
        if not found:
            hint = "correct ec2.security_group" if wanted else "run: vmrun init ec2"
            yield self._say("security group", Grade.bad, "there is none for vmrun's machines", hint)
            return None
        names = ", ".join(str(group["GroupId"]) for group in found)
        yield self._say("security group", Grade.good, names)
        yield self._way_in(found)
        return str(found[0]["GroupId"])

    def _way_in(self, groups: Iterable[dict[str, Any]]) -> Finding:
        """Whether SSH is open to those who may reach it."""
        sources = [source for group in groups for source in ssh_sources(group)]
        if not self._config.public_ip or self._config.proxy_jump:
            grade = Grade.good if sources else Grade.bad
            return self._say("ssh", grade, f"open to {', '.join(sources) or 'nobody'}, as seen from inside")
        try:
            callers = self._caller()
        except VmrunError as error:
            return self._say("ssh", Grade.unclear, error.message, error.hint)
        shut = [network for network in callers if not any(_covers(source, network) for source in sources)]
        if shut:
            text = f"port 22 is not open to {', '.join(shut)}, {_SSH}"
            return self._say("ssh", Grade.bad, text, "run: vmrun init ec2 (or set ec2.ssh_from)")
        if any(_covers(source, "0.0.0.0/0") for source in sources):
            return self._say("ssh", Grade.warning, "port 22 is open to everybody", "run: vmrun init ec2")
        return self._say("ssh", Grade.good, f"port 22 is open to {', '.join(callers)}")

    def _rehearse(self, offer: Offer, image: Image, subnets: Mapping[str, Subnet], group: str) -> Finding:
        subnet = next(iter(subnets.values()))
        spec = InstanceSpec(
            vm=_REHEARSAL,
            owner=_REHEARSAL,
            name=instance_name(_REHEARSAL, _REHEARSAL),
            offer=offer,
            user_data="#cloud-config\n",
            hard_deadline=0.0,
        )
        body = run_instances(self._config, spec, image, Place(subnet.id, group))
        said = self._aws.allowed(self._region, "ec2:RunInstances", **body)
        what = "permission ec2:RunInstances"
        if said is None:
            return self._say(what, Grade.good, f"{offer.instance_type} with tags could be created in {subnet.zone}")
        return self._say(what, _grade(said), said.message, said.hint)

    def _ending(self) -> Finding:
        """Whether machines may be ended: told for certain only where there is one."""
        what = "permission ec2:TerminateInstances"
        owned = [{"Name": "tag-key", "Values": [TAG_OWNER]}, {"Name": "instance-state-name", "Values": ["running"]}]
        try:
            found = self._aws.pages(self._region, "ec2:DescribeInstances", "Reservations", Filters=owned)
        except CloudError as error:
            return self._said(what, error)
        if not found:
            action = statement("ec2:TerminateInstances")
            text = "can be told only while a machine of vmrun's is running here"
            return self._say(what, Grade.unclear, text, f"see that the policy has {action}, or its like")
        said = self._aws.allowed(
            self._region, "ec2:TerminateInstances", InstanceIds=[found[0]["Instances"][0]["InstanceId"]]
        )
        if said is None:
            return self._say(what, Grade.good, "machines of vmrun's may be ended")
        return self._said(what, said)

    def _quota(self, offer: Offer, vcpus: int) -> Finding:
        name = catalog.EC2_QUOTA_NAMES.get(offer.bucket, "")
        if not name:
            return self._say("quota", Grade.unclear, f"the quota of {offer.instance_type} is not known")
        try:
            answer = self._aws.call(
                self._region, "servicequotas:GetServiceQuota", ServiceCode="ec2", QuotaCode=offer.bucket
            )
            used = self._used(offer.bucket)
        except CloudError as error:
            return self._say("quota", Grade.unclear, error.message, error.hint)
        limit = int(answer["Quota"]["Value"])
        text = f'{used} of {limit} vCPUs of "{name}" are used, {vcpus} are wanted'
        if used + vcpus > limit:
            return self._say("quota", Grade.bad, text, raise_quota(offer.bucket, self._region, used + vcpus))
        return self._say("quota", Grade.good, text)

    def _used(self, bucket: str) -> int:
        """How many vCPUs the machines have that count against a quota, whosever they are."""
        alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        found = self._aws.pages(self._region, "ec2:DescribeInstances", "Reservations", Filters=alive)
        return sum(
            _vcpus(raw)
            for reservation in found
            for raw in reservation.get("Instances", ())
            if catalog.bucket(ON, str(raw["InstanceType"]), spot=raw.get("InstanceLifecycle") == "spot") == bucket
        )

    def _said(self, what: str, error: CloudError) -> Finding:
        return self._say(what, _grade(error), error.message, error.hint)

    def _say(self, what: str, grade: Grade, message: str, hint: str = "") -> Finding:
        return Finding(f"{what} in {self._region}", grade, message, hint)


def _grade(error: CloudError) -> Grade:
    return Grade.unclear if error.fault in (Fault.throttle, Fault.unavailable, Fault.unknown) else Grade.bad


def _vcpus(raw: Mapping[str, Any]) -> int:
    options = raw.get("CpuOptions", {})
    return int(options.get("CoreCount", 0)) * int(options.get("ThreadsPerCore", 1))


def _covers(source: str, network: str) -> bool:
    outer, inner = ipaddress.ip_network(source), ipaddress.ip_network(network)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
