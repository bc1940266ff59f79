"""A VM in a region that is no longer configured, at each cloud's double: the reaper ends it all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clouds.mortal import Nursery, read_once
from tests.clouds.paper import PAPERS
from tests.clouds.test_kills import Cloud, Survivor


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(params=list(PAPERS))
def cloud(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    made = Cloud(request.param, tmp_path, nursery)
    for key, value in made.double.environment().items():
        monkeypatch.setenv(key, value)
    read_once(monkeypatch.setattr)
    made.table["regions"] = [made.paper.regions[1]]
    made.establish()
    yield made
    made.double.close()


@pytest.mark.timeout(900)
def test_it_is_reaped_with_all_that_belongs_to_it(cloud: Cloud) -> None:
    there = replace(cloud.deployment(), dies="created")
    cloud.nursery.submit(there, lambda _: None)
    assert len(cloud.double.inventory().instances) == 1
    here = replace(there, table={**there.table, "regions": [cloud.paper.regions[0]]})
    survivor = Survivor(cloud, here, "its region is not configured any more")
    if cloud.paper.name != "gce":
        # Where one list is of all regions, nothing is hidden in the first place.
        assert list(survivor.client._wiring.provisioner(cloud.paper.name).instances(survivor.client.deployment)) == []
    (kept,) = survivor.reap()
    assert (kept.policy, len(cloud.double.inventory().instances)) == ("keep", 1)
    survivor.wait_out_the_boot_grace()
    (verdict,) = survivor.reap()
    assert (verdict.policy, verdict.delete) == ("never_ready", True)
    assert survivor.is_empty(), cloud.double.inventory()
    assert all(fold.ended for fold in survivor.folds())
