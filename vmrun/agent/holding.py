"""Keeping a VM for debugging after its job failed there: for how long, and what is laid out for whoever comes.

Decided on the machine, so that it holds with the client gone. The lease is written for the hold's end from then on, and
the journal says it: the dead-man timer and the reaper end the machine in time if the agent does not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from vmrun.core.blocks import Status, TaskBlock, read_failure
from vmrun.core.errors import VmrunError
from vmrun.core.ids import is_id
from vmrun.core.ledger import JobLedger
from vmrun.core.model import FunctionSpec, JobSpec, ShardPlan
from vmrun.core.outcomes import OutcomeReader, in_order
from vmrun.core.records import Final, Hold

from .inputs import ArgumentReader, decode_tasks, fetch, without_arguments
from .runner.launch import remove
from .way_in import BIN, WELCOME, WayIn, read_way_in
from .workshop import Workshop

log = logging.getLogger(__name__)

#: What ends a hold that nothing else ends before.
BOUND = "hold on failure"
#: Failed tasks whose arguments and tracebacks are laid out, and bytes of one argument that still are.
TASKS_MAX, ARGUMENT_MAX = 20, 64 * 1024 * 1024
#: Below a job's directory: a directory for each failed task. The program that runs one of them again.
FAILED, AGAIN = "failed", "vmrun-again"
#: In the directory of all jobs: names the one that an agent which starts again must not remove.
_MARK = "held"


def begin(shop: Workshop, job: str, jobs: int) -> bool:
    """Keep this VM, which has had `jobs` jobs of which `job` just failed, as long as that job asked for.

    False when somebody has given it another job meanwhile, nothing is left of its time, or another VM of the job is to
    stay: then the files go. A store that does not answer raises StoreUnavailable, and may be asked again.
    """
    ledger = JobLedger(shop.desk, job)
    fold = ledger.refresh()
    assert fold.final is not None
    directory = os.path.join(shop.config.work_dir, job)
    now, (last, because) = shop.desk.clock.now(), shop.pulse.ends_at()
    until = now + fold.spec.keep_on_failure
    hold = Hold(job, min(until, last), _why(job, fold.final), BOUND if until <= last else because)
    _note(shop.config.work_dir, job)
    if hold.until <= now or _left_to_another(shop, ledger) or not shop.pulse.hold(hold, jobs):
        log.info("event=not-held job=%s left=%.0f", job, hold.until - now)
        _note(shop.config.work_dir, "")
        remove(directory)
        return False
    shop.pulse.sign(**signs(hold))
    log.info("event=held job=%s seconds=%.0f bound=%s", job, hold.until - now, hold.bound)
    try:
        _lay_out(shop, job, hold, fold.final)
    except (VmrunError, OSError) as error:
        # The machine stays all the same; a person finds less there.
        log.error("event=not-laid-out job=%s error=%s", job, error)
    return True


def _left_to_another(shop: Workshop, ledger: JobLedger) -> bool:
    """Whether another VM of the job is the one to stay: one is enough, as it has the failed tasks of all.

    Each of them decides so by the same journals: it is the first by name, of those that hold shards with failed tasks
    and have not ended. Raises StoreError.
    """
    if ledger.fold.spec.vms == 1:
        return False
    shards = (ledger.shard(plan).catch_up() for plan in ledger.fold.shards())
    owners = {shard.owner for shard in shards if shard.failed}
    mine = shop.config.vm
    return mine in owners and any(vm < mine and shop.owners.stays(vm) for vm in owners if vm)


def signs(hold: Hold) -> dict[str, object]:
    """Fields of the heartbeat of a VM that is held."""
    return {
        "job": hold.job,
        "busy": f"held for debugging: {hold.why}",
        "doing": "",
        "running": 0,
        "queued": 0,
        "ends_at": round(hold.until),
        "ends_because": hold.bound,
    }


def over(hold: Hold, now: float) -> str:
    """Why the VM is not held any longer; "" if it is."""
    return "" if now < hold.until else f"it was held for debugging until its time was over ({hold.bound})"


def held_job(work_dir: str) -> str:
    """The job whose files an earlier run of the agent kept for debugging; "" if there is none."""
    try:
        job = Path(work_dir, _MARK).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return job if is_id(job) else ""


def _note(work_dir: str, job: str) -> None:
    """Keep for the next run of the agent which job's files are to stay; "" for none's."""
    path = Path(work_dir, _MARK)
    if job:
        path.write_text(f"{job}\n", "ascii")
    else:
        path.unlink(missing_ok=True)


def _why(job: str, final: Final) -> str:
    if final.failed:
        return f"{final.failed} task{'' if final.failed == 1 else 's'} of job {job} failed"
    return f"job {job} failed: {final.error[:200]}"


# --- what lies there ---


def _lay_out(shop: Workshop, job: str, hold: Hold, final: Final) -> None:
    """Put down the failed tasks, the program that runs one again, and what a person is told."""
    way = read_way_in(shop.config.work_dir, job)
    ledger = JobLedger(shop.desk, job)
    spec = ledger.refresh().spec
    tasks: list[int] = []
    for plan, task, failure in _failures(shop, ledger):
        if len(tasks) == TASKS_MAX:
            break
        folder = Path(way.directory, FAILED, str(task))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(_told(task, failure), "utf-8", errors="replace")
        _write_call(shop, ledger, way, plan, task, folder)
        tasks.append(task)
    if tasks:
        _write_program(way)
    if shop.config.job_user:
        _give(os.path.join(way.directory, FAILED), shop.config.job_user)
    text = "\n".join(_welcome(shop, way, spec, hold, final, tasks))
    Path(way.directory, WELCOME).write_text(f"{text}\n", "utf-8", errors="replace")


def _failures(shop: Workshop, ledger: JobLedger) -> Iterator[tuple[ShardPlan, int, dict[str, object]]]:
    """Each task that failed for good, its shard, and the document that tells how."""
    for plan in ledger.fold.shards():
        shard = ledger.shard(plan)
        shard.catch_up()
        reader = OutcomeReader(shop.blobs, ledger.job, shard.prefix)
        for extent in in_order(shard.fold):
            if not extent.failed:
                continue
            for task, status, payload in reader.settled(extent).items():
                if status is not Status.ok:
                    yield plan, task, read_failure(payload)


def _told(task: int, failure: dict[str, object]) -> str:
    kind, name, message = (str(failure.get(key, "")) for key in ("kind", "type", "message"))
    return f"task {task}: {kind}: {name}{': ' if name else ''}{message}\n\n{failure.get('traceback', '')}\n"


def _write_call(shop: Workshop, ledger: JobLedger, way: WayIn, plan: ShardPlan, task: int, folder: Path) -> None:
    """What it takes to call the task again: `call.json`, the argument, and a function that is no file's."""
    spec = ledger.fold.spec
    function = plan.function or spec.function
    assert function is not None
    call: dict[str, object] = {
        "task": task,
        "kind": function.kind,
        "role": "reduce" if plan.reduce else "map",
        "python": spec.python,
        "code": way.code,
        "path": os.path.join(way.code, function.path) if function.path else "",
        "name": function.name,
        "argv": _argv(function, way),
    }
    if function.payload is not None:
        (folder / "function.pickle").write_bytes(fetch(shop.blobs, function.payload, "function"))
    if plan.reduce:
        call["mode"] = "results"
        (folder / "argument").write_text(os.path.join(way.directory, "results"))
    elif function.kind != "command":
        block = _argument(shop, ledger, plan, task)
        call["mode"], call["python"] = block.call, block.python
        _, payload = next(block.items())
        if len(payload) <= ARGUMENT_MAX:
            (folder / "argument").write_bytes(payload)
    (folder / "call.json").write_text(json.dumps(call), "utf-8")


def _argument(shop: Workshop, ledger: JobLedger, plan: ShardPlan, task: int) -> TaskBlock:
    spec = ledger.fold.spec
    if plan.entry >= 0:
        return decode_tasks(ledger.attachment(plan.entry)).slice(task, 1)
    if spec.arguments is None:
        return next(without_arguments(task, task + 1))
    return next(ArgumentReader(shop.blobs, spec.arguments).blocks(task, task + 1))


def _argv(function: FunctionSpec, way: WayIn) -> list[str]:
    words = [f"{way.code}/{word[7:]}" if word.startswith("{code}/") else word for word in function.argv]
    return [way.python, *words[1:]] if words[:1] == ["{python}"] else words


def _write_program(way: WayIn) -> None:
    """`vmrun-again TASK`, in the directory that is in a session's PATH."""
    path = Path(way.directory, BIN, AGAIN)
    path.parent.mkdir(exist_ok=True)
    words = [way.python, "-s", "-m", "vmrun.agent.runner.again", os.path.join(way.directory, FAILED)]
    path.write_text(f'#!/bin/sh\n# Runs one failed task again.\nexec {shlex.join(words)} "$@"\n', "utf-8")
    path.chmod(0o755)


def _give(directory: str, user: str) -> None:
    """Let the job's user read what lies there, as it could when it ran."""
    entry = pwd.getpwnam(user)
    for folder, _, files in os.walk(directory):
        for name in ("", *files):
            with contextlib.suppress(FileNotFoundError):
                os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _welcome(shop: Workshop, way: WayIn, spec: JobSpec, hold: Hold, final: Final, tasks: list[int]) -> Iterator[str]:
    """What a person reads who enters."""
    counts = f"{final.failed} of {final.done + final.failed} tasks" if final.failed else ""
    yield f"Job {hold.job} ({_printable(spec.name)}) failed here: {_printable(final.error) or counts}"
    until = datetime.fromtimestamp(hold.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    price = shop.pulse.usd_per_hour()
    cost = f", at ${price:.4f} an hour" if price else ""
    yield f"This machine stays until {until} ({hold.bound}){cost}; then it ends by itself."
    yield f"  the job's files  {way.place} (you are here)"
    if tasks:
        failed = os.path.relpath(os.path.join(way.directory, FAILED), way.place)
        yield f"  failed tasks     {', '.join(map(str, tasks))}: `cat {failed}/{tasks[0]}/traceback.txt`"
        yield f"  run one again    `{AGAIN} {tasks[0]}`, in the debugger `{AGAIN} --pdb {tasks[0]}`"
    yield f"  end it early     `vmrun release {shop.config.vm}`, on your own computer"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
