"""The program by which a machine deletes itself, run as it is against scripted answers."""

from __future__ import annotations

import io
import time
import urllib.request
from typing import Any

import pytest

from vmrun.core.clouds import Capabilities
from vmrun.machine.user_data import Seed, user_data
from vmrun.provisioners.gce.self_delete import program

from .world import World

METADATA = "http://metadata.google.internal/computeMetadata/v1/"
ANSWERS = {
    f"{METADATA}instance/service-accounts/default/token": '{"access_token": "ya29.secret", "expires_in": 3599}',
    f"{METADATA}project/project-id": "acme-1",
    f"{METADATA}instance/name": "vmrun-a-b",
    f"{METADATA}instance/zone": "projects/123/zones/us-central1-a",
}


class Web:
    """What the program sees of the world."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int = 0) -> None:
        self.failures = failures
        self.asked: list[urllib.request.Request] = []
        self.slept: list[float] = []
        monkeypatch.setattr(urllib.request, "build_opener", lambda *_: self)
        monkeypatch.setattr(time, "sleep", self.slept.append)

    def open(self, request: urllib.request.Request, timeout: float) -> Any:
        assert timeout <= 20
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            raise OSError("no route")
        return io.BytesIO(ANSWERS.get(request.full_url, "{}").encode())


def run(text: str) -> None:
    exec(compile(text, "self-delete", "exec"), {"__name__": "__main__"})


def test_it_deletes_the_machine_it_runs_on_with_the_machines_own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch)

    run(program())

    *looks, last = web.asked
    assert {each.full_url for each in looks} == set(ANSWERS)
    assert all(each.get_header("Metadata-flavor") == "Google" for each in looks)
    assert (last.get_method(), last.full_url) == (
        "DELETE",
        "https://compute.googleapis.com/compute/v1/projects/acme-1/zones/us-central1-a/instances/vmrun-a-b",
    )
    assert last.get_header("Authorization") == "Bearer ya29.secret"


def test_it_tries_again_and_then_says_why_it_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, failures=2)
    run(program("http://127.0.0.1:8080"))
    assert web.slept == [1, 2]
    assert web.asked[-1].full_url.startswith("http://127.0.0.1:8080/compute/v1/projects/acme-1/")

    for_ever = Web(monkeypatch, failures=100)
    with pytest.raises(SystemExit) as caught:
        run(program())
    assert "no route" in str(caught.value)
    assert len(for_ever.asked) == 5


def test_it_is_there_only_where_machines_have_an_account(tmp_path: Any) -> None:
    def capabilities(**settings: str) -> Capabilities:
        return World(tmp_path, **settings).driver.capabilities

    assert capabilities().self_delete == ""
    assert capabilities().provider_ttl
    assert not capabilities().poweroff_deletes
    assert capabilities(service_account="vm@acme.iam.gserviceaccount.com").self_delete == program()


def test_it_fits_into_the_user_data() -> None:
    assert program().startswith("#!/usr/bin/python3\n")
    seed = Seed(
        hard_deadline=1_780_003_600.0,
        client_public_key="ssh-ed25519 " + "A" * 68,
        host_private_key="-----BEGIN OPENSSH PRIVATE KEY-----\n" + "A" * 400,
        host_public_key="ssh-ed25519 " + "A" * 68,
        self_delete=program(),
    )
    assert program().splitlines()[-1] in user_data(seed).replace('\\"', '"')
