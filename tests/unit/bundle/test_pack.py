"""Packed trees: the same files give the same bytes, and nothing hostile gets out of them."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.bundle.modules import BundleFile, read_files
from vmrun.bundle.pack import Item, pack, unpack
from vmrun.core.codec import sha256
from vmrun.core.errors import Corrupt

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
# No name is both a file and a directory: directories end in `.d`, files do not.
paths = st.builds(
    lambda folders, name: "/".join([*(f"{folder}.d" for folder in folders), f"{name}.f"]),
    st.lists(names, max_size=3),
    names,
)
trees = st.dictionaries(paths, st.tuples(st.binary(max_size=300), st.booleans()), max_size=8)


def items(tree: dict[str, tuple[bytes, bool]]) -> list[Item]:
    return [Item(path, data, executable) for path, (data, executable) in tree.items()]


def read_back(directory: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in directory.rglob("*")
        if path.is_file()
    }


@given(trees)
def test_a_tree_comes_back_as_it_went(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, tuple[bytes, bool]]):
    target = tmp_path_factory.mktemp("tree") / "there"
    unpack(pack(items(tree)).data, target)
    assert read_back(target) == tree


@given(trees, st.randoms())
def test_the_same_files_give_the_same_bytes(tree: dict[str, tuple[bytes, bool]], shuffle) -> None:
    again = items(tree)
    shuffle.shuffle(again)
    first, second = pack(items(tree)), pack(again)
    assert first.data == second.data
    assert first.sha256 == sha256(first.data)


def test_times_owners_and_other_bits_do_not_matter(tmp_path: Path) -> None:
    packed = []
    for name, mode, when in (("a", 0o644, 1), ("b", 0o600, 10**9)):
        path = tmp_path / name / "x.py"
        path.parent.mkdir()
        path.write_text("x = 1\n")
        path.chmod(mode)
        os.utime(path, (when, when))
        packed.append(pack(read_files([BundleFile("x.py", path)])))
    assert packed[0] == packed[1]
    assert packed[0].data[4:8] == bytes(4)  # gzip's own time


def test_a_changed_byte_name_or_executable_bit_matters() -> None:
    variants = [
        [Item("x.py", b"1")],
        [Item("x.py", b"2")],
        [Item("y.py", b"1")],
        [Item("x.py", b"1", executable=True)],
        [],
    ]
    assert len({pack(variant).sha256 for variant in variants}) == len(variants)


def test_unpacked_files_can_be_read_by_every_user_and_written_by_one(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        unpack(pack([Item("a/b/run", b"", executable=True), Item("a/x", b"")]).data, tmp_path / "new" / "t")
    finally:
        os.umask(mask)
    modes = {
        path.relative_to(tmp_path / "new").as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "new").rglob("*")
    }
    assert modes == {"t": 0o755, "t/a": 0o755, "t/a/b": 0o755, "t/a/b/run": 0o755, "t/a/x": 0o644}


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    unpack(b"not even a tar", tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_many_unpack_the_same_at_once(tmp_path: Path) -> None:
    packed = pack([Item(f"f{number}", bytes([number])) for number in range(50)])
    gate, failures = threading.Barrier(8), []

    def go() -> None:
        gate.wait()
        try:
            unpack(packed.data, tmp_path / "t")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(read_back(tmp_path / "t")) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


# --- hostile trees ---


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def pax(name: str, **headers: str) -> tarfile.TarInfo:
    info = member(name)
    info.pax_headers = headers
    return info


GOOD = (member("good.py"), b"x")
HOSTILE = {
    "absolute": tar(GOOD, (member("/tmp/evil"), b"x")),
    "parent": tar(GOOD, (member("../evil"), b"x")),
    "parent inside": tar(GOOD, (member("a/../../evil"), b"x")),
    "dot": tar(GOOD, (member("./evil"), b"x")),
    "empty": tar(GOOD, (member(""), b"x")),
    "symbolic link": tar(GOOD, (member("a", tarfile.SYMTYPE, "/etc"), b""), (member("a/passwd"), b"x")),
    "hard link": tar(GOOD, (member("a", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "device": tar(GOOD, (member("a", tarfile.CHRTYPE), b"")),
    "fifo": tar(GOOD, (member("a", tarfile.FIFOTYPE), b"")),
    "directory": tar(GOOD, (member("a", tarfile.DIRTYPE), b"")),
    "twice": tar(GOOD, GOOD),
    "file as directory": tar((member("a"), b"x"), (member("a/b"), b"x")),
    "directory as file": tar((member("a/b"), b"x"), (member("a"), b"x")),
    "name too long": tar(GOOD, (member("x" * 300), b"x")),
    "path in a header": tar(GOOD, (pax("fine", path="../evil"), b"x")),
    "cut short": pack([Item("a", b"x" * 100_000)]).data[:-20],
    "no tar": gzip.compress(b"hello" * 1000),
    "no gzip": b"hello",
    "nothing": b"",
    "too many bytes": pack([Item("a", bytes(2000))]).data,
    "bomb": gzip.compress(bytes(50_000_000)),
    "too many files": pack([Item(str(number), b"") for number in range(20)]).data,
    "lying size": gzip.compress(gzip.decompress(tar((member("a"), b"x" * 600)))[:900]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_trees_are_refused_and_leave_nothing(tmp_path: Path, data: bytes) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(Corrupt):
        unpack(data, home / "t", max_bytes=1000, max_files=10)
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


@given(data=st.data())
def test_a_damaged_tree_is_refused_or_the_same(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    packed = bytearray(pack([Item("a/b.py", b"x = 1\n" * 50), Item("c", b"", executable=True)]).data)
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    target = tmp_path_factory.mktemp("damaged") / "t"
    try:
        unpack(bytes(packed), target)
    except Corrupt:
        assert not target.exists()
    else:
        # Only the gzip header's own fields (time, system) are under no checksum.
        assert read_back(target) == {"a/b.py": (b"x = 1\n" * 50, False), "c": (b"", True)}


def test_a_full_disk_is_not_the_trees_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vmrun.bundle.pack.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(pack([Item("a", b"x")]).data, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
