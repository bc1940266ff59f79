"""The VM's copies of what jobs share: fetched once, checked, given up when there is no room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.shell import until
from tests.unit.agent.bench import Switch
from vmrun.agent.sharing import SharedFiles
from vmrun.core import keys
from vmrun.core.errors import Corrupt, StoreUnavailable, UsageError
from vmrun.core.model import Payload, SharedData
from vmrun.core.storage import PIECE
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import FaultyStore
from vmrun.store.memory import MemoryStore
from vmrun.submit.publish import put_payload


class World:
    def __init__(self, folder: Path) -> None:
        self.memory = MemoryStore()
        self.store = CountingStore(self.memory)
        self.files = SharedFiles(str(folder / "shared"), self.store)
        self.told: list[str] = []

    def share(self, data: bytes, name: str = "") -> SharedData:
        return SharedData(put_payload(self.memory, data), name)

    def get(self, shared: SharedData) -> str:
        return self.files.get(shared, self.told.append)

    def fetched(self) -> int:
        return self.store.reset()["read"]

    def kept(self) -> int:
        return len(os.listdir(self.files.directory))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_file_is_fetched_once_and_keeps_its_name(world: World) -> None:
    shared = world.share(b"a,b\n" * 1000, "data.csv")
    path = world.get(shared)
    assert os.path.basename(path) == "data.csv"
    assert Path(path).read_bytes() == b"a,b\n" * 1000
    assert os.stat(path).st_mode & 0o777 == 0o444
    assert (world.get(shared), world.fetched()) == (path, 1)
    assert world.told == ["fetching the shared data: 0 B of 4 kB"]
    # Another name is another file, though the bytes are the same.
    other = world.get(world.share(b"a,b\n" * 1000, "data.txt"))
    assert (os.path.basename(other), world.fetched()) == ("data.txt", 1)


def test_each_piece_of_it_is_a_sign_of_life(world: World) -> None:
    signs: list[int] = []
    world.files.get(world.share(b"x" * (3 * PIECE)), world.told.append, lambda: signs.append(1))
    assert len(signs) == 3
    assert len(world.told) == 1


@pytest.mark.parametrize("name", ["..", ".", "../up", "/etc/passwd", "a\0b", "x" * 300])
def test_a_name_is_never_a_way_out(world: World, name: str) -> None:
    path = world.get(world.share(b"x", name))
    assert os.path.realpath(path).startswith(os.path.realpath(world.files.directory) + os.sep)
    assert os.path.basename(path) == "object"


def later(path: str, world: World) -> bool:
    """Whether what is changed now has another time: to many kernels, all within some milliseconds is at once."""
    probe = Path(world.files.directory).parent / "probe"
    probe.write_bytes(b"")
    return probe.stat().st_ctime_ns > os.stat(path).st_ctime_ns


def test_a_file_that_somebody_touched_is_fetched_again(world: World) -> None:
    shared = world.share(b"right", "f")
    path = world.get(shared)
    before = os.stat(path)
    until(lambda: later(path, world), what="the file system's clock has gone on")
    os.chmod(path, 0o600)
    Path(path).write_bytes(b"wrong")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.chmod(path, 0o444)
    assert Path(world.get(shared)).read_bytes() == b"right"
    os.unlink(path)
    assert Path(world.get(shared)).read_bytes() == b"right"
    assert world.fetched() == 3


def test_what_is_not_what_was_signed_for_is_refused_and_leaves_nothing(world: World) -> None:
    shared = world.share(b"right")
    world.memory.replace(keys.payload(shared.payload.sha256), b"wrong")
    with pytest.raises(Corrupt, match="not what was submitted"):
        world.get(shared)
    world.memory.delete(keys.payload(shared.payload.sha256))
    with pytest.raises(Corrupt, match="missing"):
        world.get(shared)
    assert world.kept() == 0
    world.share(b"right")
    assert Path(world.get(shared)).read_bytes() == b"right"


def test_after_an_outage_it_is_fetched(world: World) -> None:
    import random

    switch = Switch()
    switch.down = True
    world.files.blobs = FaultyStore(world.memory, switch, random.Random(1))
    shared = world.share(b"right")
    with pytest.raises(StoreUnavailable):
        world.get(shared)
    assert world.kept() == 0
    switch.down = False
    assert Path(world.get(shared)).read_bytes() == b"right"


def test_what_was_used_longest_ago_makes_room(world: World) -> None:
    world.files.kept_max = 250
    shares = [world.share(bytes([number]) * 100) for number in range(4)]
    paths = [world.get(shared) for shared in shares[:3]]
    world.get(shares[0])
    assert all(map(os.path.exists, paths))
    world.get(shares[3])
    assert [os.path.exists(path) for path in paths] == [True, False, True]


def test_what_has_no_room_on_the_disk_is_refused_before_it_is_fetched(world: World) -> None:
    early = world.get(world.share(b"early"))
    shared = SharedData(Payload("0" * 64, 1 << 60))
    with pytest.raises(UsageError, match="the machine's disk has") as caught:
        world.get(shared)
    assert "--disk" in caught.value.hint
    assert world.fetched() == 1
    # All that could be given up was.
    assert not os.path.exists(early)
