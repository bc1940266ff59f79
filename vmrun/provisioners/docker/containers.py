"""Containers in words: how one is created, seeded, and read back. Pure."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vmrun.core.clouds import (
    TAG_OWNER,
    TAG_VM,
    Address,
    Instance,
    InstanceSpec,
    InstanceState,
    Offer,
)

ON = "docker"
REGION = "docker"
#: Labels beside the tags: what was asked for, so that a second call can tell whether it asks for the same.
LABEL_USER_DATA, LABEL_TYPE = "vmrun-user-data", "vmrun-instance-type"
SEED = "/var/lib/cloud/seed/nocloud"
_SSH = "22/tcp"
_STATES = {
    "created": InstanceState.pending,
    "running": InstanceState.running,
    "restarting": InstanceState.running,
    "paused": InstanceState.stopped,
    "exited": InstanceState.stopped,
    "dead": InstanceState.stopping,
    "removing": InstanceState.stopping,
}


def labels(spec: InstanceSpec) -> dict[str, str]:
    """All labels of the container for `spec`: its tags, whose it is, and what it was asked to be."""
    return {
        **spec.tags,
        TAG_OWNER: spec.owner,
        TAG_VM: spec.vm,
        LABEL_USER_DATA: hashlib.sha256(spec.user_data.encode()).hexdigest(),
        LABEL_TYPE: spec.offer.instance_type,
    }


def create_arguments(spec: InstanceSpec, image: str, *, publish: bool) -> list[str]:
    """The arguments of `docker` that create the container. With `publish` its SSH gets a port of this machine."""
    arguments = ["create", "--rm", "--name", spec.name, *machine_arguments(spec.name, spec.offer)]
    for key, value in labels(spec).items():
        arguments += ["--label", f"{key}={value}"]
    for path in spec.mounts:
        arguments += ["--mount", _bind(path)]
    if publish:
        arguments += ["--publish", "127.0.0.1::22"]
    return [*arguments, image]


def machine_arguments(name: str, offer: Offer) -> list[str]:
    """Those arguments of `docker create` that make a container a machine of the offer's size."""
    arguments = ["--pull", "never", "--hostname", name[:63]]
    # What systemd needs to run as process 1 in a container that is not privileged.
    arguments += ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
    # Its root may do with its own network what root of a rented machine may: forbid the job's user the way somewhere.
    arguments += ["--cap-add", "NET_ADMIN"]
    arguments += ["--security-opt", "apparmor=unconfined", "--cgroupns", "host"]
    arguments += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    for path, mode in (("/run", "755"), ("/tmp", "1777")):  # noqa: S108 - inside the machine
        arguments += ["--tmpfs", f"{path}:rw,exec,nosuid,nodev,mode={mode}"]
    if offer.vcpus:
        arguments += ["--cpus", str(offer.vcpus)]
    if offer.memory:
        limit = str(offer.memory)
        # Without swap, and with as much shared memory as a machine of this size would have.
        arguments += ["--memory", limit, "--memory-swap", limit, "--shm-size", str(offer.memory // 2)]
    return arguments


def _bind(path: str) -> str:
    """The value of `--mount` for a directory under its own path: one line of CSV, as paths may hold commas."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={path}", f"target={path}"])
    return line.getvalue()


def seed_tar(id: str, name: str, user_data: str) -> bytes:
    """The files of a NoCloud seed, for `docker cp - CONTAINER:SEED`: the user data reaches no disk of this machine."""
    meta = json.dumps({"instance-id": id, "local-hostname": name[:63]})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file, text in (("meta-data", meta), ("user-data", user_data)):
            content = text.encode()
            member = tarfile.TarInfo(file)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def labels_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The labels in an inspection."""
    return dict(found["Config"].get("Labels") or {})


def instance(found: Mapping[str, Any]) -> Instance:
    """An inspection as an instance."""
    tags = labels_of(found)
    return Instance(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        on=ON,
        state=_STATES.get(str(found["State"]["Status"]), InstanceState.stopped),
        region=REGION,
        zone=REGION,
        instance_type=tags.get(LABEL_TYPE, ""),
        address=_address(found["NetworkSettings"]),
        tags=tags,
        created_at=datetime.fromisoformat(str(found["Created"])).timestamp(),
    )


def _address(network: Mapping[str, Any]) -> Address | None:
    """A published port where there is one, else the container's own address, else none yet."""
    for binding in (network.get("Ports") or {}).get(_SSH) or ():
        return Address(str(binding["HostIp"]), int(binding["HostPort"]))
    for attached in (network.get("Networks") or {}).values():
        if attached.get("IPAddress"):
            return Address(str(attached["IPAddress"]))
    return None
