"""What the system is asked about a process and its machine, and how its answers are read."""

from __future__ import annotations

import mmap
import os
import socket
from pathlib import Path

import pytest

from vmrun.agent.runner.meter import _open, _private, _traffic

TABLE = """Inter-|   Receive                             |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier
    lo: 1000   10    0    0    0     0          0         0    1000   10    0    0    0     0       0   0
  eth0:  700    7    0    0    0     0          0         0      40    4    0    0    0     0       0   0
 wlan0:   20    7    0    0    0     0          0         0       3    4    0    0    0     0       0   0
"""


@pytest.mark.parametrize(
    ("text", "found"), [(TABLE, (43, 720)), ("", (0, 0)), ("a\nb\neth0: few words\n", None), ("a\nb\neth0:\n", None)]
)
def test_traffic_is_that_of_all_interfaces_but_the_loopback(
    tmp_path: Path, text: str, found: tuple[int, int] | None
) -> None:
    (tmp_path / "dev").write_text(text)
    descriptor = _open(str(tmp_path / "dev"))
    assert _traffic(descriptor) == found
    os.close(descriptor)


def test_where_nobody_tells_nothing_is_told() -> None:
    assert _open("/proc/no/such/file") == -1
    assert _traffic(-1) is None
    assert _private(-1) == {}


def test_private_memory_is_what_no_other_process_has_a_part_in() -> None:
    if (rollup := _open("/proc/self/smaps_rollup")) < 0:
        pytest.skip("this kernel does not tell")
    os.close(rollup)
    size = 64 << 20
    ours, theirs = socket.socketpair()
    common = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    common.write(b"x" * size)
    if (child := os.fork()) == 0:
        rollup = _open("/proc/self/smaps_rollup")
        before = _private(rollup)["private_bytes"]
        own = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        own.write(b"y" * size)
        theirs.sendall(f"{before} {_private(rollup)['private_bytes']}".encode())
        os._exit(0)
    theirs.close()
    before, after = map(int, ours.recv(1000).split())
    ours.close()
    os.waitpid(child, 0)
    common.close()
    # What it has from its parent counts for neither, what it made is its own.
    assert before < size // 2
    assert size <= after - before < size + (8 << 20)
