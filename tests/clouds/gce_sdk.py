"""The real SDK before a double of Compute Engine, for tests."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import googleapiclient
import pytest
from google.oauth2 import service_account
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from tests.clouds.gce import GceDouble, open_double
from tests.clouds.machines import Machines, PaperMachines
from tests.clouds.trouble import Rule, Script, Trouble

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ZONE, REGION = "us-central1-a", "us-central1"
IMAGE = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
#: Seconds within which everything happens that a double does by itself.
SOON = 60.0


class HandClock:
    """Stands still until it is moved."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@functools.cache
def document(api: str) -> dict[str, Any]:
    found = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / f"{api}.json"
    return json.loads(found.read_text("utf-8"))


class Cloud:
    """A double, and a client of it. On paper time passes, and with it what takes `pace`, as its `clock` is moved."""

    def __init__(self, machines: Machines | None = None, *, pace: float = 0.0, scope: str = SCOPE) -> None:
        self.machines = machines or PaperMachines()
        self.script = Script()
        self.clock = HandClock()
        real = not isinstance(self.machines, PaperMachines)
        self.double: GceDouble = open_double(
            self.machines, "127.0.0.1", self.script, clock=None if real else self.clock, pace=pace
        )
        self._credentials = service_account.Credentials.from_service_account_file(
            str(self.double.settings()["credentials_file"]), scopes=[scope]
        )
        self._clients: dict[str, Any] = {}
        self.project = str(self.double.settings()["project"])

    def api(self, api: str = "compute.v1") -> Any:
        if api not in self._clients:
            whole = document(api)
            options = {"api_endpoint": f"{self.double.endpoint}/{whole['servicePath']}"}
            self._clients[api] = build_from_document(whole, credentials=self._credentials, client_options=options)
        return self._clients[api]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self.double.close()

    # --- instances ---

    def insert(self, name: str, *, zone: str = ZONE, request_id: str = "", **changes: Any) -> dict[str, Any]:
        """The answer to a create call whose body is the plain one but for `changes`."""
        body = {**plain_body(name, zone), **changes}
        extra = {"requestId": request_id} if request_id else {}
        return self.api().instances().insert(project=self.project, zone=zone, body=body, **extra).execute()

    def made(self, name: str, *, zone: str = ZONE, **changes: Any) -> dict[str, Any]:
        """An instance that runs."""
        done = self.done(self.insert(name, zone=zone, **changes))
        assert "error" not in done, done
        return self.get(name, zone)

    def get(self, name: str, zone: str = ZONE) -> dict[str, Any]:
        return self.api().instances().get(project=self.project, zone=zone, instance=name).execute()

    def status(self, name: str, zone: str = ZONE) -> str:
        """Its status; "" when there is none of this name."""
        try:
            return self.get(name, zone)["status"]
        except HttpError as error:
            if error.resp.status != 404:
                raise
            return ""

    def names(self, **parameters: Any) -> list[str]:
        """The names of all instances of the zone, page by page."""
        instances = self.api().instances()
        found, request = [], instances.list(project=self.project, zone=ZONE, **parameters)
        while request is not None:
            answer = request.execute()
            found += [one["name"] for one in answer.get("items", ())]
            request = instances.list_next(request, answer)
        return found

    def delete(self, name: str, zone: str = ZONE) -> dict[str, Any]:
        return self.api().instances().delete(project=self.project, zone=zone, instance=name).execute()

    def done(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation when it is over."""
        give_up = time.monotonic() + SOON
        zone, region = (operation.get(key, "").rpartition("/")[2] for key in ("zone", "region"))
        if zone:
            call = self.api().zoneOperations().wait(project=self.project, zone=zone, operation=operation["name"])
        elif region:
            call = self.api().regionOperations().wait(project=self.project, region=region, operation=operation["name"])
        else:
            call = self.api().globalOperations().wait(project=self.project, operation=operation["name"])
        while operation["status"] != "DONE":
            assert time.monotonic() < give_up, operation
            operation = call.execute()
        return operation

    def trouble(self, trouble: Trouble, operation: str = "", **more: Any) -> None:
        self.script.add(Rule(trouble, operation, **more))

    def calls(self, operation: str) -> list[str]:
        """What came of the calls of an operation."""
        return [call.outcome for call in self.script.calls if call.operation == operation]


def plain_body(name: str, zone: str = ZONE) -> dict[str, Any]:
    return {
        "name": name,
        "machineType": f"zones/{zone}/machineTypes/e2-standard-2",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": IMAGE}}],
        "networkInterfaces": [
            {
                "network": "global/networks/default",
                "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}],
            }
        ],
    }


def refused(call: Callable[[], Any], status: int, reason: str, words: str = "") -> str:
    """The message of the refusal that a call must meet."""
    with pytest.raises(HttpError) as caught:
        call()
    error = caught.value
    assert (error.resp.status, error.error_details[0]["reason"]) == (status, reason), error
    assert words in error.reason
    return str(error.reason)


def until(condition: Any, seconds: float = SOON) -> Any:
    """The first true value of `condition`; asserts that it comes within `seconds`."""
    give_up, pause = time.monotonic() + seconds, Event()
    while not (value := condition()):
        assert time.monotonic() < give_up, "it did not come"
        pause.wait(0.02)
    return value
