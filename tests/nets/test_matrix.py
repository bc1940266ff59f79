"""The page on the nets says what the tests of this folder show."""

from __future__ import annotations

import pytest

from tests.nets.matrix import NETS, PHASES, cell
from tests.support.source import ROOT

PAGE = ROOT / "docs" / "explanation" / "nets.md"


@pytest.mark.parametrize("phase", PHASES)
def test_the_table_of_the_page_is_the_matrix(phase: str) -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith(f"| {phase} |")]
    assert len(rows) == 1
    told = [text.replace("`", "") for text in rows[0][1:]]
    # Where the cloud ends machines at all, it is Google's.
    found = [cell("gce", net, phase) for net in NETS]
    assert told == [each.within or each.because for each in found]


def test_clouds_without_a_clock_of_their_own_are_named() -> None:
    page = " ".join(PAGE.read_text().split())
    assert [world for world in ("docker", "ec2", "gce", "ibm") if cell(world, "cloud", "running").acts] == ["gce"]
    assert "EC2, IBM Cloud and Docker end no machine by a clock of their own" in page
