"""`vmrun cost`: rows in an order that tells most, what is not known said aloud."""

from __future__ import annotations

import pytest

from tests.unit.cli.fakes import JOB, NOW
from vmrun.watch.costs import By, Costs, Row

OTHER = "01hzy3v7k9m2n4p6q8r0s1t2v9"


def report(by: By = By.job, **changes) -> Costs:
    rows = {
        "": Row(hours=1.0, on_demand=2.0, idle=2.0),
        JOB: Row(hours=2.0, on_demand=4.0, disk=0.5, address=0.25),
        OTHER: Row(hours=3.0, spot=9.0, unpriced=1.5, unpriced_disk=2.0, unpriced_address=3.0),
    }
    costs = Costs(by, NOW - 86400, NOW, rows, vms=3, names={JOB: "night run"})
    costs.total = Row(6.0, 6.0, 9.0, 0.5, 0.25, 2.0, 1.5, 2.0, 3.0)
    for name, value in changes.items():
        setattr(costs, name, value)
    return costs


def test_jobs_come_by_cost_and_idle_time_last(vmrun, client) -> None:
    client.spent = report()
    done = vmrun("cost")
    assert client.calls == [("costs", By.job, 30 * 86400.0)]
    head, *rows = [line.split() for line in done.out.splitlines()]
    assert head == ["JOB", "NAME", "HOURS", "ON-DEMAND", "SPOT", "DISK", "ADDRESS", "TOTAL"]
    assert [row[0] for row in rows] == [OTHER, JOB, "idle", "total"]
    assert rows[1] == [JOB, "night", "run", "2.00", "$4.00", "$0.00", "$0.50", "$0.25", "$4.75"]
    assert rows[3][-1] == "$15.75"
    assert "not in it: 1.50 hours of machines whose price is not known" in done.err
    assert "not in it: 2.00 hours of disks whose price is not known" in done.err
    assert "not in it: 3.00 hours of public addresses whose price is not known" in done.err


def test_days_come_by_date_and_show_idle_time_in_a_column(vmrun, client) -> None:
    client.spent = report(By.day, rows={"19700": Row(hours=1.0, spot=1.0, idle=0.5), "9": Row(hours=1.0)})
    done = vmrun("cost", "--by", "day", "--since", "12h")
    assert client.calls == [("costs", By.day, 43200.0)]
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["DAY", "HOURS", "ON-DEMAND", "SPOT", "DISK", "ADDRESS", "IDLE", "TOTAL"]
    assert [line[0] for line in lines[1:]] == ["1970-01-10", "2023-12-09", "total"]
    assert lines[2][6] == "$0.50"


def test_the_document_has_every_figure(vmrun, client) -> None:
    client.spent = report(unreadable=2)
    document = vmrun("cost", "--json").document
    assert [(row["job"], row["kind"], row["name"]) for row in document["rows"]] == [
        (OTHER, "job", None),
        (JOB, "job", "night run"),
        (None, "idle", None),
    ]
    assert document["total"] == {
        "hours": 6.0,
        "usd": 15.75,
        "usd_on_demand": 6.0,
        "usd_spot": 9.0,
        "usd_disk": 0.5,
        "usd_address": 0.25,
        "usd_idle": 2.0,
        "unpriced_hours": 1.5,
        "unpriced_disk_hours": 2.0,
        "unpriced_address_hours": 3.0,
    }
    assert (document["since"], document["until"], document["by"]) == (NOW - 86400, NOW, "job")
    assert (document["vms"], document["unreadable"]) == (3, 2)


def test_nothing_was_spent(vmrun) -> None:
    assert vmrun("cost").out == "No VMs lived in that time.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "week"), "--by: 'week'"),
        (("--since", "0s"), "--since: '0s' is no time"),
        (("--since", "9999d"), "--since: '9999d' is no time"),
        (("--since", "yesterday"), "--since: 'yesterday' is not a duration"),
    ],
)
def test_what_cannot_be_asked(vmrun, client, arguments, message) -> None:
    done = vmrun("cost", *arguments)
    assert done.code == 2
    assert message in done.err
    assert client.calls == []
