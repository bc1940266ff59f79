"""What passed through the machine's interfaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.agent.network import Network
from vmrun.core.records import Traffic

HEAD = """Inter-|   Receive                                             |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
"""


def table(path: Path, **interfaces: tuple[int, int]) -> Path:
    rows = [f"{name:>6}: {got} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n" for name, (got, sent) in interfaces.items()]
    path.write_text(HEAD + "".join(rows))
    return path


def test_it_counts_from_look_to_look_and_leaves_the_loopback_out(tmp_path: Path) -> None:
    path = table(tmp_path / "dev", lo=(9, 9), eth0=(100, 10), eth1=(1000, 0))
    network = Network(path)
    assert network.passed() == Traffic()
    table(path, lo=(5000, 5000), eth0=(150, 17), eth1=(1000, 1))
    assert network.passed() == Traffic(sent=8, received=50)
    assert network.passed() == Traffic()


def test_an_interface_that_goes_away_is_no_negative_traffic(tmp_path: Path) -> None:
    network = Network(table(tmp_path / "dev", eth0=(100, 10), eth1=(50, 5)))
    table(tmp_path / "dev", eth0=(110, 11))
    assert network.passed() == Traffic()


@pytest.mark.parametrize("text", [None, "", "eth0: not numbers\n", "eth0: 1 2\n"])
def test_where_the_system_does_not_tell_nothing_passed(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "dev"
    if text is not None:
        path.write_text(text)
    assert Network(path).passed() == Traffic()


def test_this_system_tells() -> None:
    traffic = Network().passed()
    assert traffic.sent >= 0
    assert traffic.received >= 0
