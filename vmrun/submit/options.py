"""What holds for one submission: flags win over the script's header, that over `@vmrun.job`, that over the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import Market, Need
from vmrun.job import AUTO_MEMORY
from vmrun.settings import Settings

from .request import SubmitRequest


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one submission, every one decided."""

    on: str
    need: Need
    #: Machines, and how many that are lost are replaced.
    vms: int
    replace_lost: int
    #: Whether the need's memory is to be found out.
    memory_auto: bool
    workers: int
    #: 0: one, or the cores that are left over when there are few workers.
    threads_per_task: int
    #: A process for each task.
    fresh: bool
    retries: int
    #: Seconds; 0: none.
    task_timeout: float
    max_lifetime: float
    keep_warm: float
    keep_on_failure: float
    #: Dollars; 0: no limit.
    max_cost: float
    allow_unknown_price: bool
    #: `fail`, or `grow`.
    on_oom: str
    name: str
    env: dict[str, str]


def decide(
    request: SubmitRequest, header: Mapping[str, Any], decorator: Mapping[str, Any], settings: Settings, name: str
) -> Options:
    """The options that hold; `name` is what the job is called if nobody says otherwise."""
    defaults = settings.defaults

    def pick(key: str, default: Any) -> Any:
        for said in (getattr(request, key, None), header.get(key), decorator.get(key)):
            if said is not None:
                return said
        return getattr(defaults, key, default)

    memory = pick("memory", 0)
    need = Need(
        cpus=pick("cpus", 0),
        memory=0 if memory == AUTO_MEMORY else memory,
        task_memory=pick("task_memory", 0),
        disk=pick("disk", 0),
        arch=pick("arch", ""),
        instance_type=pick("instance_type", ""),
        region=pick("region", ""),
        zone=pick("zone", ""),
        market=Market(pick("market", Market.on_demand)),
    )
    return Options(
        on=pick("on", "local"),
        need=need,
        vms=pick("vms", 1),
        replace_lost=pick("replace_lost", 0),
        memory_auto=memory == AUTO_MEMORY,
        workers=pick("workers", 0),
        threads_per_task=pick("threads_per_task", 0),
        fresh=pick("fresh", default=False),
        retries=pick("retries", 0),
        task_timeout=pick("task_timeout", 0.0),
        max_lifetime=pick("max_lifetime", 86400.0),
        keep_warm=pick("keep_warm", 0.0),
        keep_on_failure=pick("keep_on_failure", 0.0),
        max_cost=pick("max_cost", 0.0),
        allow_unknown_price=pick("allow_unknown_price", default=False),
        on_oom=pick("on_oom", "fail"),
        name=str(pick("name", name) or name),
        env={**decorator.get("env", {}), **header.get("env", {}), **request.env},
    )
