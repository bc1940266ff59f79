"""Every row of the catalogue of failures is in the reference, and has a test that says so."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vmrun.core.blocks import Status

ROOT = Path(__file__).parents[2]
ROWS = range(33, 61)
#: Rows without a test, each for the reason that the reference gives.
OPEN: set[int] = set()
TEXT = (ROOT / "docs" / "reference" / "failures.md").read_text(encoding="utf-8")


def marked_tests() -> dict[int, list[str]]:
    """Tests by the rows that they are marked with."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.catalogue" not in text:
            continue  # to parse hundreds of files for nothing takes seconds
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                for row in rows_of(node):
                    assert node.name.startswith("test_"), f"{path}: {node.name} is no test"
                    found[row].append(f"{path.name}::{node.name}")
    return found


def rows_of(node: ast.FunctionDef) -> Iterator[int]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.catalogue":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def described() -> dict[int, tuple[str, str, str]]:
    """Rows of the table in the reference."""
    return {
        int(row): (what, becomes, kind)
        for row, what, becomes, kind in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$", TEXT, re.MULTILINE)
    }


def test_every_row_is_described_once_with_a_kind_that_there_is() -> None:
    assert len(re.findall(r"^\| \d+ \|", TEXT, re.MULTILINE)) == len(ROWS)
    table = described()
    assert sorted(table) == list(ROWS)
    kinds = {f"`{status.name}`" for status in Status if status is not Status.ok}
    assert {kind.strip() for _, _, kind in table.values()} <= {"", *kinds}
    assert {row for row, (_, becomes, _) in table.items() if becomes.startswith("open:")} == OPEN
    for kind in kinds:
        assert f"| {kind} |" in TEXT, f"{kind} is not explained"


def test_every_row_has_a_test_but_those_that_are_open() -> None:
    tests = marked_tests()
    assert set(tests) <= set(ROWS), "a test is marked with a row that is not there"
    assert set(ROWS) - set(tests) == OPEN
