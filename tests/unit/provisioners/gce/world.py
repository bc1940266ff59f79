"""A scripted Google: answers in order, and a record of what was asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httplib2

from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, InstanceSpec, Offer, instance_name
from vmrun.core.ids import new_deployment_id, new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.gce.api import GoogleApi
from vmrun.provisioners.gce.config import GceConfig
from vmrun.provisioners.gce.driver import GceProvisioner
from vmrun.provisioners.gce.offers import ZonedOffers

PROJECT = "acme-1"
ZONE = "us-central1-a"
DONE = {"name": "operation-1", "status": "DONE", "zone": f"zones/{ZONE}"}


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass
class Google:
    """Stands where httplib2 does. An answer is a document, a status with a document, or an error to raise."""

    answers: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    #: What answers when the script is at its end.
    otherwise: Callable[[Asked], Any] | None = None

    def request(self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Any:
        parts = urlsplit(uri)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/compute/v1/projects/")
        self.asked.append(Asked(method, path, query, json.loads(body) if body else None))
        assert self.answers or self.otherwise, f"nothing more was expected, least of all {method} {path}"
        answer = self.answers.pop(0) if self.answers else self.otherwise(self.asked[-1])  # type: ignore[misc]
        if isinstance(answer, BaseException):
            raise answer
        status, document = answer if isinstance(answer, tuple) else (200, answer)
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        return httplib2.Response({"status": status, "content-type": "application/json"}), content

    def close(self) -> None:
        pass

    def verbs(self) -> list[str]:
        """Method and last part of the path of each request."""
        return [f"{each.method} {each.path.rpartition('/')[2]}" for each in self.asked]


class World:
    """A driver that talks to a scripted Google."""

    def __init__(self, tmp_path: Path, seed: int = 7, **settings: Any) -> None:
        self.google = Google()
        self.clock = ManualClock()
        self.rng = random.Random(seed)
        # A network that is named is not looked for.
        self.config = GceConfig(**({"project": PROJECT, "network": "default"} | settings))
        self.context = ProvisionerContext(tmp_path / "state", tmp_path / "cache", self.clock, self.rng)
        self.api = GoogleApi(self.config, self.clock, self.rng, connect=lambda: self.google)  # type: ignore[arg-type]
        offers = ZonedOffers(self.api, self.config, self.context.cache_dir)
        self.driver = GceProvisioner(self.api, offers, self.config, self.context)
        self.owner = new_deployment_id(self.clock, self.rng)

    def answer(self, *answers: Any) -> None:
        self.google.answers += answers

    def spec(self, **changes: Any) -> InstanceSpec:
        vm = new_id(self.clock, self.rng)
        hard_deadline = self.clock.now() + 3600
        known = {
            "vm": vm,
            "owner": self.owner,
            "name": instance_name(self.owner, vm),
            "offer": offer(),
            "user_data": "#cloud-config\n",
            "hard_deadline": hard_deadline,
            "tags": {TAG_OWNER: self.owner, TAG_VM: vm, TAG_DEADLINE: str(int(hard_deadline))},
        }
        return InstanceSpec(**(known | changes))

    def resource(self, spec: InstanceSpec, **changes: Any) -> dict[str, Any]:
        """The machine of a spec as Google tells it."""
        url = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/{spec.offer.zone}"
        return {
            "id": "1234567890123456789",
            "name": spec.name,
            "zone": url,
            "machineType": f"{url}/machineTypes/{spec.offer.instance_type}",
            "status": "RUNNING",
            "labels": dict(spec.tags),
            "creationTimestamp": "2026-05-28T13:26:40.250-07:00",
            "networkInterfaces": [
                {"networkIP": "10.128.0.2", "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "natIP": "203.0.113.9"}]}
            ],
        } | changes


def offer(instance_type: str = "n2-standard-4", *, zone: str = ZONE, **changes: Any) -> Offer:
    known: dict[str, Any] = {
        "on": "gce",
        "instance_type": instance_type,
        "region": zone.rpartition("-")[0],
        "zone": zone,
        "arch": "x86_64",
        "vcpus": 4,
        "cores": 2,
        "memory": 16 << 30,
        "usd_per_hour": 0.19,
    }
    return Offer(**(known | changes))


def refusal(code: int, reason: str, message: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """An error document as the API writes it."""
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return code, {"error": {"code": code, "message": message, "errors": errors, **more}}


def failed(code: str, message: str, *, status: int = 0, **details: Any) -> dict[str, Any]:
    """An operation that ended with an error."""
    error = {"code": code, "message": message, **({"errorDetails": [details]} if details else {})}
    return DONE | {"error": {"errors": [error]}, **({"httpErrorStatusCode": status} if status else {})}


def absent(what: str = "instances/x") -> tuple[int, dict[str, Any]]:
    return refusal(404, "notFound", f"The resource 'projects/{PROJECT}/zones/{ZONE}/{what}' was not found")
