"""Control groups for jobs in the second version's layout, of plain files; the engine tests those that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmrun.agent import groups
from vmrun.agent.groups import find_group, make_group
from vmrun.core.clock import SystemClock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has control groups of its own")
NOW = SystemClock().now()
SERVICE = "system.slice/vmrun-agent.service"


def parted(root: Path, members: str) -> Path:
    """The group of a service whose processes are `members`, with room for others."""
    service = root / SERVICE
    service.mkdir(parents=True)
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    (service / "cgroup.subtree_control").write_text("")
    (service / "cgroup.procs").write_text(members)
    return service


@pytest.fixture(autouse=True)
def second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_own_groups", lambda: {"": f"/{SERVICE}"})


def test_the_agent_makes_room_and_the_job_has_limits(tmp_path: Path) -> None:
    service = parted(tmp_path, f"{os.getpid()}\n")
    group = make_group("mark", 5_000_000, NOW, root=str(tmp_path))
    # Groups with processes of their own can have no others below them: the agent has gone into one.
    assert (service / "vmrun-agent" / "cgroup.procs").read_text() == str(os.getpid())
    assert (service / "cgroup.subtree_control").read_text() in ("+memory", "+pids")
    job = service / "vmrun-job-mark"
    assert (job / "memory.max").read_text() == "5000000"
    assert int((job / "pids.max").read_text()) > 1000
    group.add(12345)
    assert group.members() == {12345} == find_group("mark", root=str(tmp_path)).members()


def test_where_others_are_in_the_group_there_is_none(tmp_path: Path) -> None:
    service = parted(tmp_path, f"{os.getpid()}\n1\n")
    group = make_group("mark", 5_000_000, NOW, root=str(tmp_path))
    assert group.members() == set()
    assert sorted(path.name for path in service.iterdir() if path.is_dir()) == []


@pytest.mark.parametrize("memory", [0, 5_000_000])
def test_where_there_are_no_controllers_or_no_limit_there_is_none(tmp_path: Path, memory: int) -> None:
    group = make_group("mark", memory, NOW, root=str(tmp_path))
    group.add(os.getpid())
    assert group.members() == set()
    group.end(SystemClock())
    assert list(tmp_path.iterdir()) == []


def test_empty_groups_of_agents_that_were_killed_are_removed(tmp_path: Path) -> None:
    service = parted(tmp_path, f"{os.getpid()}\n")
    for name, age in (("vmrun-job-old", 100), ("vmrun-job-new", 5), ("vmrun-job-busy", 100), ("theirs", 100)):
        (service / name).mkdir()
        if name == "vmrun-job-busy":
            # The kernel removes no group with processes; here a file stands for them.
            (service / name / "cgroup.procs").write_text("1\n")
        os.utime(service / name, (NOW - age, NOW - age))
    make_group("mark", 5_000_000, NOW, root=str(tmp_path))
    left = {path.name for path in service.iterdir() if path.is_dir()}
    assert left == {"vmrun-agent", "vmrun-job-mark", "vmrun-job-new", "vmrun-job-busy", "theirs"}
