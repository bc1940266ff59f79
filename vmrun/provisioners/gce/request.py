"""From a spec to the body of `instances.insert`, the same each time for one spec. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

from vmrun.core.clouds import TAG_OWNER, TAG_VM, CloudError, Fault, InstanceSpec, Scope
from vmrun.core.ids import born

from . import families
from .config import DEFAULT_NETWORK, NETWORK_TAG, GceConfig

#: The images that are booted unless the configuration names one, by architecture.
_IMAGES = {
    "x86_64": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
    "arm64": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
}
#: Seconds that Compute Engine waits longer than the dead-man timer, which can still save results.
TTL_MARGIN = 900
#: Seconds: the longest run time that Compute Engine keeps.
_TTL_MAX = 120 * 86400
_TTL_MIN = 60
_GIB = 1 << 30
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def request_id(*words: str) -> str:
    """The id by which Compute Engine knows a repeated request: a UUID, the same for the same words."""
    # The form of RFC 9562 for a UUID made of a hash (version 8), which is what the API checks.
    digits = hashlib.sha256("\0".join(words).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def image(config: GceConfig, arch: str) -> str:
    """The image or image family to boot."""
    return config.image or _IMAGES.get(arch, _IMAGES["x86_64"])


def insert_body(spec: InstanceSpec, config: GceConfig, network: str = DEFAULT_NETWORK) -> dict[str, Any]:
    """The machine of `spec` in a network ("": that of the configured subnetwork).

    CloudError (config) for one that Compute Engine cannot make as it is.
    """
    labels = _labels(spec)
    if _NAME.fullmatch(spec.name) is None:
        raise _unfit(f"{spec.name!r} cannot be the name of a VM on Compute Engine")
    body: dict[str, Any] = {
        "name": spec.name,
        "description": "rented by vmrun; it deletes itself",
        "machineType": f"zones/{spec.offer.zone}/machineTypes/{spec.offer.instance_type}",
        "labels": labels,
        "tags": {"items": [NETWORK_TAG]},
        "disks": [_boot_disk(spec, config, labels)],
        "networkInterfaces": [_interface(spec, config, network)],
        "metadata": {"items": [{"key": key, "value": value} for key, value in _metadata(spec).items()]},
        "scheduling": _scheduling(spec),
        "serviceAccounts": [],
    }
    if config.service_account:
        body["serviceAccounts"] = [{"email": config.service_account, "scopes": [_SCOPE]}]
    return body


def _labels(spec: InstanceSpec) -> dict[str, str]:
    labels = {**spec.tags, TAG_OWNER: spec.owner, TAG_VM: spec.vm}
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise _unfit(f"{key}={value[:80]} cannot be a label on Compute Engine")
    return labels


def _boot_disk(spec: InstanceSpec, config: GceConfig, labels: dict[str, str]) -> dict[str, Any]:
    kind = families.disk_type(spec.offer.instance_type)
    return {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {
            "sourceImage": image(config, spec.offer.arch),
            "diskType": f"zones/{spec.offer.zone}/diskTypes/{kind}",
            # An int64, which the API writes as text; its "GB" are GiB.
            "diskSizeGb": str(max(10, math.ceil((spec.disk or config.disk) / _GIB))),
            "labels": labels,
        },
    }


def subnetwork(config: GceConfig, region: str) -> str:
    """The path of the subnetwork of a region, or "" for the network's own."""
    return _path(config.subnetwork, f"regions/{region}/subnetworks/") if config.subnetwork else ""


def _path(name: str, prefix: str) -> str:
    """A bare name is one of the project's own; a full or partial URL may be of another project."""
    return name if "/" in name else prefix + name


def _interface(spec: InstanceSpec, config: GceConfig, network: str) -> dict[str, Any]:
    interface: dict[str, Any] = {"network": _path(network, "global/networks/")} if network else {}
    if subnet := subnetwork(config, spec.offer.region):
        interface["subnetwork"] = subnet
    if config.public_ip:
        interface["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    return interface


def _metadata(spec: InstanceSpec) -> dict[str, str]:
    return {
        "user-data": spec.user_data,
        # The one key that may log in is part of the user data; no key of the project or of OS Login is wanted.
        "enable-oslogin": "FALSE",
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",
        "serial-port-logging-enable": "TRUE",
    }


def _scheduling(spec: InstanceSpec) -> dict[str, Any]:
    stays = spec.offer.spot or not families.can_migrate(spec.offer.instance_type)
    return {
        "provisioningModel": "SPOT" if spec.offer.spot else "STANDARD",
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE" if stays else "MIGRATE",
        "instanceTerminationAction": "DELETE",
        "maxRunDuration": {"seconds": str(run_seconds(spec))},
    }


def run_seconds(spec: InstanceSpec) -> int:
    """After how many seconds of running Compute Engine deletes the machine: its life as intended, and a margin.

    Counted from when the VM's id was made, so that it is the same whenever the request is sent again, and does not
    rest on the clocks of this computer and the cloud being the same, as a point in time would.
    """
    seconds = math.ceil(spec.hard_deadline - born(spec.vm)) + TTL_MARGIN
    if seconds > _TTL_MAX:
        raise _unfit(f"Compute Engine keeps no VM for {seconds // 86400} days", "at most 119 days: --max-lifetime")
    return max(_TTL_MIN, seconds)


def _unfit(message: str, hint: str = "") -> CloudError:
    return CloudError(message, fault=Fault.config, scope=Scope.cloud, hint=hint or "nothing was created")
