"""Identifiers of machines: whatever region they are of, the cloud is asked before a machine is called gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.core.world import ManualClock
from vmrun.core.clouds import InstanceNotFound
from vmrun.provisioners.ibm.api import Api
from vmrun.provisioners.ibm.config import IbmConfig
from vmrun.provisioners.ibm.driver import IbmProvisioner
from vmrun.provisioners.ibm.errors import Answer, from_answer

KEY = "0717-1e09281b-f177-46fb-baf1-bc152b2e391a"


class Absent:
    """An API that has nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def read(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        self.asked.append((region, parameters["id"]))
        raise from_answer(Answer(404, {"errors": [{"code": "not_found", "message": "no"}]}), operation)


@pytest.mark.parametrize("region", ["us-south", "eu-gb", "jp-osa", "eu-fr2", "br-sao"])
def test_a_machine_of_any_region_is_asked_for(region: str, tmp_path: Path) -> None:
    api = Absent()
    driver = IbmProvisioner(cast(Api, api), IbmConfig(), ManualClock(), tmp_path)

    with pytest.raises(InstanceNotFound):
        driver.get(f"{region}/{KEY}")

    assert api.asked == [(region, KEY)]


@pytest.mark.parametrize("id", ["", "..", "us-south/../x", "US-SOUTH/x", f"evil.example/{KEY}", f"us-south/{KEY}/x"])
def test_what_cannot_be_a_machine_is_not_asked_for(id: str, tmp_path: Path) -> None:
    api = Absent()
    driver = IbmProvisioner(cast(Api, api), IbmConfig(regions=()), ManualClock(), tmp_path)

    with pytest.raises(InstanceNotFound):
        driver.get(id)

    assert api.asked == []
