"""The page on the nets says what the tests of this folder show."""

from __future__ import annotations

import pytest

from tests.nets.matrix import NETS, PHASES, POWERED_OFF, SHOWN_WITH, WORLDS, cell
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


def test_the_page_says_what_the_cells_are_shown_with() -> None:
    _, section = PAGE.read_text().split("## What the tests run with")
    header, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    assert header == ["net", *WORLDS]
    assert rows == [[net, *(SHOWN_WITH[net][world] or "nothing" for world in WORLDS)] for net in NETS]


def test_the_page_says_where_a_power_off_only_stops() -> None:
    titles = {"docker": "Docker", "ec2": "EC2", "gce": "Compute Engine", "ibm": "IBM Cloud"}
    _, section = PAGE.read_text().split("## What a power-off means")
    table = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    stops = {world: [row[1].startswith("stops it") for row in table if row[0] == titles[world]] for world in WORLDS}
    assert stops == {world: [bool(state)] for world, state in POWERED_OFF.items()}
