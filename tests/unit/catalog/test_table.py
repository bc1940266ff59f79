"""The document of a catalogue, the refreshed one in the cache directory, and the tool that makes the packaged one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.source import ROOT
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun import catalog
from vmrun.artefact.app import app_items
from vmrun.catalog.packaged import DATA, packaged
from vmrun.catalog.refresh import keep, refresh
from vmrun.catalog.refreshed import path_of
from vmrun.catalog.table import BadCatalog, dump, parse, table_of
from vmrun.core.clouds import CloudError, Need
from vmrun.core.errors import ConfigError
from vmrun.core.estates import PriceRow

ROW = PriceRow("m6i.large", 2, 1, 8.0, "x86_64", 0, "us-east-1", 0.1, 0.04, "2026-10-01")

ROWS = st.builds(
    PriceRow,
    instance_type=st.text(max_size=8),
    vcpus=st.integers(1, 900),
    cores=st.integers(1, 900),
    memory_gib=st.sampled_from([0.5, 1, 3.75, 1024]),
    arch=st.sampled_from(["x86_64", "arm64"]),
    local_ssd_gb=st.integers(0, 9000),
    region=st.text(max_size=4),
    usd_per_hour=st.none() | st.floats(0, 1000),
    spot_usd_per_hour=st.none() | st.floats(0, 1000),
    priced_at=st.sampled_from(["", "2026-02", "2026-10-01"]),
    spot_priced_at=st.sampled_from([None, "", "2026-11-01"]),
)


@given(st.lists(ROWS, unique_by=lambda row: row.instance_type, max_size=6))
def test_a_document_gives_back_its_rows(rows: list[PriceRow]) -> None:
    table = table_of("ec2", "2026-11-26", rows)
    assert parse(dump(table)) == table
    assert dump(parse(dump(table))) == dump(table)
    assert dump(table).isascii()


def test_of_two_rows_of_a_type_in_a_region_the_last_counts() -> None:
    assert table_of("ec2", "", [ROW, replace(ROW, usd_per_hour=0.2)]).rows == (replace(ROW, usd_per_hour=0.2),)


def document(line: str) -> str:
    """A document with one type, whose line this is."""
    head = '"format": 1, "on": "ec2", "collected": "", "regions": ["r"], "dates": []'
    return f'{{{head}, "types": {{"a": {line}}}}}'


def test_the_least_document_is_one() -> None:
    assert parse(document('[2, 1, 1, "x86_64", 0, [[0, 0.5, null, null]]]')).rows[0].usd_per_hour == 0.5


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"format": 2}', "[" * 100_000),
        '{"format": 1, "on": "ec2", "collected": "", "regions": [], "dates": [], "types": []}',
        document("[1]"),
        document('["many", 1, 1, "x86_64", 0, [[0, 1, 1, null]]]'),
        document('[2, 0, 1, "x86_64", 0, [[0, 1, 1, null]]]'),
        document("[2, 1, 1, 7, 0, [[0, 1, 1, null]]]"),
        document('[2, 1, 1, "x86_64", 0, [[1, 1, 1, null]]]'),
        document('[2, 1, 1, "x86_64", 0, [[0, 1, 1, 0]]]'),
        document('[2, 1, 1, "x86_64", 0, [[0, NaN, 1, null]]]'),
        document('[2, 1, 1, "x86_64", 0, [[0, Infinity, 1, null]]]'),
        document('[2, 1, 1, "x86_64", 0, [[0, -1, 1, null]]]'),
        document('[2, 1, 1, "x86_64", 0, [[0, "1", 1, null]]]'),
    ],
)
def test_what_is_no_catalogue_is_refused(text: str) -> None:
    with pytest.raises(BadCatalog):
        parse(text)


@pytest.mark.parametrize("on", catalog.CLOUDS)
def test_the_packaged_files_are_in_the_form_that_the_tool_writes(on: str) -> None:
    text = (DATA / f"{on}.json").read_text("ascii")
    table = packaged(on)
    assert dump(table) == text
    assert table.on == on
    assert table.collected == "2026-11-22"
    assert len(table.rows) > 500
    for row in table.rows:
        assert (row.usd_per_hour is None) == (row.priced_at == "")
        assert row.usd_per_hour is None or row.usd_per_hour > 0
        assert row.spot_usd_per_hour is None or row.usd_per_hour is None or row.spot_usd_per_hour < row.usd_per_hour


def test_the_tool_makes_the_files_of_tables(tmp_path: Path) -> None:
    head = "instance_type,vcpus,memory_gib,arch,local_ssd_gb,region,price_usd_hour,spot_usd_hour,as_of\n"
    (tmp_path / "ec2.csv").write_text(head + "m6i.large,2,8,x86_64,0,us-east-1,0.1,0.04,2026-10-01\n")
    (tmp_path / "gce.csv").write_text(head + "t2d-standard-2,2,8,x86_64,,us-east1,,,\n")
    (tmp_path / "ibm.csv").write_text(head)
    program = (
        "import sys; sys.path.insert(0, 'tools'); import make_catalog; from pathlib import Path;"
        "make_catalog.main(Path(sys.argv[1]), '2026-11-22', Path(sys.argv[1]) / 'made')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT, timeout=120)
    made = {on: parse((tmp_path / "made" / f"{on}.json").read_text("ascii")) for on in catalog.CLOUDS}
    assert made["ec2"].rows == (replace(ROW, spot_priced_at=""),)
    assert made["gce"].rows == (PriceRow("t2d-standard-2", 2, 2, 8, "x86_64", 0, "us-east1", None, None, ""),)
    assert made["ibm"].rows == ()


# --- refreshed ---


class Prices:
    """An estate that tells prices, and nothing else."""

    name = "ec2"

    def __init__(self, *rows: PriceRow) -> None:
        self.rows = rows

    def prices(self) -> Iterator[PriceRow]:
        yield from self.rows


def refreshed(cache: Path, *rows: PriceRow) -> catalog.Table:
    return refresh(Prices(*rows), ManualClock(1_795_700_000.0), cache)  # type: ignore[arg-type]


def test_a_refreshed_region_is_as_its_cloud_told_and_others_stay(tmp_path: Path) -> None:
    told = replace(ROW, instance_type="m99.large", priced_at="2026-11-26")
    table = refreshed(tmp_path, told)
    assert table.collected == "2026-11-26"

    (only,) = catalog.offers("ec2", Need(), ["us-east-1"], cache_dir=tmp_path)
    assert (only.instance_type, only.usd_per_hour, only.priced_at) == ("m99.large", 0.1, "2026-11-26")
    elsewhere = catalog.offers("ec2", Need(cpus=128), ["us-west-2"], cache_dir=tmp_path)
    assert elsewhere == catalog.offers("ec2", Need(cpus=128), ["us-west-2"])
    assert catalog.regions("ec2", cache_dir=tmp_path)[0] == "us-east-1"
    assert len(catalog.offers("ec2", Need(), ["us-east-1"])) > 100, "without a cache directory: as packaged"


def test_a_price_that_its_cloud_did_not_tell_is_as_packaged(tmp_path: Path) -> None:
    refreshed(tmp_path, replace(ROW, instance_type="r6a.32xlarge", usd_per_hour=None, priced_at=""))
    (only,) = catalog.offers("ec2", Need(), ["us-east-1"], cache_dir=tmp_path)
    assert (only.usd_per_hour, only.priced_at) == (7.2576, "2026-07-20")


def test_a_cloud_that_tells_nothing_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CloudError) as caught:
        refreshed(tmp_path)
    assert "ec2.regions" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(table_of("ec2", "2026-11-01", [ROW]), tmp_path)
    before = path_of("ec2", tmp_path).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        keep(table_of("ec2", "2026-11-02", [ROW, replace(ROW, region="x")]), tmp_path)
    assert path_of("ec2", tmp_path).read_bytes() == before
    assert [path.name for path in path_of("ec2", tmp_path).parent.iterdir()] == ["ec2.json"]


def test_a_cache_directory_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "catalog").write_text("a file where the directory should be")
    with pytest.raises(ConfigError) as caught:
        refreshed(tmp_path, ROW)
    assert str(tmp_path) in caught.value.message
    assert "VMRUN_CACHE_DIR" in caught.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", json.dumps({"format": 9}).encode(), dump(packaged("gce")).encode()]
)
def test_a_refreshed_file_that_cannot_be_used_is_left_aside_and_told_of(tmp_path: Path, data: bytes) -> None:
    path_of("ec2", tmp_path).parent.mkdir()
    path_of("ec2", tmp_path).write_bytes(data)
    assert catalog.offers("ec2", Need(cpus=128), ["us-east-1"], cache_dir=tmp_path)[0].priced_at == "2026-07-20"
    problem = catalog.problem("ec2", tmp_path)
    assert str(path_of("ec2", tmp_path)) in problem
    assert catalog.problem("gce", tmp_path) == ""


def test_what_goes_to_a_machine_has_no_catalogue() -> None:
    paths = [item.path for item in app_items()]
    assert "vmrun/catalog/machines.py" in paths
    assert [path for path in paths if path.endswith(".json")] == []
