"""`vmrun up`, `vmrun down`, and pools in `vmrun status`."""

from __future__ import annotations

import pytest

from tests.unit.cli.fakes import NOW, VM, vm_view
from vmrun.core.clouds import Market
from vmrun.core.views import PoolView
from vmrun.fleet.pooling import Changes


def test_up_passes_on_what_was_said_and_nothing_else(vmrun, client) -> None:
    done = vmrun("up", "--on", "docker", "--cpus", "2", "--memory", "1GB", "--size", "2", "--for", "8h", "--spot")
    assert done.code == 0
    need = {"cpus": 2, "memory": 10**9, "market": Market.spot}
    assert client.pools.calls == [("up", "default", Changes("docker", need, 2, 8 * 3600.0))]
    assert done.out == "pool default is up: 1 VM of 2, which end in 60m\n"
    vmrun("up", "team", "--schedule", "mon-fri 08:00-18:00", "--max-lifetime", "12h")
    expected = Changes(schedule="mon-fri 08:00-18:00", max_lifetime=12 * 3600.0)
    assert client.pools.calls[1] == ("up", "team", expected)
    vmrun("up", "team")
    assert client.pools.calls[2] == ("up", "team", Changes())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--size", "0"], "--size"),
        (["--for", "soon"], "--for"),
        (["--schedule", "whenever"], "--schedule"),
        (["--cpus", "-1"], "--cpus"),
        (["--memory", "much"], "--memory"),
        (["--on", "moon"], "moon"),
        (["--spot", "--on-demand"], "--spot"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_before_anything_is_done(vmrun, client, arguments, names) -> None:
    done = vmrun("up", *arguments)
    assert done.code == 2
    assert names in done.err
    assert client.pools.calls == []


def test_the_document_of_up(vmrun) -> None:
    assert vmrun("up", "--json").document["pool"] == {
        "name": "default",
        "state": "up",
        "on": "docker",
        "size": 2,
        "ready": 1,
        "busy": 0,
        "starting": 1,
        "vms": [],
        "schedule": None,
        "until": NOW + 3600,
        "ends_at": NOW + 3600,
        "begins_at": None,
    }


def test_down_says_what_still_works(vmrun, client) -> None:
    done = vmrun("down", "team", "--patience", "30s")
    assert client.pools.calls == [("down", "team", 30.0)]
    assert done.out == "pool team is down; 1 VM of it works, and ends with its job\n"
    assert vmrun("down", "--json").document["pool"]["state"] == "down"


def test_status_shows_pools_below_the_vms(vmrun, client) -> None:
    assert "POOL" not in vmrun("status").out
    client.vm_views = [vm_view(pool="team")]
    client.pools.known = [
        PoolView("team", "up", "ec2", size=3, ready=1, busy=1, starting=1, vms=(VM,), ends_at=NOW + 720),
        PoolView("days", "waiting", "gce", size=1, schedule="mon-fri 08:00-18:00", begins_at=NOW + 3600),
    ]
    lines = vmrun("status").out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("POOL"))
    assert lines[at + 1].split() == [
        "team",
        "up",
        "ec2",
        "2/3,",
        "1",
        "busy,",
        "1",
        "starting",
        "in",
        "12m",
        "because",
        "time",
        "of",
        "the",
        "pool",
    ]
    assert lines[at + 2].split() == ["days", "waiting", "gce", "0/1", "mon-fri", "08:00-18:00", "begins", "in", "60m"]
    document = vmrun("status", "--json").document
    assert [pool["name"] for pool in document["pools"]] == ["team", "days"]
    assert document["vms"][0]["pool"] == "team"
