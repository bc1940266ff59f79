"""`examples/flights.py` in one process: its slices, its measures and its report against a naive computation."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import flights as naive
from tests.support.source import ROOT


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module; importing it runs nothing."""
    naive.text()
    spec = importlib.util.spec_from_file_location("flights_example", ROOT / "examples" / "flights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("parts", [1, 2, 7, 64, 1000])
def test_slices_are_disjoint_and_complete(example: ModuleType, parts: int) -> None:
    data = example.table()
    begin = data.index(b"\n") + 1
    starts = [example.line_start(data, begin, share, parts) for share in range(parts + 1)]
    assert starts == sorted(starts)
    assert starts[0] == begin
    assert starts[-1] == len(data)
    assert all(data[at - 1 : at] == b"\n" for at in starts)


def test_slices_finer_than_lines_lose_and_double_nothing(example: ModuleType) -> None:
    data = b"name\n" + b"".join(b"x" * (number % 5) + b"\n" for number in range(40)) + b"last"
    for parts in range(1, 200):
        starts = [example.line_start(data, 5, share, parts) for share in range(parts + 1)]
        assert b"".join(data[a:b] for a, b in itertools.pairwise(starts)) == data[5:]


@pytest.mark.slow
def test_report_agrees_with_the_naive_computation(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given every task's result
    monkeypatch.setenv("VMRUN_OUTPUT", str(tmp_path / "out"))
    results = [example.delays(part) for part in example.delays.over]
    # When they are reduced
    summary = example.report(results)
    # Then the summary, the file and the table say what a single pass over all rows says
    assert summary == naive.summary()
    naive.check_csv((tmp_path / "out" / "delays.csv").read_text())
    printed = capsys.readouterr().out
    assert "ExpressJet Airlines Inc." in printed
    assert f"{len(naive.rows()):,}" in printed


def test_measures_add_up_in_any_order_and_any_split(example: ModuleType, rng: random.Random) -> None:
    some = naive.some_rows(rng, 3000)
    whole = example.measure(some)
    for _ in range(5):
        rng.shuffle(some)
        cut = sorted(rng.randrange(len(some)) for _ in range(4))
        pieces = [some[a:b] for a, b in zip([0, *cut], [*cut, len(some)], strict=True)]
        assert example.merge(group for piece in pieces for group in example.measure(piece)) == whole


def test_a_group_whose_every_flight_was_cancelled_has_no_delay(example: ModuleType) -> None:
    row = {"carrier": "ZZ", "month": "2", "origin": "JFK", "dep_delay": "NA"}
    (group,) = example.merge([*example.measure([row]), *example.measure([row])])
    assert (group["flights"], group["cancelled"], group["least"], group["most"]) == (2, 2, None, None)
    assert example.mean(group) == example.deviation(group) == 0.0
