"""The directory store: the suite, and what only a filesystem can do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suites.store import StoreSuite, keys_of
from vmrun.core.errors import KeyExists, StoreDenied, StoreError, StoreUnavailable, StoreUnsafe
from vmrun.core.storage import PIECE
from vmrun.store import directory
from vmrun.store.directory import DirectoryStore


class TestDirectoryStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> DirectoryStore:
        return DirectoryStore(tmp_path / "a" / "store", fsync=False)


def test_it_is_a_store_too_when_it_flushes(tmp_path: Path) -> None:
    suite = StoreSuite()
    suite.test_of_racing_creates_one_succeeds_and_its_bytes_are_there(DirectoryStore(tmp_path / "1"))
    suite.test_a_reader_never_sees_a_mixture(DirectoryStore(tmp_path / "2"))
    suite.test_creates_beside_deletes_are_not_lost(DirectoryStore(tmp_path / "3"))
    suite.test_it_is_a_map(DirectoryStore(tmp_path / "4"))


def test_an_acknowledged_write_is_flushed_with_all_directories_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("warm", b"")
    flushed: list[str] = []

    def record(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(store.root))

    monkeypatch.setattr(directory.os, "fsync", record)
    monkeypatch.setattr(directory.os, "fdatasync", record)
    store.create("jobs/1/000000", b"")
    assert flushed[0].startswith("/.tmp~/")
    assert flushed[1:] == ["", "/jobs", "/jobs/1"]
    del flushed[:]
    store.replace("jobs/1/000001", b"")
    assert flushed[1:] == ["/jobs/1"]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", fsync=False)


def temporaries(store: DirectoryStore) -> list[str]:
    return os.listdir(store.root + "/.tmp~")


def fail(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    """Let one call of the operating system fail."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(directory.os, call, failing)


# --- places and rights ---


def test_an_object_is_the_file_of_its_name(store: DirectoryStore) -> None:
    store.create("jobs/1/journal/000000", b"entry")
    assert Path(store.root, "jobs/1/journal/000000").read_bytes() == b"entry"
    assert temporaries(store) == []


def test_nobody_else_can_read_it(store: DirectoryStore) -> None:
    before = os.umask(0)
    try:
        store.create("jobs/1/000000", b"")
        store.replace("heartbeats/1", b"")
        store.write("payloads/1", [b""])
    finally:
        os.umask(before)
    root = Path(store.root)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_no_object_is_not_served(store: DirectoryStore, tmp_path: Path) -> None:
    store.create("a/b", b"x")
    root = Path(store.root)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "a" / "link").symlink_to(tmp_path / "secret")
    (root / "a" / "tree").symlink_to(tmp_path)
    os.mkfifo(root / "a" / "pipe")
    (root / "a" / "not a key").write_bytes(b"")
    (root / "lost+found").mkdir()
    assert keys_of(store.list("")) == ["a/b"]
    with pytest.raises(StoreError):
        store.get("a/link")
    with pytest.raises(StoreError):
        store.get("a/pipe")


def test_root_hands_what_it_writes_to_the_owner_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    for call in ("chown", "fchown"):
        real = getattr(os, call)

        def record(what: object, uid: int, gid: int, *, real: object = real, **options: object) -> None:
            given.append((uid, gid))
            real(what, uid, gid, **options)  # type: ignore[operator]

        monkeypatch.setattr(directory.os, call, record)
    root = tmp_path / "store"
    root.mkdir()
    if os.geteuid() == 0:
        os.chown(root, 12345, 23456)
        del given[:]
    owner = root.stat().st_uid, root.stat().st_gid
    monkeypatch.setattr(directory.os, "geteuid", lambda: 0)
    store = DirectoryStore(root)
    store.create("jobs/1/000000", b"")
    store.replace("heartbeats/1", b"")
    store.write("payloads/1", [b"x"])
    paths = [root, *root.rglob("*")]
    assert len(paths) == 9
    assert given == [owner] * 8
    assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {owner}


# --- refusals ---


def test_a_root_that_is_a_file_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreDenied, match=str(tmp_path / "file")) as caught:
            DirectoryStore(root)
        assert "VMRUN_STORE" in caught.value.hint


@pytest.mark.parametrize(
    ("call", "code", "expected", "told"),
    [
        ("open", errno.EACCES, StoreDenied, "right"),
        ("open", errno.EROFS, StoreDenied, "right"),
        ("write", errno.ENOSPC, StoreError, "free some space"),
        ("write", errno.EDQUOT, StoreError, "free some space"),
        ("write", errno.EIO, StoreUnavailable, "disk"),
        ("fdatasync", errno.EIO, StoreUnavailable, "disk"),
        ("fdatasync", errno.ENOSPC, StoreError, "free some space"),
        ("fsync", errno.EIO, StoreUnavailable, "disk"),
        ("link", errno.EPERM, StoreUnsafe, "usual Linux filesystem"),
        ("link", errno.EOPNOTSUPP, StoreUnsafe, "usual Linux filesystem"),
        ("link", errno.EXDEV, StoreUnsafe, "usual Linux filesystem"),
        ("link", errno.ENOSPC, StoreError, "free some space"),
        ("link", errno.ESTALE, StoreUnavailable, "mount"),
    ],
)
def test_a_refusal_of_the_system_names_the_path_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, expected: type[StoreError], told: str
) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("warm", b"")
    with monkeypatch.context() as patch:
        fail(patch, call, code)
        with pytest.raises(expected) as caught:
            store.create("refused", b"body")
    assert type(caught.value) is expected
    assert str(tmp_path / "store") in str(caught.value)
    assert told in caught.value.hint
    assert temporaries(store) == []
    assert keys_of(store.list("")) == (["refused", "warm"] if call == "fsync" else ["warm"])


@contextlib.contextmanager
def somebody() -> Iterator[None]:
    """A user to whom something can be denied."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_of_others_is_denied(tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        store_of_others = place / "store"
        store_of_others.mkdir()
        DirectoryStore(store_of_others).create("a", b"")
        for mode, may_open in ((0o555, True), (0o000, False)):
            store_of_others.chmod(mode)
            place.chmod(0o755 if may_open else 0o000)
            with somebody(), pytest.raises(StoreDenied, match=str(place)) as caught:
                DirectoryStore(store_of_others).create("b", b"")
            assert "give this user the right to" in caught.value.hint
    finally:
        place.chmod(0o700)
        store_of_others.chmod(0o700)
        shutil.rmtree(place)


def test_a_root_that_went_away_is_denied(store: DirectoryStore) -> None:
    store.create("a/b", b"")
    os.rename(store.root, store.root + ".moved")
    for write in (lambda: store.create("a/c", b""), lambda: store.write("c", [b""])):
        with pytest.raises(StoreDenied, match="store"):
            write()
    assert not os.path.exists(store.root)


# --- crashed writers ---


def test_what_crashed_writers_left_is_removed_after_a_day(store: DirectoryStore) -> None:
    store.create("a", b"")
    for name, age in (("old", 25 * 3600), ("young", 23 * 3600)):
        path = Path(store.root, ".tmp~", name)
        path.write_bytes(b"half")
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
    again = DirectoryStore(store.root)
    assert temporaries(again) == ["young"]
    assert keys_of(again.list("")) == ["a"]


def test_a_temporary_file_does_not_outlive_a_failed_write(store: DirectoryStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        assert len(temporaries(store)) == 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        store.write("a", chunks())
    store.create("taken", b"")
    with pytest.raises(KeyExists):
        store.create("taken", b"")
    assert temporaries(store) == []


# --- cost ---


def test_a_listing_leaves_out_branches_without_what_is_asked_for(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in range(20):
        for entry in range(2):
            store.create(f"jobs/{job:02d}/journal/{entry}", b"")
        store.create(f"vms/{job:02d}/0", b"")
    read: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(directory.os, "scandir", lambda path: read.append(path[len(store.root) :]) or scandir(path))
    assert keys_of(store.list("jobs/07/")) == ["jobs/07/journal/0", "jobs/07/journal/1"]
    assert read == ["/jobs/07/", "/jobs/07/journal/"]
    del read[:]
    assert keys_of(store.list("", "vms/18/0")) == ["vms/19/0"]
    assert read == ["/", "/vms/", "/vms/18/", "/vms/19/"]
    del read[:]
    assert next(store.list("")).key == "jobs/00/journal/0"
    assert read == ["/", "/jobs/", "/jobs/00/", "/jobs/00/journal/"]


def test_deletes_leave_no_empty_directories(store: DirectoryStore) -> None:
    store.create("jobs/1/journal/0", b"")
    store.create("jobs/2/journal/0", b"")
    store.delete("jobs/1/journal/0")
    assert sorted(os.listdir(store.root)) == [".tmp~", "jobs"]
    assert os.listdir(store.root + "/jobs") == ["2"]
    store.delete("jobs/2/journal/0")
    assert os.listdir(store.root) == [".tmp~"]


def test_large_objects_travel_in_bounded_memory(store: DirectoryStore) -> None:
    tracemalloc.start()
    try:
        store.write("large", (bytes([number]) * (1 << 20) for number in range(64)))
        size = sum(len(piece) for piece in store.read("large"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 2 * PIECE + (1 << 20)


def test_a_reader_keeps_the_object_that_it_began(store: DirectoryStore) -> None:
    store.write("large", [b"a" * PIECE, b"a" * PIECE])
    pieces = store.read("large")
    assert set(next(pieces)) == {ord("a")}
    store.replace("large", b"b" * PIECE * 2)
    assert set(next(pieces)) == {ord("a")}
    assert set(next(store.read("large"))) == {ord("b")}


# --- processes ---


CREATE_ALL = """
import sys
from vmrun.core.errors import KeyExists
from vmrun.store.directory import DirectoryStore

root, writer = sys.argv[1:]
store = DirectoryStore(root, fsync=False)
print("ready", flush=True)
sys.stdin.readline()
won = []
for number in range(200):
    try:
        store.create(f"race/{number}/000000", writer.encode() * 100)
        won.append(number)
    except KeyExists:
        pass
    store.create(f"own/{writer}", b"")
    store.delete(f"own/{writer}")
print(*won)
"""


def test_of_racing_processes_one_creates(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_ALL, str(tmp_path), str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(4)
    ]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [[int(number) for number in process.communicate(timeout=120)[0].split()] for process in writers]
    assert [process.returncode for process in writers] == [0] * 4
    assert sorted(number for numbers in won for number in numbers) == list(range(200))
    store = DirectoryStore(tmp_path)
    for writer, numbers in enumerate(won):
        for number in numbers:
            assert store.get(f"race/{number}/000000") == f"{writer}".encode() * 100
    assert keys_of(store.list("own/")) == []


# --- files that become objects ---


def test_a_file_on_the_same_file_system_becomes_the_object_without_a_copy(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("warm", b"")
    path = tmp_path / "file"
    path.write_bytes(b"result")
    os.chmod(path, 0o644)
    before = path.stat()
    store.write_file("a/object", str(path))
    placed = Path(store.root, "a/object").stat()
    assert (placed.st_ino, placed.st_mode & 0o777) == (before.st_ino, 0o600)
    path.unlink()
    assert store.get("a/object") == b"result"
    assert os.listdir(Path(store.root, ".tmp~")) == []


def test_a_file_that_has_other_names_is_copied(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("warm", b"")
    path = tmp_path / "file"
    path.write_bytes(b"result")
    os.link(path, tmp_path / "other")
    store.write_file("object", str(path))
    (tmp_path / "other").write_bytes(b"changed")
    assert store.get("object") == b"result"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no second file system")
def test_a_file_on_another_file_system_is_copied(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"result")
        file.flush()
        store.write_file("object", file.name)
    assert store.get("object") == b"result"


def test_a_file_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("warm", b"")
    with pytest.raises(StoreError):
        store.write_file("object", str(tmp_path / "nope"))
    assert keys_of(store.list("")) == ["warm"]


def test_an_adopted_file_is_flushed_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.create("jobs/1/000000", b"")
    path = tmp_path / "file"
    path.write_bytes(b"result")
    flushed: list[str] = []

    def record(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(store.root))

    monkeypatch.setattr(directory.os, "fsync", record)
    monkeypatch.setattr(directory.os, "fdatasync", record)
    store.write_file("jobs/1/large", str(path))
    assert flushed == [str(path), "/jobs/1"]
