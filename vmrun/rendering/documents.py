"""The `--json` documents. Names and meanings are stable within a schema: more may be added, nothing is renamed.

Times are seconds since the epoch and null while unknown, durations are seconds, money is US dollars.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from vmrun.core.errors import VmrunError
from vmrun.core.outgrown import Outgrown
from vmrun.core.views import JobResults, JobView, OutputChunk, Plan, PoolView, TaskFailure, Verdict, VmView

#: Number of the format of all documents.
SCHEMA = 1
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(", ", ": "))
#: No value: what a task gave cannot be written as JSON.
_NOT_JSON = object()


def document(**fields: Any) -> dict[str, Any]:
    """A document of something that went well."""
    return {"schema": SCHEMA, "ok": True, **fields}


def failure(error: VmrunError, **fields: Any) -> dict[str, Any]:
    """A document of something that did not; `fields` are what there is beside the error."""
    told = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
    return {"schema": SCHEMA, "ok": False, "error": {**told, **error.data}, **fields}


def dumps(value: Any) -> str:
    """One line of ASCII, which every terminal, pipe and parser takes."""
    return _ENCODER.encode(value)


def _known(number: float | None) -> float | None:
    return number if number and math.isfinite(number) else None


def vm(view: VmView) -> dict[str, Any]:
    """One VM."""
    return {
        "id": view.id,
        "on": view.on,
        "instance_type": view.instance_type,
        "region": view.region,
        "state": view.state,
        "job": view.job or None,
        "busy_because": view.busy_because,
        "ends_at": _known(view.ends_at),
        "ends_because": view.ends_because,
        "usd_per_hour": view.usd_per_hour,
        "usd": view.usd,
        "created": _known(view.created),
        "vcpus": view.vcpus,
        "doing": view.doing,
        "pool": view.pool or None,
        "deadlines": [{"what": each.what, "at": each.at} for each in view.deadlines],
    }


def pool(view: PoolView) -> dict[str, Any]:
    """One pool."""
    return {
        "name": view.name,
        "state": view.state,
        "on": view.on or None,
        "size": view.size,
        "ready": view.ready,
        "busy": view.busy,
        "starting": view.starting,
        "vms": list(view.vms),
        "schedule": view.schedule or None,
        "until": _known(view.until),
        "ends_at": _known(view.ends_at),
        "begins_at": _known(view.begins_at),
    }


def job(view: JobView) -> dict[str, Any]:
    """One job."""
    shown: dict[str, Any] = {
        "id": view.id,
        "name": view.name,
        "state": view.state.value,
        "kind": view.kind,
        "tasks": {
            "total": view.tasks.total,
            "done": view.tasks.done,
            "failed": view.tasks.failed,
            "running": view.tasks.running,
        },
        "vms": [vm(each) for each in view.vms],
        "vms_asked": view.vms_asked,
        "vms_replaced": view.vms_replaced,
        "usd": view.usd,
        "created": _known(view.created),
        "ended": _known(view.ended),
        "lost": view.lost,
    }
    if view.keep_on_failure:
        shown["keep_on_failure"] = view.keep_on_failure
    if view.outgrown:
        shown["outgrown"] = [_outgrown(each) for each in view.outgrown]
    if view.error:
        shown |= {"error": view.error, "hint": view.hint, "error_code": view.error_code or None}
    return shown


def _outgrown(each: Outgrown) -> dict[str, Any]:
    return {
        "vm": each.vm,
        "memory_bytes": each.memory,
        "task": each.task,
        "peak_bytes": each.peak or None,
        "limit_bytes": each.limit,
        "message": each.message,
    }


def task_failure(failed: TaskFailure) -> dict[str, Any]:
    """Why one task failed."""
    return {
        "task": failed.task,
        "kind": failed.kind,
        "type": failed.type,
        "message": failed.message,
        "traceback": failed.traceback,
        "exit": failed.exit,
    }


def results(found: JobResults) -> dict[str, Any]:
    """What a job gave. A value that JSON cannot hold is null, and its task is listed in `unjsonable`."""
    values = [jsonable(value) for value in found.values]
    shown: dict[str, Any] = {
        "results": [None if value is _NOT_JSON else value for value in values],
        "errors": [task_failure(each) for each in found.failures],
        "outputs": list(found.files),
    }
    unjsonable = [task for task, value in enumerate(values) if value is _NOT_JSON]
    if found.has_reduced:
        reduced = jsonable(found.reduced)
        shown["reduced"] = None if reduced is _NOT_JSON else reduced
        if reduced is _NOT_JSON:
            shown["reduced_unjsonable"] = True
    if unjsonable:
        shown["unjsonable"] = unjsonable
        shown["note"] = "values that JSON cannot hold are null here; -o FILE.pkl saves every value"
    return shown


def jsonable(value: Any) -> Any:
    """`value` if JSON can hold it, else a mark that `results` knows."""
    try:
        # Through text and back: what only looks like a list or a dict must not be asked again while writing.
        return json.loads(json.dumps(value, allow_nan=False))
    except Exception:  # noqa: BLE001 -- the user's own classes answer here, and may raise anything
        return _NOT_JSON


def verdicts(judged: Iterable[Verdict]) -> list[dict[str, Any]]:
    """What the reaper thinks of each VM."""
    return [
        {"vm": each.vm, "on": each.on, "policy": each.policy, "delete": each.delete, "reason": each.reason}
        for each in judged
    ]


def plan(planned: Plan) -> dict[str, Any]:
    """What a submit would do."""
    return {
        "on": planned.on,
        "tasks": planned.tasks,
        "vms": planned.vms,
        "workers": planned.workers,
        "threads_per_task": planned.threads,
        "task_memory": planned.task_memory or None,
        "offers": planned.offers,
        "creates": list(planned.creates),
        "left_out": planned.left_out,
        "usd_per_hour": planned.usd_per_hour,
        "usd_at_most": planned.usd_at_most,
        "deadlines": dict(planned.deadlines),
        "warnings": list(planned.warnings),
        **({"memory_bytes": planned.memory or None, "memory_why": planned.memory_why} if planned.memory_why else {}),
    }


def output(chunk: OutputChunk, text: str) -> dict[str, Any]:
    """A piece of a task's output."""
    return {
        "task": chunk.task,
        "attempt": chunk.attempt,
        "stream": chunk.stream,
        "reduce": chunk.reduce,
        "text": text,
    }


def status(jobs: Sequence[JobView], vms: Sequence[VmView], pools: Sequence[PoolView] = ()) -> dict[str, Any]:
    """All jobs, VMs and pools."""
    return document(
        jobs=[job(each) for each in jobs], vms=[vm(each) for each in vms], pools=[pool(each) for each in pools]
    )
