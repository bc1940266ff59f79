"""The program by which a machine deletes itself, run as the machine runs it, against a server like IBM's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from vmrun.machine.user_data import MAX_BYTES, Seed, user_data
from vmrun.provisioners.ibm.self_delete import program

NAME = "vmrun-" + "0" * 26 + "-" + "1" * 26


@dataclass
class Cloud:
    """The metadata service and the VPC API on one address."""

    address: str = ""
    #: Identifier to name.
    floating_ips: dict[str, str] = field(default_factory=dict)
    instances: set[str] = field(default_factory=set)
    #: Calls that are refused, each with its statuses in turn.
    refuse: dict[str, list[int]] = field(default_factory=dict)
    page: int = 100
    calls: list[str] = field(default_factory=list)

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], body: str
    ) -> tuple[int, object]:
        self.calls.append(f"{method} {path}")
        if waiting := self.refuse.get(f"{method} {path}"):
            return waiting.pop(0), {"errors": [{"code": "refused", "message": "not allowed to"}]}
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        if (method, path) == ("PUT", "/identity/v1/token"):
            assert headers["Metadata-Flavor"] == "ibm"
            assert json.loads(body)["expires_in"] >= 300
            return 200, {"access_token": "own"}
        if path.startswith(("/identity", "/metadata")):
            assert bearer == "own"
            assert query["version"] == ["2025-08-26"]
            if path == "/metadata/v1/instance":
                return 200, {"id": "0717_me", "name": NAME, "zone": {"name": "us-south-2"}}
            assert json.loads(body) == {"trusted_profile": {"id": "Profile-1"}}
            return 200, {"access_token": "iam"}
        assert bearer == "iam"
        assert query["generation"] == ["2"]
        return self._vpc(method, path, query)

    def _vpc(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, object]:
        kind, _, key = path.removeprefix("/v1/").partition("/")
        if method == "GET":
            start = int(query.get("start", ["0"])[0])
            all_of_them = [{"id": key, "name": name} for key, name in self.floating_ips.items()]
            page: dict[str, object] = {"floating_ips": all_of_them[start : start + self.page]}
            if start + self.page < len(all_of_them):
                page["next"] = {"href": f"https://elsewhere/v1/floating_ips?limit=1&start={start + self.page}&x=1"}
            return 200, page
        if kind == "floating_ips":
            return (204, None) if self.floating_ips.pop(key, None) else (404, {})
        if key not in self.instances:
            return 404, {}
        self.instances.remove(key)
        return 202, None


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud(floating_ips={"r006-1": "somebody-elses", "r006-2": NAME}, instances={"0717_me", "0717_other"})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, document = made.answer(self.command, url.path, parse_qs(url.query), dict(self.headers), body)
            text = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST = do_DELETE = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def run(cloud: Cloud, tmp_path: Path, metadata: str = "") -> tuple[int, str]:
    """Exit code and what stands on the console."""
    script, console = tmp_path / "self-delete", tmp_path / "console"
    script.write_text(program(cloud.address, "Profile-1"))
    script.chmod(0o700)
    environment = {
        "PATH": os.environ["PATH"],
        "VMRUN_METADATA": metadata or cloud.address,
        "VMRUN_CONSOLE": str(console),
        "VMRUN_PAUSE": "0.001",
        "http_proxy": "http://127.0.0.1:9",
    }
    # As a machine has no more than its system's Python: isolated, without packages.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, console.read_text() if console.exists() else ""


def test_it_deletes_its_own_address_and_then_itself_and_nothing_else(cloud: Cloud, tmp_path: Path) -> None:
    code, console = run(cloud, tmp_path)

    assert code == 0
    assert cloud.floating_ips == {"r006-1": "somebody-elses"}
    assert cloud.instances == {"0717_other"}
    assert cloud.calls[-2:] == ["DELETE /v1/floating_ips/r006-2", "DELETE /v1/instances/0717_me"]
    assert console == "vmrun-self-delete: deleted\n"


def test_it_looks_for_its_address_on_every_page(cloud: Cloud, tmp_path: Path) -> None:
    cloud.floating_ips = {f"r006-{number}": "others" for number in range(7)} | {"r006-mine": NAME}
    cloud.page = 3

    assert run(cloud, tmp_path)[0] == 0
    assert "r006-mine" not in cloud.floating_ips
    assert len(cloud.floating_ips) == 7
    assert cloud.calls.count("GET /v1/floating_ips") == 3


def test_it_tries_again_when_the_cloud_is_not_well(cloud: Cloud, tmp_path: Path) -> None:
    cloud.refuse = {"POST /identity/v1/iam_tokens": [500, 503], "DELETE /v1/instances/0717_me": [409, 500]}

    assert run(cloud, tmp_path)[0] == 0
    assert "0717_me" not in cloud.instances


def test_without_the_right_it_says_so_on_the_console_and_gives_up(cloud: Cloud, tmp_path: Path) -> None:
    cloud.refuse = {"DELETE /v1/instances/0717_me": [403] * 9}

    code, console = run(cloud, tmp_path)

    assert code == 1
    assert cloud.calls.count("DELETE /v1/instances/0717_me") == 5
    assert "403 " in console
    assert "/v1/instances/0717_me: " in console
    assert "not allowed to" in console
    assert "own" not in console.split()


def test_what_is_gone_already_is_deleted(cloud: Cloud, tmp_path: Path) -> None:
    cloud.instances.clear()
    cloud.refuse = {"DELETE /v1/floating_ips/r006-2": [404]}

    assert run(cloud, tmp_path)[0] == 0


def test_without_a_metadata_service_it_ends_within_its_tries(cloud: Cloud, tmp_path: Path) -> None:
    code, console = run(cloud, tmp_path, metadata="http://127.0.0.1:9")

    assert code == 1
    assert console.count("\n") == 5
    assert cloud.calls == []


def test_on_ibms_own_addresses_the_private_one_comes_first() -> None:
    """The public one cannot be reached any more once the floating IP is gone."""
    text = program("", "Profile-1")
    private, public = "https://{}.private.iaas.cloud.ibm.com", "https://{}.iaas.cloud.ibm.com"

    assert 0 < text.index(private) < text.index(public)
    assert "ENDPOINT = ''" in text


def test_it_leaves_room_in_the_user_data() -> None:
    seed = Seed(
        hard_deadline=1_800_000_000,
        client_public_key="ssh-ed25519 " + "A" * 68,
        host_private_key="-----BEGIN\n" + "A" * 400 + "\n",
        host_public_key="ssh-ed25519 " + "A" * 68,
        self_delete=program("https://us-south.iaas.cloud.ibm.com", "Profile-" + "0" * 36),
    )

    assert len(user_data(seed)) < MAX_BYTES - 2048
