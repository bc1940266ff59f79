"""Uploads of large results: side by side, but never more, nor more bytes, than agreed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vmrun.agent import uploads
from vmrun.agent.uploads import Uploads
from vmrun.core import keys
from vmrun.core.clock import SystemClock
from vmrun.store.files import hash_file
from vmrun.store.memory import MemoryStore

#: Seconds that others may take to come, on a busy computer.
PATIENCE = 60.0


class Meeting(MemoryStore):
    """Counts the writes that are under way at once; each waits until `enough` are, or until nobody else can come."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.now = self.most = 0
        self.enough = enough
        self.changed = threading.Condition()

    def write_file(self, key: str, path: str) -> None:
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.enough, PATIENCE)
        super().write_file(key, path)
        with self.changed:
            self.now -= 1


def files(folder: Path, count: int, size: int) -> list[Path]:
    paths = [folder / str(number) for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * size)
    return paths


@pytest.mark.parametrize(("width", "limit", "most"), [(4, 10_000, 4), (2, 10_000, 2), (4, 2500, 2), (4, 10, 1)])
def test_as_many_at_once_as_agreed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, limit: int, most: int
) -> None:
    monkeypatch.setattr(uploads, "BYTES_MAX", limit)
    store = Meeting(most)
    under_way = Uploads(store, "job", SystemClock(), width)
    paths = files(tmp_path, 12, 1000)
    running = [under_way.start(task, str(path)) for task, path in enumerate(paths)]
    found = [upload.result(2 * PATIENCE) for upload in running]
    assert [(ref.first, ref.count, ref.offset) for ref in found] == [(task, 1, 0) for task in range(len(paths))]
    assert [(ref.segment, ref.size) for ref in found] == [hash_file(path) for path in paths]
    assert store.most == most
    assert [store.get(keys.segment("job", ref.segment)) for ref in found] == [path.read_bytes() for path in paths]
    under_way.close()
