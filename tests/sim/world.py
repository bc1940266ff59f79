"""A world in one thread: machines with clocks of their own, processes that run until they wait, virtual time.

Every wait is a point where a process can be resumed late (a pause), or never (a crash). Which, is drawn from the
seed, so that a seed is a history.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet

#: Seconds since the epoch at the beginning of every history.
EPOCH = 1_700_000_000.0


class Violation(AssertionError):
    """The protocol did what it must never do."""


class Machine:
    """Something that runs processes, and is paused or lost as a whole."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        world.machines.append(self)
        rng = world.rng
        #: What its wall clock is wrong by, in seconds, and how fast its clocks run.
        self.offset = rng.choice((0.0, 0.0, rng.uniform(-43200.0, 43200.0)))
        self.rate = rng.choice((1.0, 1.0, rng.uniform(0.9, 1.1)))
        self.paused_until = 0.0
        self.dead = False
        #: Until when no request of it is answered.
        self.cut_off_until = 0.0
        #: Waits so far, and at which of them what happens (`crash`, `restart`, `pause`, `partition`).
        self.steps = 0
        self.plan: dict[int, tuple[str, float]] = {}
        #: What to do when its processes were lost, but not the machine.
        self.on_restart: Callable[[], None] | None = None
        self.processes: list[Process] = []
        #: The shard that it works on.
        self.holds = ""

    def pause(self, seconds: float) -> None:
        """Nothing on it runs for so long; its clocks go on, as do those of a laptop that sleeps."""
        self.paused_until = self.world.now + seconds
        self.world.log(f"pause {self.name} {seconds:.0f}")
        self.world.note("pause")

    def lose(self) -> None:
        """No process of it ever runs again, and it starts no further ones."""
        self.dead = True
        self.lose_processes()

    def lose_processes(self) -> None:
        """What runs on it now never runs again."""
        for process in self.processes:
            process.lost = True
        self.processes.clear()


class Process:
    """One line of execution, and what production code wants of its surroundings: it is a `Clock`."""

    def __init__(self, machine: Machine, name: str, run: Callable[[Process], None]) -> None:
        self.world = machine.world
        self.machine = machine
        self.name = name
        self.lost = False
        self.rng = random.Random(self.world.rng.getrandbits(32))
        #: (key, bytes) of the create that it sent last.
        self.last_create: tuple[str, bytes] = ("", b"")
        self.thread = greenlet(lambda: run(self), parent=self.world.main)
        machine.processes.append(self)

    # The clock of its machine.

    def now(self) -> float:
        return EPOCH + self.machine.offset + self.world.now * self.machine.rate

    def monotonic(self) -> float:
        return 1000.0 + self.world.now * self.machine.rate

    def sleep(self, seconds: float) -> None:
        self.world.wait(max(0.0, seconds) / self.machine.rate)

    def stall(self) -> None:
        """Between a judgement and the act: nothing as a rule, and now and then long enough to be overtaken."""
        knobs = self.world.stall
        if self.world.faulty and knobs and self.rng.random() < knobs:
            self.world.wait(self.rng.uniform(0.0, self.rng.choice((1.0, 30.0, 120.0))))


class World:
    """Time, who is next, what was seen."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.main = getcurrent()
        self.current: Process | None = None
        #: Whether anything still goes wrong.
        self.faulty = True
        #: Probability of a stall where one is possible.
        self.stall = 0.0
        self.seen: Counter[str] = Counter()
        self.digest = 0
        self.events = 0
        self.machines: list[Machine] = []
        self._trace = trace
        self._queue: list[tuple[float, float, int, Process | Callable[[], None]]] = []
        self._order = 0
        self._closing = False
        self._all: list[Process] = []
        self.failure: BaseException | None = None

    def note(self, what: str) -> None:
        """A state that must be reached now and then."""
        self.seen[what] += 1

    def log(self, what: str) -> None:
        """An event: part of the history's hash, and shown when the seed is replayed."""
        self.events += 1
        who = self.current.name if self.current else "-"
        line = f"{self.now:.3f} {who} {what}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self._trace is not None:
            self._trace(line)

    def spawn(self, machine: Machine, name: str, run: Callable[[Process], None], delay: float = 0.0) -> None:
        """Start a process, unless its machine is lost by then."""

        def start() -> None:
            if not machine.dead:
                process = Process(machine, name, run)
                self._all.append(process)
                self._push(0.0, process)

        self.after(delay, start)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later that nobody's loss prevents."""
        self._push(seconds, act)

    def _push(self, seconds: float, what: Process | Callable[[], None]) -> None:
        self._order += 1
        # Among things due at the same time, chance decides who is first.
        heapq.heappush(self._queue, (self.now + seconds, self.rng.random(), self._order, what))

    def wait(self, seconds: float) -> None:
        """Let time pass for the current process; it may never come back."""
        if self._closing:
            raise GreenletExit
        process = self.current
        assert process is not None
        machine = process.machine
        machine.steps += 1
        if machine.plan and machine.steps in machine.plan:
            self._strike(machine, *machine.plan.pop(machine.steps))
        if not process.lost:
            self._push(seconds, process)
        self.main.switch()

    def _strike(self, machine: Machine, what: str, seconds: float) -> None:
        if not self.faulty:
            return
        if what == "pause":
            machine.pause(seconds)
            return
        self.log(f"{what} {machine.name} {seconds:.0f}")
        self.note(what)
        if what != "partition" and machine.holds:
            self.note("crash between claim and commit")
            machine.holds = ""
        if what == "crash":
            machine.lose()
        elif what == "restart":
            machine.lose_processes()
            if machine.on_restart is not None:
                self.after(seconds, machine.on_restart)
        else:
            machine.cut_off_until = self.now + seconds

    def run(self, until: float, done: Callable[[], bool]) -> bool:
        """Let the world go on until `done`, or the time is over; whether it is done. Raises what a process raised."""
        while self._queue:
            time, _, _, what = heapq.heappop(self._queue)
            if time > until:
                self._push(time - self.now, what)
                break
            self.now = max(self.now, time)
            if not isinstance(what, Process):
                what()
            elif what.lost:
                continue
            elif what.machine.paused_until > self.now and self.faulty:
                self._push(what.machine.paused_until - self.now + self.rng.uniform(0.0, 1.0), what)
                continue
            else:
                self.current = what
                what.thread.switch()
                self.current = None
            if done():
                return True
        return done()

    def close(self) -> None:
        """Let go of every process without letting it do anything more."""
        self._closing = True
        for process in self._all:
            if not process.thread.dead:
                self.current = process
                process.thread.throw(GreenletExit)
        self.current = None
        self._queue.clear()
