"""The services beside EC2 that moto knows nothing of, or too little: prices, quotas, parameters, messages."""

from __future__ import annotations

import json
import re
import secrets
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import moto.ec2.models.instance_types as types

from tests.clouds.server import Reply

from .backend import ARCHITECTURES, PARAMETER, Moto, image_id, type_data, zones_of
from .errors import decode
from .protocol import Call, Refused, element, json_11, values
from .quotas import Quotas

#: What paper money costs: dollars an hour for a vCPU and for a GiB, and the share of it that spot costs.
_VCPU, _GIB, _SPOT = 0.04, 0.004, 0.4
_PAGE = 100


class Prices:
    """Made up from a type's size, the same in every region, unless a test sets one."""

    def __init__(self) -> None:
        self.on_demand: dict[str, float] = {}
        self.spot: dict[str, float] = {}

    def of(self, instance_type: str) -> float:
        """Dollars an hour."""
        data = type_data(instance_type)
        assert data is not None, instance_type
        made_up = data["VCpuInfo"]["DefaultVCpus"] * _VCPU + data["MemoryInfo"]["SizeInMiB"] / 1024 * _GIB
        return self.on_demand.get(instance_type, round(made_up, 4))

    def spot_of(self, instance_type: str) -> float:
        """Dollars an hour."""
        return self.spot.get(instance_type, round(self.of(instance_type) * _SPOT, 4))


class Beside:
    """Answers for those services; `None` where moto is to answer."""

    def __init__(self, quotas: Quotas, moto: Moto) -> None:
        self.prices = Prices()
        self._moto = moto
        self._quotas = quotas
        self._answers: dict[tuple[str, str], Callable[[Call, Mapping[str, Any]], Reply | None]] = {
            ("pricing", "GetProducts"): self._products,
            ("servicequotas", "GetServiceQuota"): self._quota,
            ("servicequotas", "ListServiceQuotas"): self._quota_list,
            ("ssm", "GetParameter"): self._parameter,
            ("ssm", "GetParameters"): self._parameters,
            ("sts", "DecodeAuthorizationMessage"): self._decoded,
            ("sts", "GetFederationToken"): self._federated,
        }

    def answer(self, call: Call) -> Reply | None:
        """The reply to a call of one of those services."""
        found = self._answers.get((call.service, call.operation))
        return found(call, _body(call)) if found else None

    def spot_prices(self, call: Call) -> list[Any]:
        """The items of DescribeSpotPriceHistory: today's price of each type in each zone."""
        wanted = values(call.parameters, "InstanceType")
        zone = call.parameters.get("AvailabilityZone", "")
        for given in call.members("Filter"):
            if given.get("Name") == "instance-type":
                wanted = values(given, "Value")
            elif given.get("Name") == "availability-zone":
                zone = given.get("Value.1", "")
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return [
            element(
                "item",
                element("instanceType", text=name),
                element("productDescription", text="Linux/UNIX"),
                element("spotPrice", text=f"{self.prices.spot_of(name):.6f}"),
                element("timestamp", text=now),
                element("availabilityZone", text=there),
            )
            for name in wanted or sorted(types.INSTANCE_TYPES)
            if type_data(name)
            for there in zones_of(name, call.region)
            if zone in ("", there)
        ]

    def _products(self, call: Call, given: Mapping[str, Any]) -> Reply:
        wanted = {one["Field"]: one["Value"] for one in given.get("Filters", ())}
        lines = list(self._price_list(wanted))
        start = int(given.get("NextToken") or 0)
        size = min(int(given.get("MaxResults") or _PAGE), _PAGE)
        reply = {"FormatVersion": "aws_v1", "PriceList": lines[start : start + size]}
        if start + size < len(lines):
            reply["NextToken"] = str(start + size)
        return json_11(reply)

    def _price_list(self, wanted: Mapping[str, str]) -> Iterator[str]:
        region = wanted.get("regionCode", "us-east-1")
        for name, data in sorted(types.INSTANCE_TYPES.items()):
            attributes = _attributes(name, data, region)
            if not zones_of(name, region) or any(attributes.get(key, value) != value for key, value in wanted.items()):
                continue
            dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{self.prices.of(name):.10f}"}}
            term = {"priceDimensions": {"X.Y.Z": dimension}, "effectiveDate": "2026-09-01T00:00:00Z"}
            product = {"productFamily": "Compute Instance", "sku": f"SKU{name}", "attributes": attributes}
            yield json.dumps({"product": product, "serviceCode": "AmazonEC2", "terms": {"OnDemand": {"X.Y": term}}})

    def _quota(self, call: Call, given: Mapping[str, Any]) -> Reply:
        for quota in self._quotas.of_region(call.region):
            if quota["QuotaCode"] == given.get("QuotaCode") and given.get("ServiceCode") == "ec2":
                return json_11({"Quota": quota})
        raise Refused("NoSuchResourceException", "The request failed because the specified quota does not exist.")

    def _quota_list(self, call: Call, given: Mapping[str, Any]) -> Reply:
        found = list(self._quotas.of_region(call.region)) if given.get("ServiceCode") == "ec2" else []
        return json_11({"Quotas": found})

    def _parameter(self, call: Call, given: Mapping[str, Any]) -> Reply | None:
        found = _public(call, str(given.get("Name", "")))
        return json_11({"Parameter": found}) if found else None

    def _parameters(self, call: Call, given: Mapping[str, Any]) -> Reply | None:
        found = [_public(call, name) for name in given.get("Names", ())]
        # Mixed with the account's own ones, they are moto's, which lists ours as invalid.
        return json_11({"Parameters": found, "InvalidParameters": []}) if found and all(found) else None

    def _decoded(self, call: Call, given: Mapping[str, Any]) -> Reply:
        operation = decode(call.parameters.get("EncodedMessage", ""))
        told = json.dumps({"allowed": False, "context": {"action": f"ec2:{operation}"}})
        result = element("DecodeAuthorizationMessageResult", element("DecodedMessage", text=told))
        return Reply(200, ET.tostring(element("DecodeAuthorizationMessageResponse", result)))

    def _federated(self, call: Call, given: Mapping[str, Any]) -> Reply:
        """moto hands out one key to everybody, and not one of those that stand for a while."""
        reply = self._moto.send(call.request)
        key = f"<AccessKeyId>ASIA{secrets.token_hex(8).upper()}</AccessKeyId>"
        return Reply(reply.status, re.sub(rb"<AccessKeyId>\w+</AccessKeyId>", key.encode(), reply.body), reply.headers)


def _body(call: Call) -> Mapping[str, Any]:
    found = call.request.json() if call.request.headers.get("x-amz-target") else None
    return found if isinstance(found, dict) else {}


def _public(call: Call, name: str) -> dict[str, object] | None:
    for arch in ARCHITECTURES:
        if name == PARAMETER.format(arch):
            arn = f"arn:aws:ssm:{call.region}::parameter{name}"
            value = image_id(call.region, arch)
            return {
                "Name": name,
                "Type": "String",
                "Value": value,
                "Version": 1,
                "ARN": arn,
                "DataType": "aws:ec2:image",
            }
    return None


def _attributes(name: str, data: Mapping[str, Any], region: str) -> dict[str, str]:
    """Those by which people filter prices."""
    return {
        "instanceType": name,
        "regionCode": region,
        "location": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "vcpu": str(data["VCpuInfo"]["DefaultVCpus"]),
        "memory": f"{data['MemoryInfo']['SizeInMiB'] / 1024:g} GiB",
        "servicecode": "AmazonEC2",
    }
