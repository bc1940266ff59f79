"""A running submission as text: what is being waited for, the VMs, how far the tasks are, how long they take."""

from __future__ import annotations

from collections.abc import Iterator

from vmrun.core.units import format_duration
from vmrun.core.views import JobView, Snapshot, VmView

from .pace import Pace
from .text import Style, count, money, shorten, visible, width_of

#: Seconds between plain lines while only numbers change, and at least between any two.
EVERY, APART = 5.0, 0.5
#: Seconds after which a plain line comes even if nothing changed: a quiet log looks like a hung one.
QUIET_MAX = 60.0
#: VMs that are shown with a line each.
VMS_MAX = 4
#: Columns; a terminal that claims to have fewer is drawn on as if it had these.
NARROWEST = 20
#: Columns of the bar: as many of these as the line has room for.
BAR_LEAST, BAR_MOST = 10, 24
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"


class Progress:
    """What is known of one submission, told by stages before the job is watched and by snapshots after."""

    def __init__(self, started: float) -> None:
        #: Monotonic seconds.
        self._started = started
        self._stage = "submitting"
        self._job: JobView | None = None
        self._pace = Pace()

    def stage(self, text: str) -> None:
        """What the submission is doing now."""
        self._stage = text

    def see(self, snapshot: Snapshot, now: float) -> None:
        """The job as it is at `now`."""
        self._job = snapshot.job
        self._stage = snapshot.waiting_for
        tasks = snapshot.job.tasks
        finished = tasks.done + tasks.failed
        # The time in which the machine came up says nothing of how fast tasks are.
        if finished or tasks.running:
            self._pace.see(finished, now)

    @property
    def state(self) -> tuple[object, ...]:
        """Changes when something happened that is more than a number."""
        job = self._job
        vms = () if job is None else tuple((vm.id, vm.state) for vm in job.vms)
        # "building the image 40%" is the same thing as 41%.
        words = "".join(character for character in self._stage if not character.isdigit())
        return words, None if job is None else job.state, vms

    @property
    def numbers(self) -> tuple[object, ...]:
        """Changes when a number did."""
        return self._stage, None if self._job is None else self._job.tasks

    def line(self, now: float, style: Style) -> str:
        """Everything on one line."""
        return style.dot.join([format_duration(now - self._started), *self._parts()])

    def lines(self, now: float, style: Style) -> list[str]:
        """A few lines that fit the terminal: they are drawn over the ones before."""
        spinner = _SPINNER if style.unicode else _ASCII_SPINNER
        turn = spinner[int((now - self._started) * 8) % len(spinner)]
        width = max(style.width - 1, NARROWEST)
        # The time first: what is long may be cut.
        head = style.dot.join([f"{turn} {format_duration(now - self._started)}", visible(self._stage) or "working"])
        lines = [head, *self._vm_lines(style)]
        tasks = self._tasks()
        if tasks:
            room = width - width_of(style.dot.join(tasks)) - 1
            bar = self._bar(style, min(max(room, BAR_LEAST), BAR_MOST))
            lines += _filled([f"{bar} {tasks[0]}", *tasks[1:]], width, style)
        return [shorten(line, width, style) for line in lines]

    def _parts(self) -> Iterator[str]:
        if self._stage:
            yield visible(self._stage)
        if self._job is not None:
            for vm in self._job.vms[:VMS_MAX]:
                yield f"{visible(vm.id)} {vm.state}"
            if len(self._job.vms) > VMS_MAX:
                yield f"and {len(self._job.vms) - VMS_MAX} more VMs"
        yield from self._tasks()

    def _vm_lines(self, style: Style) -> Iterator[str]:
        vms = self._job.vms if self._job is not None else ()
        for vm in vms[:VMS_MAX]:
            yield f"  {style.dot.join(_vm_parts(vm, self._stage))}"
        if len(vms) > VMS_MAX:
            yield f"  and {len(vms) - VMS_MAX} more VMs"

    def _tasks(self) -> list[str]:
        if self._job is None or not self._job.tasks.total:
            return []
        tasks = self._job.tasks
        parts = [f"{tasks.done:,}/{tasks.total:,} tasks done"]
        parts += [f"{tasks.failed:,} failed"] if tasks.failed else []
        parts += [f"{tasks.running:,} running"] if tasks.running else []
        if self._pace.rate and tasks.total > 1:
            left = self._pace.remaining(tasks.total - tasks.done - tasks.failed)
            parts.append(f"{self._pace.rate:.3g}/s" if self._pace.rate < 1000 else f"{self._pace.rate:,.0f}/s")
            parts += [f"{format_duration(left)} left"] if left else []
        return parts

    def _bar(self, style: Style, width: int) -> str:
        assert self._job is not None
        tasks = self._job.tasks
        full = min(width * (tasks.done + tasks.failed) // tasks.total, width)
        done, left = ("█", "░") if style.unicode else ("#", ".")
        return f"{done * full}{left * (width - full)}"


def _vm_parts(vm: VmView, stage: str) -> Iterator[str]:
    """What is known of a VM, the most telling first; what it does, unless the stage says that already."""
    kinds = dict.fromkeys(part for part in (visible(vm.on), visible(vm.instance_type)) if part)
    yield " ".join([*kinds, vm.state])
    if vm.vcpus:
        yield count(vm.vcpus, "vCPU")
    if vm.usd:
        yield money(vm.usd)
    if vm.doing and vm.doing != stage:
        yield visible(vm.doing)
    yield visible(vm.id)


def _filled(parts: list[str], width: int, style: Style) -> Iterator[str]:
    """The parts on as few lines as they fit on, in order."""
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line}{style.dot}{part}"
        if width_of(longer) > width:
            yield line
            longer = f"  {part}"
        line = longer
    yield line


class LinePacer:
    """When a plain line is due: at once when something happened, else every few seconds while numbers change."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._state: tuple[object, ...] = ()
        self._numbers: tuple[object, ...] = ()

    def due(self, progress: Progress, now: float) -> bool:
        """Whether to write a line now; if so, it counts as written."""
        passed = now - self._last
        due = (
            (progress.state != self._state and passed >= APART)
            or (progress.numbers != self._numbers and passed >= EVERY)
            or passed >= QUIET_MAX
        )
        if due:
            self._last, self._state, self._numbers = now, progress.state, progress.numbers
        return due
