"""The agent hears from inside that its machine is taken back: asked of the doubles' own metadata services."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.clouds.metadata import Ec2Metadata, GceMetadata
from tests.support.shell import until
from vmrun.agent.daemon import _listen
from vmrun.agent.notices import SILENT, Listener
from vmrun.core.notices import Notices, Sign
from vmrun.provisioners.ec2.notices import METADATA as EC2
from vmrun.provisioners.ec2.notices import notices as of_ec2
from vmrun.provisioners.gce.notices import METADATA as GCE
from vmrun.provisioners.gce.notices import notices as of_gce

HERE = "127.0.0.1"


@pytest.fixture
def ec2() -> Iterator[Ec2Metadata]:
    made = Ec2Metadata(lambda address: "i-1" if address == HERE else "", HERE)
    yield made
    made.close()


@pytest.fixture
def gce() -> Iterator[GceMetadata]:
    made = GceMetadata(lambda address: "one" if address == HERE else "", HERE)
    yield made
    made.close()


def heard(notices: Notices) -> tuple[Listener, list[Sign]]:
    signs: list[Sign] = []
    return Listener(notices, signs.append), signs


def test_the_clouds_own_services_are_asked_unless_another_one_is_named() -> None:
    assert of_ec2("").endpoint == EC2
    assert of_gce("").endpoint == GCE
    assert of_ec2("http://127.0.0.1:1/").endpoint == "http://127.0.0.1:1"


def test_a_machine_of_ec2_hears_that_its_end_is_likely_and_then_that_it_is_certain(ec2: Ec2Metadata) -> None:
    listener, signs = heard(of_ec2(ec2.endpoint))
    listener.look()
    assert signs == []
    ec2.announce("i-1", "likely")
    listener.look()
    listener.look()
    assert [(sign.why, sign.certain) for sign in signs] == [("rebalance recommendation", False)]
    # A session ends after hours; the next one is begun by itself
    ec2.end_sessions()
    ec2.announce("i-1")
    listener.look()
    listener.look()
    assert [(sign.why, sign.certain) for sign in signs[1:]] == [("spot interruption notice", True)]
    assert ec2.told == {"i-1"}


def test_a_machine_of_google_hears_that_it_is_preempted(gce: GceMetadata) -> None:
    listener, signs = heard(of_gce(gce.endpoint))
    listener.look()
    assert signs == []
    gce.announce("one")
    listener.look()
    assert [(sign.why, sign.certain) for sign in signs] == [("preemption notice", True)]


def test_what_is_announced_to_another_machine_is_not_heard(ec2: Ec2Metadata) -> None:
    listener, signs = heard(of_ec2(ec2.endpoint))
    ec2.announce("i-2")
    listener.look()
    assert signs == []


def test_a_service_that_does_not_answer_announces_nothing_and_is_said_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: whoever connects is refused.
        taken.bind((HERE, 0))
        listener, signs = heard(of_ec2(f"http://{HERE}:{taken.getsockname()[1]}"))
        for _ in range(SILENT + 1):
            listener.look()
    assert signs == []
    assert caplog.text.count("event=no-notices") == 2


class Pulse:
    """Notes what the agent would do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def give_up(self, why: str) -> None:
        self.done.append(("give up", why))

    def warn(self, why: str) -> None:
        self.done.append(("warn", why))


def test_an_agent_that_hears_gives_its_machine_up(ec2: Ec2Metadata) -> None:
    pulse = Pulse()
    config = SimpleNamespace(notices=replace(of_ec2(ec2.endpoint), every=0.01))
    shop: Any = SimpleNamespace(config=config, pulse=pulse)
    listener = _listen(shop)
    assert listener is not None
    ec2.announce("i-1", "likely")
    until(lambda: pulse.done, 30, "the warning is heard")
    ec2.announce("i-1")
    until(lambda: len(pulse.done) > 1, 30, "the notice is heard")
    listener.stop()
    assert pulse.done == [
        ("warn", "its cloud takes it back (rebalance recommendation)"),
        ("give up", "its cloud takes it back (spot interruption notice)"),
    ]


def test_an_agent_whose_cloud_tells_nothing_does_not_ask() -> None:
    shop: Any = SimpleNamespace(config=SimpleNamespace(notices=None))
    assert _listen(shop) is None
