"""A double's hands over HTTP, and the server under it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds.control import rule_of_words
from tests.clouds.double import Double
from tests.clouds.machines import PaperMachines
from tests.clouds.opening import NAMES, open_double
from tests.clouds.server import Cut, Reply, Request, Server, json_reply
from tests.clouds.trouble import Rule, Trouble


@pytest.fixture
def double() -> Iterator[Double]:
    made = open_double("ec2", PaperMachines())
    yield made
    made.close()


def ask(double: Double, method: str, verb: str, **given: Any) -> tuple[int, Any]:
    """Status and document."""
    data = json.dumps(given).encode() if given else None
    request = urllib.request.Request(f"{double.endpoint}/_double/{verb}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_machine_is_planted_stopped_and_deleted(double: Double) -> None:
    status, made = ask(double, "POST", "plant", name="theirs", tags={"a": "b"}, zone="us-east-1b")
    assert status == 200
    assert ask(double, "GET", "inventory")[1]["instances"] == {made["id"]: "running"}
    assert ask(double, "POST", "stop", name="theirs") == (200, {"id": None})
    assert ask(double, "GET", "inventory")[1]["instances"] == {made["id"]: "stopped"}
    assert ask(double, "POST", "delete", name="theirs")[0] == 200
    assert ask(double, "GET", "inventory")[1]["instances"] == {}


def test_troubles_are_added_and_cleared(double: Double) -> None:
    assert ask(double, "POST", "trouble", trouble="stockout", zone="us-east-1a", times=2) == (200, {})
    assert double.script.pick("RunInstances", Trouble.stockout, zone="us-east-1b") is None
    assert double.script.pick("RunInstances", Trouble.stockout, zone="us-east-1a") is not None
    double.script.record("RunInstances", zone="us-east-1a")
    assert [call["operation"] for call in ask(double, "GET", "calls")[1]] == ["RunInstances"]
    assert ask(double, "DELETE", "trouble") == (200, {})
    assert double.script.pick("RunInstances", Trouble.stockout, zone="us-east-1a") is None
    assert ask(double, "GET", "calls") == (200, [])


def test_a_mistake_is_told(double: Double) -> None:
    assert ask(double, "POST", "stop", name="nobody") == (404, {"error": "there is no instance nobody"})
    assert ask(double, "GET", "nonsense")[0] == 404
    assert ask(double, "POST", "trouble", trouble="nonsense")[0] == 400
    assert "colour" in ask(double, "POST", "trouble", trouble="late", colour="red")[1]["error"]
    assert ask(double, "POST", "stop")[0] == 400
    assert ask(double, "GET", "settings")[1]["endpoint"] == double.endpoint


def test_a_rule_in_words() -> None:
    rule = rule_of_words("late operation=RunInstances seconds=2.5 times=-1")
    assert rule == Rule(Trouble.late, operation="RunInstances", seconds=2.5, times=-1)
    with pytest.raises(ValueError, match="KEY=VALUE"):
        rule_of_words("late soon")


def test_only_known_clouds_are_played() -> None:
    assert NAMES == ("ec2", "gce", "ibm")
    with pytest.raises(ValueError, match="azure"):
        open_double("azure", PaperMachines())


# --- the command ---


@pytest.mark.timeout(900)
def test_a_person_starts_a_double_and_ends_it() -> None:
    command = [sys.executable, "-m", "tests.clouds", "ec2", "--machines", "paper"]
    command += ["--trouble", "stockout zone=us-east-1a times=2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(600, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        said = "".join(iter(process.stdout.readline, "Ctrl-C ends it and removes its machines.\n"))
        table, _, exports = said.partition("export")
        endpoint = tomllib.loads(table)["ec2"]["endpoint"]
        assert tomllib.loads(table)["ec2"]["ssh_from"], "vmrun init would ask the internet for this computer's address"
        assert "AWS_ACCESS_KEY_ID=" in exports
        with urllib.request.urlopen(f"{endpoint}/_double/inventory", timeout=60) as answer:
            assert json.load(answer)["instances"] == {}
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0
    finally:
        late.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_mistyped_trouble_is_refused_before_anything_starts() -> None:
    command = [sys.executable, "-m", "tests.clouds", "ec2", "--machines", "paper", "--trouble", "hurricane"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))
    assert done.returncode == 2
    assert "hurricane" in done.stderr


# --- the server ---


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(echo)
    yield made
    made.close()


def echo(request: Request) -> Reply:
    if request.path == "/cut":
        raise Cut
    given = request.body.decode()
    return json_reply(200, {"path": request.path, "query": dict(request.query), "body": given, "verb": request.method})


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(re.sub("^http://", "", server.endpoint), timeout=60)


def test_a_connection_serves_many_requests(server: Server) -> None:
    connection = connect(server)
    for number in range(3):
        connection.request("PUT", f"/a%2Fb?x={number}&x=&y", body=b"text")
        told = json.load(connection.getresponse())
        assert told == {"path": "/a%2Fb", "query": {"x": [str(number), ""], "y": [""]}, "body": "text", "verb": "PUT"}
    connection.request("POST", "/", body=iter([b"in ", b"chunks"]), encode_chunked=True)
    assert json.load(connection.getresponse())["body"] == "in chunks"
    connection.request("HEAD", "/")
    answer = connection.getresponse()
    assert (answer.read(), int(answer.headers["Content-Length"]) > 0) == (b"", True)
    connection.close()


def test_a_cut_connection_has_no_answer(server: Server) -> None:
    connection = connect(server)
    connection.request("GET", "/cut")
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()


def test_closing_cuts_what_is_open() -> None:
    server = Server(echo)
    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
        server.close()
        while idle.recv(4096):
            pass
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), timeout=60)


def test_a_fault_of_the_double_itself_is_no_answer_of_its_cloud() -> None:
    def broken(request: Request) -> Reply:
        raise ZeroDivisionError(request.path)

    server = Server(broken)
    connection = connect(server)
    connection.request("GET", "/where")
    assert connection.getresponse().status == 500
    connection.close()
    with pytest.raises(AssertionError, match="ZeroDivisionError: /where"):
        server.close()
