"""How workers come to be: forked from the runner, or from the template that holds what the job shares."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable

from vmrun.core.blocks import Status, failure

from . import failures
from .guard import Place
from .home_core import home_core
from .outcomes import Outcomes
from .processes import children, descendants, kill
from .slots import RunnerConfig, Slot, spawn
from .template import Template
from .verdicts import LOSSES_MAX, Death, verdict

#: Workers in a row that may end before they are up; and when somebody kills them, which need not go on for ever.
STARTS_MAX, STARTS_KILLED_MAX = 3, 20
#: Seconds between attempts to fork after a failure.
_FORK_AGAIN = 0.5

#: Has the loop listen to a socket for events (0: no more), which are a slot's unless it is None.
Watch = Callable[[socket.socket, int, Slot | None], None]


class Hiring:
    """The workers that there are, and what makes more of them.

    `slots` has them by process number; one that the template was asked for is there under a negative number until it
    is born.
    """

    def __init__(self, config: RunnerConfig, outcomes: Outcomes, watch: Watch, limits: tuple[int, int]) -> None:
        self._config = config
        self._outcomes = outcomes
        self._watch = watch
        self._limits = limits
        self.slots: dict[int, Slot] = {}
        #: Why there will never be a worker; "" as long as there may be.
        self.fatal = ""
        self._serial = 0
        self._starts_failed = 0
        self._fork_after = 0.0
        #: Holds the shared object; None for a job without one, and when workers load it themselves.
        self._template: Template | None = None
        self._templates_lost = 0
        #: Processes that came to this one while the object was loaded.
        self._daemons: set[int] = set()
        #: Why no task can be started.
        self._refusal: tuple[Status, bytes] | None = None

    def begin(self) -> None:
        """Have the first worker, or the template, ready before there is work."""
        if self._config.shared:
            self._make_template()
        elif self.hire() is None:
            self.fatal = self.fatal or "cannot fork"

    @property
    def live(self) -> list[Slot]:
        """The workers that have been born."""
        return [slot for slot in self.slots.values() if slot.pid > 0]

    def hire(self) -> Slot | None:
        """One more worker, unless there are enough, or it cannot be had now."""
        if len(self.slots) >= self._config.workers or self.fatal or time.monotonic() < self._fork_after:
            return None
        template = self._template
        if template is not None and not template.ready:
            return None
        taken = {slot.place.slot for slot in self.slots.values()}
        place = self._place(next(at for at in range(self._config.workers) if at not in taken))
        try:
            slot = spawn(self._config, place, self._limits) if template is None else template.spawn(place)
        except OSError as error:
            self.failed(f"cannot make a worker process: {error}")
            return None
        if slot is not None:
            self.slots[slot.pid] = slot
        return slot

    def _place(self, number: int) -> Place:
        """Where the next process works, as worker `number`."""
        self._serial += 1
        config, cores = self._config, os.sched_getaffinity(0)
        return Place(
            job=config.job,
            slot=number,
            serial=self._serial,
            directory=config.directory,
            code_path=config.code_path,
            threads=config.threads or max(1, len(cores) // config.workers),
            threads_asked=config.threads_asked,
            fresh=config.fresh,
            memory=config.memory,
            core=home_core(number, config.workers, cores),
        )

    def up(self, slot: Slot) -> None:
        """A worker says that it is there."""
        slot.ready = True
        self._starts_failed = 0

    def failed(self, reason: str, *, killed: bool = False) -> None:
        """A worker could not be made, or ended (`killed`: by SIGKILL) before it was up."""
        self._fork_after = time.monotonic() + _FORK_AGAIN
        self._starts_failed += 1
        limit = STARTS_KILLED_MAX if killed else STARTS_MAX
        if self._starts_failed >= limit and not any(slot.ready for slot in self.slots.values()):
            self.fatal = f"workers do not start: {reason}"

    def refuse(self) -> None:
        """Fail all tasks that wait, if none can be started."""
        if self._refusal is not None:
            for work in self._outcomes.queue.take_all():
                self._outcomes.refused(work, *self._refusal)

    def end_orphans(self) -> None:
        """End what is left of workers that ended: it is below this process now.

        What workers start is below them, as long as they live.
        """
        below = children(os.getpid())
        # Whoever is here now was born, and the template has said so before.
        self.listen()
        spared = {*self.slots, *self._daemons}
        if self._template is not None:
            spared.add(self._template.pid)
        for child in below:
            if child not in spared:
                kill((child, *descendants(child)))

    # --- the template ---

    def _make_template(self) -> None:
        try:
            self._template = Template(self._config, self._place(-1), self._limits)
        except OSError as error:
            self.fatal = f"cannot make a process for the shared data: {error}"
        else:
            self._watch(self._template.channel, selectors.EVENT_READ, None)

    def listen(self) -> None:
        """Take in what the template has said, if there is one: who was born, or what went wrong."""
        template = self._template
        if template is None:
            return
        was_ready = template.ready
        news = template.news()
        if template.ready and not was_ready:
            # What loading has left running serves all tasks, as what modules start when they are imported.
            self._daemons = {*children(os.getpid())} - {template.pid, *self.slots}
        for slot in news.born:
            del self.slots[-slot.place.serial]
            self.slots[slot.pid] = slot
            if slot.killed:
                slot.signal(signal.SIGKILL)
        for slot, reason in news.unborn:
            self._bury(slot)
            self.failed(reason)
        if news.threads:
            sys.stderr.write(f"loading the shared data left {news.threads} threads: each worker loads it for itself\n")
            self._drop_template(template)
        elif news.failure is not None:
            self._refusal = news.failure
        elif news.broken:
            message = "what loading the shared data left running wrote to vmrun's own descriptors"
            self._refusal = Status.lost, failure(Status.lost, message)
            template.kill()

    def is_template(self, pid: int) -> bool:
        """Whether that process is the template."""
        return self._template is not None and self._template.pid == pid

    def template_ended(self, death: Death, *, ending: bool) -> None:
        """It is tried again where nobody knows that the load is to blame, and not for ever."""
        template = self._template
        assert template is not None
        was_ready, last = template.ready, template.last_words()
        self._drop_template(template)
        if ending or self._refusal is not None:
            return
        self._templates_lost += 1
        lost = was_ready or (death.code == -signal.SIGKILL and not death.out_of_memory)
        if lost and self._templates_lost <= LOSSES_MAX:
            self._make_template()
            return
        status, document = verdict(death, last)
        self._refusal = status, failures.prefixed(document, "the process that loads the shared data: ")

    def _drop_template(self, template: Template) -> None:
        self._watch(template.channel, 0, None)
        self._template = None
        for slot in template.close():
            self._bury(slot)

    def _bury(self, slot: Slot) -> None:
        """A worker that will never come: what it was given waits for another."""
        slot.alive = False
        self._outcomes.unborn(slot)
        del self.slots[slot.pid]
        self._watch(slot.channel, 0, None)
        slot.close()
