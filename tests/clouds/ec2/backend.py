"""moto in this process: one account of its own for each double, with Ubuntu's images in every region."""

from __future__ import annotations

import functools
import hashlib
import random
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import werkzeug.test
from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from tests.clouds.server import Reply, Request

CANONICAL = "099720109477"
#: The path of the public parameter that names Ubuntu's newest image, by architecture in Ubuntu's words.
PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
_VERSION = "20260901"


class Moto:
    """The account's resources as moto keeps them; calls come one at a time, as moto takes care of no threads."""

    def __init__(self) -> None:
        #: Twelve digits that no other double in this process has.
        self.account = str(random.SystemRandom().randrange(10**11, 10**12))
        self.lock = threading.RLock()
        self._regions: set[str] = set()

    def region(self, name: str) -> Any:
        """moto's own objects of EC2 in a region."""
        with self.lock:
            backend = ec2_backends[self.account][name]
            if name not in self._regions:
                self._regions.add(name)
                for arch in ARCHITECTURES:
                    backend.amis[image_id(name, arch)] = _UbuntuImage(backend, name, arch)
            return backend

    def regions(self) -> Iterator[Any]:
        """Those that were used."""
        for name in sorted(self._regions):
            yield self.region(name)

    def send(self, request: Request, body: bytes | None = None) -> Reply:
        """moto's answer to a request, with another body if that is given."""
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        headers["x-moto-account-id"] = self.account
        with self.lock:
            answer = _application().open(
                request.target, method=request.method, headers=headers, data=request.body if body is None else body
            )
        kept = {name: value for name, value in answer.headers.items() if name.lower() != "transfer-encoding"}
        return Reply(answer.status_code, answer.get_data(), kept)

    def query(self, region: str, operation: str, parameters: Mapping[str, str]) -> Reply:
        """moto's answer to an operation of EC2."""
        self.region(region)
        headers = {
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            "authorization": f"AWS4-HMAC-SHA256 Credential=AKIADOUBLE/20260101/{region}/ec2/aws4_request",
            "host": f"ec2.{region}.amazonaws.com",
        }
        body = urllib.parse.urlencode({**parameters, "Action": operation, "Version": "2016-11-15"}).encode()
        return self.send(Request("POST", "/", {}, headers, body, "/"))

    def close(self) -> None:
        """Forget the account."""
        with self.lock:
            for kept in BackendDict._instances:
                kept.pop(self.account, None)


@functools.cache
def _application() -> werkzeug.test.Client:
    return werkzeug.test.Client(DomainDispatcherApplication(create_backend_app), use_cookies=False)


def image_id(region: str, arch: str) -> str:
    """The id of Ubuntu's image in a region; `arch` in Ubuntu's words."""
    return f"ami-{hashlib.sha256(f'{region} {arch} {_VERSION}'.encode()).hexdigest()[:17]}"


def type_data(instance_type: str) -> Mapping[str, Any] | None:
    """What `DescribeInstanceTypes` knows of a type; None for no type."""
    found: Mapping[str, Any] | None = INSTANCE_TYPES.get(instance_type)
    return found


def zones_of(instance_type: str, region: str) -> list[str]:
    """The zones that offer the type."""
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return sorted({one["Location"] for one in offered if one["InstanceType"] == instance_type})


class _UbuntuImage(Ami):
    """Ubuntu 24.04 as Canonical publishes it."""

    def __init__(self, backend: Any, region: str, arch: str) -> None:
        name = f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-{_VERSION}"
        super().__init__(
            backend,
            image_id(region, arch),
            name=name,
            description=f"Canonical, Ubuntu, 24.04, {arch} noble image",
            owner_id=CANONICAL,
            public=True,
            virtualization_type="hvm",
            architecture=ARCHITECTURES[arch],
            image_location=f"amazon/{name}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=f"{region}a",
            boot_mode="uefi-preferred",
        )

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Its root disk, which goes when the instance goes."""
        ebs = {
            "SnapshotId": self.ebs_snapshot.id,
            "VolumeSize": 8,
            "DeleteOnTermination": True,
            "VolumeType": "gp3",
            "Encrypted": False,
        }
        return [{"DeviceName": self.root_device_name, "Ebs": ebs}]
