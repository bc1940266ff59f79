"""Tables of jobs, VMs, offers and verdicts as lines of text, for terminals of any width and for files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmrun.core.growth import verdict
from vmrun.core.units import format_size
from vmrun.core.views import JobView, Plan, TaskCounts, Verdict, VmView

from .text import Style, ago, count, ends, money, short_duration, shorten, visible, width_of

#: Offers that a plan shows.
OFFERS_SHOWN = 20
#: A column is not made narrower than this to fit a terminal.
NARROWEST = 8
_GAP = "  "
#: States of VMs that are no more, or about to be.
_ENDED, _ENDING = ("gone", "failed"), ("draining", "deleting")
_STATE_COLORS = {
    "running": "blue",
    "ready": "green",
    "done": "green",
    "failed": "red",
    "suspected": "red",
    "cancelled": "yellow",
    "provisioning": "yellow",
    "booting": "yellow",
    "held": "yellow",
    "draining": "yellow",
    "deleting": "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and whether its cells may be cut where the terminal is narrow."""

    title: str
    flexible: bool = False
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style) -> list[str]:
    """Aligned columns; where even cut ones do not fit, one cell per line. Columns that are all empty are left out."""
    used = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    columns, rows = [columns[at] for at in used], [[row[at] for at in used] for row in rows]
    widths = [max(width_of(column.title), *(width_of(row[at]) for row in rows)) for at, column in enumerate(columns)]
    if style.width and not _fit(columns, widths, style.width):
        return list(_stacked(columns, rows, style))
    lines = [style.paint(_line([column.title for column in columns], columns, widths, style), "bold")]
    return lines + [_line(row, columns, widths, style) for row in rows]


def _fit(columns: Sequence[Column], widths: list[int], room: int) -> bool:
    """Narrow the widest flexible columns, one by one, until the row fits; False if it cannot."""
    room -= len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        flexible = [at for at, column in enumerate(columns) if column.flexible and widths[at] > NARROWEST]
        if not flexible:
            return False
        widths[max(flexible, key=lambda at: widths[at])] -= 1
    return True


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int], style: Style) -> str:
    cells = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        text = shorten(cell, width, style)
        fill = " " * (width - width_of(text))
        text = style.paint(text, _STATE_COLORS.get(cell, "")) if column.title == "STATE" else text
        cells.append(fill + text if column.right else text + fill)
    return _GAP.join(cells).rstrip()


def _stacked(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        for cell, column in zip(row, columns, strict=True):
            if cell:
                color = _STATE_COLORS.get(cell, "") if column.title == "STATE" else ""
                yield f"{style.paint(column.title, 'bold')} {style.paint(cell, color)}"


# --- what they show ---

_JOBS = (
    Column("JOB"),
    Column("NAME", flexible=True),
    Column("STATE"),
    Column("TASKS", flexible=True),
    Column("COST", right=True),
    Column("CREATED"),
)
_VMS = (
    Column("VM"),
    Column("ON"),
    Column("TYPE", flexible=True),
    Column("REGION", flexible=True),
    Column("STATE"),
    Column("BUSY BECAUSE", flexible=True),
    Column("ENDS", flexible=True),
    Column("$/HOUR", right=True),
    Column("COST", right=True),
)
_OFFERS = (
    Column("ON"),
    Column("TYPE", flexible=True),
    Column("REGION", flexible=True),
    Column("ARCH"),
    Column("VCPUS", right=True),
    Column("MEMORY", right=True),
    Column("$/HOUR", right=True),
    Column("MARKET"),
    Column("NOT NOW", flexible=True),
)
_VERDICTS = (Column("VM"), Column("ON"), Column("VERDICT"), Column("POLICY"), Column("REASON", flexible=True))


def tasks_text(tasks: TaskCounts) -> str:
    """`120/200, 3 failed, 8 running`."""
    parts = [f"{tasks.done}/{tasks.total}"]
    parts += [f"{tasks.failed} failed"] if tasks.failed else []
    parts += [f"{tasks.running} running"] if tasks.running else []
    return ", ".join(parts)


def jobs(views: Sequence[JobView], now: float, style: Style) -> list[str]:
    """Jobs, one a row, in the order given."""
    rows = [
        (view.id, visible(view.name), view.state.value, tasks_text(view.tasks), money(view.usd), ago(view.created, now))
        for view in views
    ]
    return table(_JOBS, rows, style) if rows else []


def vms(views: Sequence[VmView], now: float, style: Style) -> list[str]:
    """VMs, one a row: why each counts as busy, and when it dies."""
    rows = [
        (
            visible(view.id),
            visible(view.on),
            visible(view.instance_type),
            visible(view.region),
            view.state,
            visible(view.busy_because),
            _ends(view, now),
            money(view.usd_per_hour, digits=4) if view.usd_per_hour != 0 else "free",
            money(view.usd) if view.usd else "",
        )
        for view in views
    ]
    return table(_VMS, rows, style) if rows else []


def _ends(view: VmView, now: float) -> str:
    if view.state in _ENDED:
        return ""
    if view.state in _ENDING:
        return "now"
    return ends(view.ends_at, visible(view.ends_because), now)


def status(job_views: Sequence[JobView], vm_views: Sequence[VmView], now: float, style: Style) -> list[str]:
    """All jobs and VMs."""
    lines = jobs(job_views, now, style) or ["No jobs yet. `vmrun submit job.py` runs one."]
    lines += ["", *(vms(vm_views, now, style) or ["No VMs."])]
    return lines + meter(vm_views)


def meter(views: Sequence[VmView]) -> list[str]:
    """What all VMs together cost an hour, and have cost: a line if they cost anything, or may."""
    there = [view for view in views if view.state not in _ENDED]
    rate = sum(view.usd_per_hour or 0.0 for view in there)
    unknown = sum(view.usd_per_hour is None for view in there)
    if not rate and not unknown:
        return []
    spent = money(sum(view.usd for view in there))
    told = f"{count(len(there), 'VM')}: {money(rate, digits=4)} an hour, {spent} so far"
    return ["", told + (f", and {unknown} at a price that is not known" if unknown else "")]


def job(view: JobView, now: float, style: Style) -> list[str]:
    """One job with all that is known of it."""
    facts = [
        ("job", view.id),
        ("name", visible(view.name)),
        ("state", style.paint(view.state.value, _STATE_COLORS.get(view.state.value, ""))),
        ("tasks", tasks_text(view.tasks) + (" (the reduce is one of them)" if view.reduce else "")),
        ("vms", _serving(view)),
        ("created", ago(view.created, now)),
        ("ended", f"{ago(view.ended, now)}, after {short_duration(view.ended - view.created)}" if view.ended else ""),
        ("cost", money(view.usd)),
        ("waiting", f"its machine is lost; `vmrun wait {view.id}` gets it another one" if view.lost else ""),
        *(("outgrew", visible(f"{each.vm}: {verdict(each)}")) for each in view.outgrown),
        ("next", f"`vmrun wait {view.id}` gets it a larger machine" if view.wants_larger else ""),
        ("error", visible(view.error)),
        ("hint", visible(view.hint)),
    ]
    lines = [f"{what:<8} {fact}" for what, fact in facts if fact]
    table_of_vms = vms(view.vms, now, style)
    return [*lines, "", *table_of_vms, *meter(view.vms)] if table_of_vms else lines


def _serving(view: JobView) -> str:
    """How many of several VMs there are; "" for a job of one, and for one that ended."""
    if view.vms_asked <= 1 or view.ended:
        return ""
    there = sum(1 for vm in view.vms if vm.state not in (*_ENDED, *_ENDING))
    replaced = f", {view.vms_replaced} lost and replaced" if view.vms_replaced else ""
    return f"{there} of {view.vms_asked}{replaced}"


def plan(planned: Plan, style: Style) -> list[str]:
    """What a submit would do, the offers ranked by price."""
    workers = f" with {_crew(planned)}" if planned.workers else ""
    machines = f"{count(planned.vms, 'VM')} of " if planned.vms > 1 else ""
    lines = [f"Would run {count(planned.tasks, 'task')} on {machines}{visible(planned.on)}{workers}."]
    if planned.usd_per_hour is not None:
        most = f", at most {money(planned.usd_at_most)}" if planned.usd_at_most is not None else ""
        price = f"cost {money(planned.usd_per_hour, digits=4)} an hour{most}" if planned.usd_per_hour else "be free"
        lines.append(f"It would {price}.")
    lines += [f"memory: {visible(planned.memory_why)}"] if planned.memory_why else []
    lines += [f"{visible(what)}: {short_duration(seconds)}" for what, seconds in planned.deadlines]
    lines += ["", "It would make:", *(f"  {visible(made)}" for made in planned.creates)] if planned.creates else []
    if planned.offers:
        lines += ["", *table(_OFFERS, [_offer(offer) for offer in planned.offers[:OFFERS_SHOWN]], style)]
    if (more := len(planned.offers) - OFFERS_SHOWN) > 0:
        lines.append(f"and {count(more, 'offer')} more, which --json lists")
    lines += [style.paint(f"warning: {visible(each)}", "yellow") for each in planned.warnings]
    return lines + [f"{visible(each['on'])} is left out: {visible(each['message'])}" for each in planned.left_out]


def _crew(planned: Plan) -> str:
    parts = [f"{count(planned.threads, 'thread')} each"] if planned.threads else []
    parts += [f"at most {format_size(planned.task_memory)} each"] if planned.task_memory else []
    return ", ".join([count(planned.workers, "worker"), *parts])


def _offer(offer: dict[str, object]) -> tuple[str, ...]:
    memory = offer.get("memory_gib")
    price = offer.get("usd_per_hour")
    return (
        *(visible(str(offer.get(key) or "")) for key in ("on", "instance_type")),
        visible(str(offer.get("zone") or offer.get("region") or "")),
        *(visible(str(offer.get(key) or "")) for key in ("arch", "vcpus")),
        format_size(memory * 2**30) if isinstance(memory, int | float) else "",
        "free" if price == 0 else money(float(price) if isinstance(price, int | float) else None, digits=4),
        "spot" if offer.get("spot") else "",
        visible(f"skipped: {offer['skipped']}") if offer.get("skipped") else "",
    )


def verdicts(judged: Sequence[Verdict], style: Style, *, dry_run: bool) -> list[str]:
    """What the reaper thinks of each VM, and why."""
    delete = "would delete" if dry_run else "deleted"
    kept = {"vanished": "gone"}
    rows = [
        (
            visible(each.vm),
            visible(each.on),
            delete if each.delete else kept.get(each.policy, "keep"),
            visible(each.policy),
            visible(each.reason),
        )
        for each in judged
    ]
    return table(_VERDICTS, rows, style) if rows else ["No VMs: nothing to reap."]
