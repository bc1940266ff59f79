"""`vmrun submit`: run a job and bring its results home, or leave it running."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.core.views import JobResults
from vmrun.registry import AUTO, provisioner_names
from vmrun.render import OutputClosed
from vmrun.rendering import documents, tables
from vmrun.submit.request import SubmitRequest

from . import finish
from .follow import follow
from .giving_back import then_give_back
from .options import Cpus, Disk, InstanceType, Json, OnDemand, Region, Spot, SpotWithFallback, Zone, market_of
from .patience import patience
from .request import Asked, build_request
from .session import Interrupted, Session, session_of

if TYPE_CHECKING:
    from vmrun.handle import JobHandle

EXAMPLES = (
    ("vmrun submit job.py", "a script, or the one `@vmrun.job` in it"),
    ("vmrun submit job.py::simulate --cpus 64", "one of several jobs in a file"),
    ("vmrun submit --on docker job.py -- --seed 7", "the script's own arguments"),
    ("vmrun submit --memory 500GB -- ./simulate -x", "a program of yours; it comes along"),
    ("vmrun submit --on ec2 --spot job.py", "a rented machine that costs less, and may be taken back"),
    ("vmrun submit --on ec2 --vms 4 job.py", "four machines that share the job's tasks"),
    ("vmrun submit --detach job.py", "return at once; prints the job's id"),
)
_WHERE = "local, docker, ssh, ec2, gce, ibm, or auto for the cheapest of the configured clouds. [default: local]"


def _completions(incomplete: str) -> list[str]:
    return [name for name in (*provisioner_names(), AUTO) if name.startswith(incomplete)]


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="job.py, or job.py::name; without it a program follows after --."),
    ] = None,
    *,
    on: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help=_WHERE, autocompletion=_completions),
    ] = None,
    cpus: Cpus = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that must be usable, as 512GB, or auto to find out.")
    ] = None,
    disk: Disk = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="x86_64, arm64, or any. [default: the program's, or this computer's]"),
    ] = None,
    instance_type: InstanceType = None,
    region: Region = None,
    zone: Zone = None,
    spot: Spot = False,
    on_demand: OnDemand = False,
    spot_with_fallback: SpotWithFallback = False,
    vms: Annotated[
        int | None, typer.Option(metavar="N", help="Machines that share a job over inputs, each as asked for above.")
    ] = None,
    replace_lost: Annotated[
        int | None, typer.Option(metavar="N", help="Get others for up to N machines that are lost. [default: 0]")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes. [default: one per core]")] = None,
    threads_per_task: Annotated[
        int | None, typer.Option(metavar="N", help="Cores for each task: fewer workers, with N threads each.")
    ] = None,
    task_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most that one task takes, as 8GB; only what fits runs.")
    ] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", metavar="PKG", help="A package that the job needs; repeatable.")
    ] = None,
    requirements: Annotated[
        str | None, typer.Option(metavar="FILE", help="A requirements file of packages that the job needs.")
    ] = None,
    python: Annotated[str | None, typer.Option(metavar="3.x", help="Python version of the job.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Environment variable of the tasks; repeatable.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="A new process for each task, with nothing of an earlier one in it.")
    ] = False,
    shared: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file that all tasks read, at $VMRUN_SHARED; one copy per VM.")
    ] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="Further attempts at a failed task.")] = None,
    task_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time for one attempt at a task, as 5m.")
    ] = None,
    max_lifetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="Hard limit to the machine's life, as 4h. [default: 24h]")
    ] = None,
    keep_warm: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep the machine for further jobs this long, as 10m.")
    ] = None,
    keep_on_failure: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep the machine this long when the job fails, for `vmrun ssh`.")
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(metavar="USD", help="Dollars that the job may cost, as 25; its machine keeps to it.")
    ] = None,
    allow_unknown_price: Annotated[
        bool,
        typer.Option(
            "--allow-unknown-price",
            help="With --max-cost or a budget: rent also where no price is known, unbounded by either.",
        ),
    ] = False,
    on_oom: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="A task that is out of memory fails (fail), or moves to a larger machine (grow)."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What the job is called in tables.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A second submit with the same key gives the same job.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Where the job's files go.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the job is submitted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and what it costs.")] = False,
    no_logs: Annotated[bool, typer.Option("--no-logs", help="Do not show what the tasks of many write.")] = False,
    json: Json = False,
) -> int:
    """Run JOB: a Python script, a job over inputs (@vmrun.job), or, after --, any program.

    Stays attached until the job has ended: progress and the output of tasks on stderr; the output of a script, a
    program or a reduce where they write it; the reduced value, or the first of the tasks' values, on stdout. Files
    that the job writes under $VMRUN_OUTPUT come home, below vmrun-output/ unless -o says otherwise.

    With a script go the local modules that it imports, and the files that `include` in its [tool.vmrun] header names;
    a program that is given by a relative path goes along too.

    Ctrl-C detaches; the job goes on. Exits with 0 when done, 6 when the job failed, 7 when its money was spent, 8 when
    it was cancelled.
    """
    del json  # the screen knows already
    session = session_of(ctx)
    options: dict[str, str | int | bool | None] = {
        "on": on,
        "cpus": cpus,
        "memory": memory,
        "disk": disk,
        "arch": arch,
        "instance_type": instance_type,
        "region": region,
        "zone": zone,
        "market": market_of(spot=spot, on_demand=on_demand, spot_with_fallback=spot_with_fallback),
        "vms": vms,
        "replace_lost": replace_lost,
        "workers": workers,
        "threads_per_task": threads_per_task,
        "task_memory": task_memory,
        "fresh": fresh or None,
        "python": python,
        "retries": retries,
        "task_timeout": task_timeout,
        "max_lifetime": max_lifetime,
        "keep_warm": keep_warm,
        "keep_on_failure": keep_on_failure,
        "max_cost": max_cost,
        "allow_unknown_price": allow_unknown_price or None,
        "on_oom": on_oom,
        "name": name,
        "idempotency_key": idempotency_key,
    }
    request = build_request(job, session.program, Asked(options, with_ or (), requirements, env or (), shared))
    _check_output(output, detach=detach)
    if dry_run:
        return _plan(session, request)
    if detach:
        return _leave(session, request)
    return _Attached(session, output, task_output=not no_logs).run(request)


def _check_output(output: str | None, *, detach: bool) -> None:
    if output is None:
        return
    if detach:
        raise UsageError(
            "-o and --detach do not go together", hint="fetch the files later with `vmrun result JOB -o DIR`"
        )
    if not output or "\0" in output or (os.path.exists(output) and not os.path.isdir(output)):
        raise UsageError(f"-o: {output[:200]!r} is not a directory", hint="name a directory; it is made if need be")


def _plan(session: Session, request: SubmitRequest) -> int:
    with patience(session, "reading the job") as step:
        plan = session.client.plan(request, step)
    if session.as_json:
        session.screen.document(documents.document(plan=documents.plan(plan)))
    else:
        session.screen.lines(tables.plan(plan, session.screen.style))
    return 0


def _leave(session: Session, request: SubmitRequest) -> int:
    progress = session.screen.progress()
    try:
        handle = session.client.submit(request, detach=True, on_stage=progress.stage, on_price=session.screen.note)
    finally:
        progress.close()
    if session.as_json:
        session.screen.document(documents.document(job=documents.job(handle.status())))
        return 0
    session.screen.lines([handle.id])
    session.screen.notes(ways_back(handle.id))
    return 0


def ways_back(job: str) -> list[str]:
    """How to meet a job again that nobody watches."""
    return [
        f"  come back   vmrun wait {job}",
        f"  output      vmrun logs -f {job}",
        f"  result      vmrun result {job}",
        f"  cancel      vmrun cancel {job}",
    ]


class _Attached:
    """One submit that stays until the job has ended, or until the person or the reader of stdout leaves."""

    def __init__(self, session: Session, output: str | None, *, task_output: bool) -> None:
        self._session = session
        self._screen = session.screen
        self._output = output
        self._task_output = task_output
        self._job = ""
        #: Whether it has ended, and is about to be told.
        self._over = False

    def run(self, request: SubmitRequest) -> int:
        """The exit code."""
        try:
            return self._run(request)
        except KeyboardInterrupt as interrupt:
            if self._job:
                self._session.client.leave(self._job)
            # A submission that was interrupted while it got its machine says which job it was, and was handed over.
            self._job = self._job or str(interrupt.args[0] if interrupt.args else "")
            return self._interrupted()
        except OutputClosed:
            if self._job:
                self._session.client.leave(self._job)
                self._screen.note(f"stdout was closed; job {self._job} goes on:")
                self._screen.notes(ways_back(self._job))
            raise

    def _run(self, request: SubmitRequest) -> int:
        progress = self._screen.progress()
        try:
            handle = self._session.client.submit(request, on_stage=progress.stage, on_price=self._screen.note)
            self._job = handle.id
            view = follow(handle, self._screen, progress, task_output=self._task_output)
        finally:
            progress.close()
        self._over = True
        return then_give_back(self._session, handle.id, lambda: finish.ended(self._screen, view, self._collect(handle)))

    def _collect(self, handle: JobHandle) -> JobResults:
        return handle.collect(self._output or finish.default_directory(handle.id))

    def _interrupted(self) -> int:
        if not self._job:
            raise Interrupted("interrupted before the job was submitted", hint="nothing runs")
        if self._over:
            raise Interrupted(
                f"interrupted; job {self._job} has ended, and its machine ends by itself",
                hint=f"`vmrun result {self._job}` has what it gave",
            )
        if self._screen.as_json:
            error = Interrupted(f"detached; job {self._job} goes on", hint=f"`vmrun wait {self._job}` comes back")
            self._screen.error(error, job={"id": self._job})
            return error.exit_code
        self._screen.note(f"\nDetached. Job {self._job} goes on without this terminal.")
        self._screen.notes(ways_back(self._job))
        return Interrupted.exit_code
