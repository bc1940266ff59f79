"""A seed's whole history: who is there, what befalls them, and what must be true in the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim import agent, client, reaper
from tests.sim.cloud import Cloud, Rented
from tests.sim.intruder import Intruder
from tests.sim.knobs import JobPlan, Knobs, draw
from tests.sim.oracle import Oracle
from tests.sim.store import SimStore
from tests.sim.tools import Scene, watched
from tests.sim.world import Machine, Violation, World
from vmrun.core.ids import new_id

#: Seconds of virtual time, after everything has calmed down, within which all must be done.
CALM = 6000.0


@dataclass(frozen=True, slots=True)
class History:
    """What came of a seed."""

    seed: int
    #: The same for the same seed.
    digest: int
    events: int
    #: Virtual seconds.
    seconds: float
    seen: Counter[str]
    #: How many waits each machine had, how many writes there were, and how many calls that changed the cloud.
    steps: dict[str, int]
    writes: int
    calls: int


def play(seed: int, *, trace: Callable[[str], None] | None = None, knobs: Knobs | None = None) -> History:
    """Let the seed's history happen. Raises Violation, or whatever production code raised that it must not."""
    world = World(seed, trace=trace)
    scene = furnish(world, knobs or draw(seed))
    try:
        with watched(scene):
            if world.run(scene.knobs.quiet_at, lambda: done(scene)):
                world.note("all done before it was quiet")
            world.faulty = False
            world.log("quiet")
            if not world.run(world.now + CALM, lambda: done(scene)):
                raise Violation(f"I5: {undone(scene)} {CALM:.0f} s after the last fault")
            check_end(scene)
    finally:
        world.close()
    steps = {machine.name: machine.steps for machine in world.machines}
    return History(
        seed, world.digest, world.events, world.now, world.seen, steps, scene.store.writes, scene.cloud.calls
    )


def furnish(world: World, knobs: Knobs) -> Scene:
    """The world of these knobs, with everybody in it about to begin."""
    oracle = Oracle(world)
    store = SimStore(world, oracle, knobs.weather)
    oracle.objects = store.objects.get
    store.fates.update(knobs.fates)
    fates = random.Random(f"fates {world.seed}")
    world.stall = knobs.stall

    def boot(rented: Rented) -> None:
        befall(rented.machine, knobs, fates, may_crash=True)
        agent.boot(scene, rented)

    jobs = [new_id(_Now(), random.Random(f"job {world.seed} {number}")) for number in range(len(knobs.jobs))]
    scene = Scene(world, knobs, oracle, store, Cloud(world, oracle, boot, knobs.cloud), jobs)
    scene.cloud.fates.update(knobs.cloud_fates)
    for number, plan in enumerate(knobs.jobs):
        start_clients(scene, number, plan, fates)
    for number in range(knobs.reapers):
        machine = Machine(world, f"reaper-{number}")
        befall(machine, knobs, fates, may_crash=False)
        reaper.start(scene, machine, world.rng.uniform(0.0, knobs.reap_every))
    if knobs.intruder:
        world.spawn(Machine(world, "intruder"), "intruder", Intruder(scene).run)
    return scene


class _Now:
    """A clock that stands: ids need one."""

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError


def befall(machine: Machine, knobs: Knobs, fates: random.Random, *, may_crash: bool) -> None:
    """Fix what happens to the machine, and at which of its waits."""
    machine.plan.update({step: (what, seconds) for name, step, what, seconds in knobs.strikes if name == machine.name})
    at = lambda: 1 + int(knobs.steps * fates.random() ** 1.5)
    if may_crash and fates.random() < knobs.crash:
        machine.plan[at()] = ("crash", 0.0)
    if fates.random() < knobs.restart:
        machine.plan[at()] = ("restart", fates.uniform(1.0, 60.0))
    if fates.random() < knobs.pause:
        machine.plan[at()] = ("pause", fates.choice(knobs.pauses))
    if fates.random() < knobs.partition:
        machine.plan[at()] = ("partition", fates.choice((30.0, 100.0, 300.0)))


def start_clients(scene: Scene, number: int, plan: JobPlan, fates: random.Random) -> None:
    """A job's clients: at once, or soon after the job before it became final, when its VMs are about to end."""
    job, world = scene.jobs[number], scene.world
    machines = [Machine(world, f"client-{number}{letter}") for letter in ("ab" if plan.two_clients else "a")]
    scene.waiting += len(machines)
    for machine in machines:
        befall(machine, scene.knobs, fates, may_crash=False)

    def start() -> None:
        for at, machine in enumerate(machines):
            client.start(scene, machine, job, plan.start + at * world.rng.uniform(0.0, 100.0), feeds=not at)

    def look() -> None:
        truth = scene.oracle.jobs.get(scene.jobs[number - 1])
        if (truth is not None and truth.final is not None) or world.now > 400.0 or not world.faulty:
            start()
        else:
            world.after(5.0, look)

    if number:
        look()
    else:
        start()


# --- the end ---


def done(scene: Scene) -> bool:
    """Whether every client has what it wanted and every VM is gone."""
    return not scene.waiting and not rented(scene) and not alive(scene)


def rented(scene: Scene) -> list[str]:
    """Instances that run up a bill. One whose journal cannot be trusted is left to its own timer."""
    return [vm for vm in scene.cloud.rented if f"vms/{vm}/" not in scene.oracle.quarantined]


def alive(scene: Scene) -> list[str]:
    """VMs that are not gone by their journal; one that cannot be trusted says nothing."""
    return [
        vm
        for vm, truth in scene.oracle.vms.items()
        if truth.intended and not truth.gone and f"vms/{vm}/" not in scene.oracle.quarantined
    ]


def undone(scene: Scene) -> str:
    """What is missing, for people."""
    vms = [vm[-4:] for vm in alive(scene)]
    instances = [vm[-4:] for vm in rented(scene)]
    return f"{scene.waiting} clients, VM journals {vms}, instances {instances} were not done"


def check_end(scene: Scene) -> None:
    """What must hold when all is calm."""
    oracle = scene.oracle
    for job in scene.jobs:
        truth = oracle.jobs[job]
        if any(prefix.startswith(f"jobs/{job}/") for prefix in oracle.quarantined):
            continue
        oracle.require(truth.final is not None, f"job {job[-4:]} is not final")
        assert truth.final is not None
        if truth.final["outcome"] != "cancelled":
            oracle.require(set(truth.settled) == set(range(truth.tasks)), "tasks of a final job have no outcome")
            oracle.require(set(truth.shown) == set(truth.settled), "outcomes were never shown to anybody")
        if truth.open:
            added, perhaps = scene.added.get(job, 0), scene.perhaps_added.get(job, 0)
            oracle.require(
                added <= truth.tasks <= added + perhaps, f"{added} tasks were added, and {truth.tasks} are there"
            )
