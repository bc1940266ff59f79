"""The local driver's pure parts: the guardian's rules and configuration, the files, what this computer offers."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.clouds import Need
from vmrun.provisioners.local import config, hardware, layout, rules

MOMENTS = st.floats(0, 1e11, allow_nan=False).map(lambda moment: round(moment, 3))


# --- when a machine must end ---


def verdict(now: float, hard: str | None, lease: str | None, latest: float = 1e12) -> str:
    return rules.must_end(now, hard=hard, lease=lease, latest=latest)


@given(now=MOMENTS, hard=MOMENTS, lease=MOMENTS, latest=MOMENTS)
def test_a_machine_lives_exactly_while_lease_and_both_deadlines_are_ahead(
    now: float, hard: float, lease: float, latest: float
) -> None:
    why = verdict(now, f"{hard:.3f}\n", f"{lease:.3f}", latest)

    assert (why == "") == (now < min(hard, lease, latest))
    if now >= min(hard, latest):
        assert why == "maximum lifetime reached"
    elif why:
        assert why == "lease expired"


@given(text=st.none() | st.text(max_size=30))
def test_a_file_keeps_a_machine_alive_only_if_it_is_a_plain_number(text: str | None) -> None:
    plain = text is not None and text.strip().replace(".", "", 1).isdecimal() and text.strip().isascii()

    for why in (verdict(1.0, text, "9"), verdict(1.0, "9", text)):
        assert why or plain


@pytest.mark.parametrize(
    "text", ["", " ", "inf", "nan", "-1", "+9e9", "9e9", "0x99", "9_9", "٩٩٩", "9 9", "9.", ".9", "9" * 13, "9\n9"]
)
def test_odd_numbers_are_none(text: str) -> None:
    assert rules.seconds(text) is None
    assert verdict(1.0, text, "99") == "no hard deadline"
    assert verdict(1.0, "99", text) == "no lease"


# --- how often an agent starts again ---


def test_restarts_come_ever_slower_and_end_at_the_limit() -> None:
    restarts, now, delays = rules.Restarts(), 1000.0, []
    while (again := restarts.after_failure(now)) is not None:
        delays.append(round(again - now, 6))
        now = again

    assert len(delays) == rules.Restarts.LIMIT
    assert delays == sorted(delays)
    assert delays[0] < 0.1
    assert delays[-1] == rules.Restarts.LONGEST_DELAY
    assert sum(delays) < rules.Restarts.WINDOW


def test_rare_failures_never_end_a_machine() -> None:
    restarts = rules.Restarts()
    for number in range(1000):
        now = number * rules.Restarts.WINDOW / 10
        again = restarts.after_failure(now)
        assert again is not None
        assert again - now <= rules.Restarts.LONGEST_DELAY


# --- the configuration ---


def test_user_data_is_byte_stable_and_read_back() -> None:
    text = config.user_data(hard_deadline=1.8e9, boot_grace=900.0, poll=0.5, flush_grace=60.0)

    assert text == config.user_data(hard_deadline=1.8e9, boot_grace=900.0)
    assert config.parse(text) == config.GuardianConfig(1.8e9, 900.0, 0.5, 60.0)


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, 1e12])
@pytest.mark.parametrize("field", ["hard_deadline", "boot_grace", "poll", "flush_grace"])
def test_limits_that_are_not_sane_are_refused(field: str, value: float) -> None:
    fields = {"hard_deadline": 1.8e9, "boot_grace": 900.0, "poll": 0.5, "flush_grace": 60.0}
    with pytest.raises(ValueError, match=field):
        config.user_data(**{**fields, field: value})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "#cloud-config",
        '{"hard_deadline":1,"boot_grace":1,"poll":1}',
        '{"hard_deadline":1,"boot_grace":1,"poll":1,"flush_grace":1,"more":1}',
        '{"hard_deadline":"1","boot_grace":1,"poll":1,"flush_grace":1}',
        '{"hard_deadline":true,"boot_grace":1,"poll":1,"flush_grace":1}',
        '{"hard_deadline":1,"boot_grace":1,"poll":NaN,"flush_grace":1}',
        '{"hard_deadline":1,"boot_grace":1,"poll":0,"flush_grace":1}',
        "[" * 100_000,
    ],
)
def test_user_data_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        config.parse(text)


# --- the files ---


@pytest.mark.parametrize("name", ["vmrun-a-b", "0", "a" * 100])
def test_names(name: str) -> None:
    assert layout.is_name(name)
    assert layout.debris_of(f".new-{name}-ab_1") == layout.debris_of(f".gone-{name}-123_0") == name
    assert layout.debris_of(name) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "A", "-a", "a" * 101, "a\n", "ä", "a\0", ".new-a-b"])
def test_what_is_not_a_name(name: str) -> None:
    assert not layout.is_name(name)
    assert layout.debris_of(f".new-{name}/../x") == ""


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    layout.write_text(str(path), "one")
    layout.write_text(str(path), "two")

    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (1 << 20))
    (tmp_path / "too large").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "not text").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "pipe")

    assert layout.read_text(str(tmp_path / "large")) is not None
    for name in ("too large", "not text", "pipe", "missing", "."):
        assert layout.read_text(str(tmp_path / name)) is None
    for text in ("", "[]", "{", "1", "[" * 100_000):
        (tmp_path / "json").write_text(text)
        assert layout.read_json(str(tmp_path / "json")) is None


def test_one_holds_the_lock_and_looking_takes_nothing(tmp_path: Path) -> None:
    assert not layout.is_locked(str(tmp_path))
    held = layout.take_lock(str(tmp_path))
    assert held is not None
    assert layout.is_locked(str(tmp_path))
    assert layout.take_lock(str(tmp_path)) is None

    os.close(held)

    assert not layout.is_locked(str(tmp_path))
    again = layout.take_lock(str(tmp_path))
    assert again is not None
    os.close(again)


def test_the_newest_records_of_ended_machines_are_kept(tmp_path: Path) -> None:
    for number in range(210):
        layout.record_end(str(tmp_path), f"vm-{number:03d}", "drained", 1000.0 + number)
        os.utime(tmp_path / layout.ENDED / f"vm-{number:03d}.json", (number, number))
    layout.record_end(str(tmp_path), "last", "lease expired", 2000.0)

    kept = sorted(os.listdir(tmp_path / layout.ENDED))
    assert len(kept) == 200
    assert kept[0] == "last.json"
    assert kept[1] == "vm-011.json"
    record = layout.read_json(f"{tmp_path}/{layout.ENDED}/last.json")
    assert record == {"name": "last", "why": "lease expired", "ended_at": 2000.0}


def test_removing_takes_all_and_follows_no_link(tmp_path: Path) -> None:
    machine, outside = tmp_path / "vm", tmp_path / "outside"
    (machine / "a" / "b").mkdir(parents=True)
    (machine / "a" / "b" / "file").touch()
    outside.mkdir()
    (outside / "kept").touch()
    (machine / "link").symlink_to(outside)
    (machine / "a").chmod(0)
    stale = tmp_path / f".gone-vm-{os.getpid()}_0"
    (stale / "in the way").mkdir(parents=True)
    mode = outside.stat().st_mode

    layout.remove_machine(str(machine))
    layout.remove_machine(str(machine))

    assert sorted(os.listdir(tmp_path)) == [stale.name, "outside"]
    assert (outside / "kept").exists()
    assert outside.stat().st_mode == mode


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike those of `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="vmrun-t-"))
    yield folder
    shutil.rmtree(folder)


def test_removing_takes_what_its_owner_may_not_write(open_folder: Path) -> None:
    """Done by an ordinary user: permissions do not hold back the superuser."""
    parent = open_folder
    folders = [parent / "vm" / "a" / "b", parent / "vm" / "a", parent / "vm"]
    folders[0].mkdir(parents=True)
    (folders[0] / "file").touch()
    user = os.getuid() or 65534
    for path in (*folders, parent):
        os.chown(path, user, -1)
    for path in folders:
        path.chmod(0)

    child = os.fork()
    if child == 0:
        try:
            os.setuid(user)
            layout.remove_machine(str(parent / "vm"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert os.listdir(parent) == []


# --- what this computer offers ---


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", "riscv64")],
)
def test_architectures_have_one_name(machine: str, expected: str) -> None:
    assert hardware.architecture(machine) == expected


def test_the_offer_is_what_this_process_may_use() -> None:
    offer = hardware.this_computer()

    assert offer.vcpus == len(os.sched_getaffinity(0))
    assert 1 <= offer.cores <= offer.vcpus
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert offer.memory == int(meminfo["MemTotal"].split()[0]) * 1024
    assert offer.usd_per_hour == 0.0


def test_what_fits() -> None:
    offer = replace(hardware.this_computer(), vcpus=8, memory=1 << 34, arch="arm64")
    disk = 1000

    for need in (
        Need(),
        Need(cpus=8, memory=1 << 34, disk=1000, arch="arm64", instance_type="local", region="local", zone="local"),
    ):
        assert hardware.fits(offer, need, disk)
    for need in (
        Need(cpus=9),
        Need(memory=(1 << 34) + 1),
        Need(disk=1001),
        Need(arch="x86_64"),
        Need(instance_type="m7i.large"),
        Need(region="us-east-1"),
        Need(zone="us-east-1a"),
    ):
        assert not hardware.fits(offer, need, disk)


def test_free_disk_is_known_before_the_folder_is_there(tmp_path: Path) -> None:
    assert hardware.free_disk(tmp_path / "not" / "there") > 0
