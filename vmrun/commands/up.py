"""`vmrun up`: keep a pool of VMs that wait for jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vmrun.core.clouds import Market
from vmrun.core.pools import DEFAULT
from vmrun.core.schedules import parse_schedule
from vmrun.core.units import parse_duration
from vmrun.fleet.pooling import SIZE_MAX, Changes
from vmrun.rendering import documents
from vmrun.rendering import pools as rendered

from .options import (
    Arch,
    Cpus,
    Disk,
    InstanceType,
    Json,
    Memory,
    OnDemand,
    Region,
    Spot,
    SpotWithFallback,
    Zone,
    market_of,
)
from .request import check_option
from .session import session_of

EXAMPLES = (
    ("vmrun up --on docker --cpus 2 --size 2 --for 8h", "two VMs that take jobs at once, gone in eight hours"),
    ("vmrun up team --on ec2 --cpus 64 --schedule 'mon-fri 08:00-18:00 Europe/Rome'", "up while people work"),
    ("vmrun up team --size 4", "more of the same"),
    ("vmrun up team", "make what is missing"),
)

PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.")]


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    pool: PoolName = DEFAULT,
    *,
    size: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=SIZE_MAX, help="VMs in the pool. [default: 1]")
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="The pool ends this long after now, as 8h.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="TIMES", help="The pool is up at these times, as 'mon-fri 08:00-18:00 Europe/Rome'."),
    ] = None,
    on: Annotated[
        str | None, typer.Option(metavar="WHERE", help="Where its VMs are, as in submit. [default: local]")
    ] = None,
    cpus: Cpus = None,
    memory: Memory = None,
    disk: Disk = None,
    arch: Arch = None,
    instance_type: InstanceType = None,
    region: Region = None,
    zone: Zone = None,
    spot: Spot = False,
    on_demand: OnDemand = False,
    spot_with_fallback: SpotWithFallback = False,
    max_lifetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="Hard limit to each VM's life, as 12h. [default: 24h]")
    ] = None,
    json: Json = False,
) -> int:
    """Keep POOL: VMs that are made before there are jobs, and wait for them. Every submit that fits takes one.

    Makes what is missing and returns. What is not said stays as it was, so that it may be run again at any time. A VM
    that is lost is made anew by the next pass of a reaper (`vmrun reap --every 60s`), which also makes the VMs where a
    schedule begins.

    The VMs end by themselves with the time of the pool, a job that runs then ends first; every one has a dead-man timer
    and a hard limit to its life. A schedule is in UTC unless it names a time zone.
    """
    del json
    session = session_of(ctx)
    market = market_of(spot=spot, on_demand=on_demand, spot_with_fallback=spot_with_fallback)
    asked: dict[str, Any] = {
        "cpus": cpus,
        "memory": memory,
        "disk": disk,
        "arch": arch,
        "instance_type": instance_type,
        "region": region,
        "zone": zone,
    }
    need = {name: check_option(name, value) for name, value in asked.items() if value is not None}
    if market is not None:
        need["market"] = Market(market)
    if schedule is not None:
        parse_schedule(schedule)
    changes = Changes(
        on=None if on is None else str(check_option("on", on)),
        need=need,
        size=size,
        lasting=None if lasting is None else parse_duration(lasting, "--for"),
        schedule=schedule,
        max_lifetime=None if max_lifetime is None else float(check_option("max_lifetime", max_lifetime)),  # type: ignore[arg-type]
    )
    progress = session.screen.progress()
    try:
        view = session.client.pools.up(pool, changes, progress.stage, session.screen.note)
    finally:
        progress.close()
    if session.as_json:
        session.screen.document(documents.document(pool=documents.pool(view)))
    else:
        session.screen.lines([rendered.told(view, session.clock.now())])
    return 0
