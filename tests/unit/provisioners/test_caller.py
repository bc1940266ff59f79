"""Which address this computer is seen under."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from vmrun.core.clouds import CloudError
from vmrun.core.errors import ConfigError
from vmrun.provisioners.caller import caller_network, fetch, networks


def says(text: str) -> Callable[[str], bytes]:
    return lambda _url: text.encode()


def mute(_url: str) -> bytes:
    raise TimeoutError


def never(_url: str) -> bytes:
    raise AssertionError("nobody needs to be asked")


@pytest.mark.parametrize(
    ("answer", "network"), [("8.8.4.4\n", "8.8.4.4/32"), ("2a00:1450:4001::8", "2a00:1450:4001::8/128")]
)
def test_the_address_is_a_network_of_one(answer: str, network: str) -> None:
    assert caller_network(says(answer)) == network


@pytest.mark.parametrize("answer", ["", "<html>", "10.0.0.7", "0.0.0.0/0", "127.0.0.1", "8.8.4.4 8.8.8.8"])
def test_what_is_no_address_of_ones_own_is_an_error_with_a_way_out(answer: str) -> None:
    with pytest.raises(CloudError) as caught:
        caller_network(says(answer))

    assert "ssh_from" in caught.value.hint


def test_no_answer_is_an_error_too() -> None:
    with pytest.raises(CloudError, match="TimeoutError"):
        caller_network(mute)


def test_an_answer_that_is_no_http_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrun.provisioners.caller._TIMEOUT", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def gibber() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x00\x01 gibberish\r\n\r\n")

        thread = threading.Thread(target=gibber)
        thread.start()
        with pytest.raises(OSError, match="BadStatusLine"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(60)


def test_what_is_configured_wins() -> None:
    assert networks(("203.0.113.0/24", "198.51.100.7", "203.0.113.0/24"), "ec2.ssh_from", never) == (
        "198.51.100.7/32",
        "203.0.113.0/24",
    )
    assert networks((), "ec2.ssh_from", says("8.8.4.4")) == ("8.8.4.4/32",)


@pytest.mark.parametrize("text", ["home", "198.51.100.7/24", "198.51.100.7/33"])
def test_a_configured_network_that_is_none_names_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^ec2\.ssh_from: "):
        networks((text,), "ec2.ssh_from", never)
