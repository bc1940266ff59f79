"""What user code leaves for the agent: only plain files of its own are taken, whatever else lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.agent.bench import Bench, outcome
from tests.unit.agent.test_commit import a_batch


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A task's files, and traps beside them."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "agent.key").write_text("canary")
    folder = tmp_path / "left"
    (folder / "sub").mkdir(parents=True)
    (folder / "plain.txt").write_text("plain")
    (folder / "sub" / "inner.txt").write_text("inner")
    (folder / "link.txt").symlink_to(tmp_path / "secret" / "agent.key")
    (folder / "folder").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    return folder


def test_links_and_pipes_are_not_taken_and_not_followed(bench: Bench, left: Path, tmp_path: Path) -> None:
    batch = a_batch(bench)
    batch.add(outcome(0))
    batch.add_files(0, 1, str(left))
    assert batch.commit()
    assert {file.path for file in bench.files()} == {"plain.txt", "sub/inner.txt"}
    assert not left.exists()
    assert (tmp_path / "secret" / "agent.key").read_text() == "canary"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_hard_link_to_somebody_elses_file_is_not_taken(bench: Bench, left: Path, tmp_path: Path) -> None:
    """The agent of a VM is root, and could read it."""
    for path in (left, left / "plain.txt", left / "sub", left / "sub" / "inner.txt"):
        os.chown(path, 65534, 65534)
    os.link(tmp_path / "secret" / "agent.key", left / "hard.txt")
    batch = a_batch(bench)
    batch.add(outcome(0))
    batch.add_files(0, 1, str(left))
    assert batch.commit()
    assert {file.path for file in bench.files()} == {"plain.txt", "sub/inner.txt"}
