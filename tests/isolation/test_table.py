"""The isolation table: one bad task among good ones, in vmrun and in what comes with Python.

The other systems are looked at by `make bench`, which installs them; here it is seen that their columns would tell.
"""

from __future__ import annotations

import dataclasses
import sys

import pytest

from tests.support import benchmarks  # noqa: F401  makes the next ones importable
from tests.support.source import ROOT

# isort: split
from isolation import SLOW, SUBJECTS, Subject, cannot, try_case
from isolation_cases import CASES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

VMRUN, EXECUTOR, POOL = SUBJECTS[:3]
#: What is known of the others, by the beginning of the verdict: were it all "failed alone", the cases would be no good.
KNOWN = {
    EXECUTOR.label: {
        "raise": "failed alone",
        "os-exit": "neighbours lost",
        "segfault": "neighbours lost",
        "exception": "neighbours lost",
        "endless": "hung",
        "state": "state leaked",
        "threads": "failed alone",
    },
    POOL.label: {
        "raise": "failed alone",
        "os-exit": "hung",
        "segfault": "hung",
        "exception": "hung",
        "endless": "hung",
        "state": "state leaked",
        "threads": "failed alone",
    },
}
GOOD = ("failed alone", "nobody noticed")


def patient(subject: Subject, case: str, seconds: float) -> Subject:
    """The subject, with the time that it may take on a busy computer."""
    return dataclasses.replace(subject, limit=seconds / SLOW.get(case, 1))


@pytest.mark.parametrize("case", CASES)
def test_in_vmrun_a_bad_task_fails_alone(case: str) -> None:
    if reason := cannot(case):
        pytest.skip(reason)
    found = try_case(patient(VMRUN, case, 200.0), case, sys.executable)
    assert found.verdict.alone, found
    assert found.verdict.text in GOOD
    assert found.ending in CASES[case].kinds


@pytest.mark.parametrize("subject", [EXECUTOR, POOL], ids=lambda one: one.label)
@pytest.mark.parametrize("case", CASES)
def test_in_what_comes_with_python_it_need_not(subject, case: str) -> None:
    if reason := cannot(case):
        pytest.skip(reason)
    known = KNOWN[subject.label].get(case, "")
    # What would hang is not waited for
    waiting = dataclasses.replace(subject, limit=4.0) if known in ("", "hung") else patient(subject, case, 90.0)
    found = try_case(waiting, case, sys.executable).verdict
    assert known in found.text, found
    assert found.alone == (found.text in GOOD)


def test_the_page_has_every_case_and_nobody_suffers_in_vmrun() -> None:
    page = (ROOT / "docs" / "explanation" / "isolation.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    head, _, *body = rows
    assert head[1:] == [subject.label for subject in SUBJECTS]
    assert [row[0] for row in body] == [case.title for case in CASES.values()]
    for row in body:
        assert row[1].startswith(GOOD), row
