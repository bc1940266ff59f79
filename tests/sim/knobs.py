"""What differs from seed to seed: sizes, timings, weather, and the knobs that push histories towards rare paths."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.sim.store import Weather


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One job that somebody will submit."""

    open: bool
    tasks: int
    shard_size: int
    vms: int
    keep_warm: float
    #: Seconds after the beginning, or after the job before it became final.
    start: float
    #: Seconds after its submission; 0 for never.
    cancel_after: float
    #: Most seconds of a task.
    task_seconds: float
    #: Whether a second client looks after the same job.
    two_clients: bool
    #: How many lost VMs others take the place of; -1: as many as are lost, with nothing in the job's journal about it.
    replace_lost: int = -1


@dataclass(frozen=True, slots=True)
class Knobs:
    """One seed's world."""

    jobs: tuple[JobPlan, ...]
    weather: Weather
    #: Seconds, as the protocol knows them.
    heartbeat: float
    dead_after: float
    contest: float
    reap_every: float
    reapers: int
    register: float
    #: Seconds that an append keeps trying.
    budget: float
    #: Tasks per commit at most.
    commit_tasks: int
    #: Bytes up to which outcomes travel inside the entry.
    inline: int
    #: Probability of a stall where one is possible.
    stall: float
    #: Probability that an agent gives its shard back after a task.
    release: float
    #: Probability that a VM sleeps when it holds an outcome that is not committed, or is about to commit or claim.
    nap: float
    #: Whether those who are about to give, drain or condemn a VM wait for each other, so that they race.
    meet: bool
    #: Whether idle agents end by themselves; if not, only a reaper ends them.
    agents_drain: bool
    #: Who may declare the end: `agent`, `client` or both.
    finisher: str
    #: Seconds after which nothing goes wrong any more.
    quiet_at: float
    #: What an intruder does; "" for no intruder.
    intruder: str
    #: Probability, for a machine, of each misfortune in its life.
    crash: float
    restart: float
    pause: float
    partition: float
    #: Seconds of a pause, one of these.
    pauses: tuple[float, ...]
    #: Waits of a machine within which something befalls it.
    steps: int
    #: What befalls whom at which of its waits, besides: (machine, wait, what, seconds).
    strikes: tuple[tuple[str, int, str, float], ...] = ()
    #: What becomes of which write, whatever the weather: (number, fate).
    fates: tuple[tuple[int, str], ...] = ()
    #: The same for calls that change something in the cloud.
    cloud_fates: tuple[tuple[int, str], ...] = ()
    #: Probability of each misfortune of a call to the cloud.
    cloud: float = 0.03


#: What intruders try. After a forgery the journal cannot be trusted any more; what is void must not matter.
FORGERIES = ("unsigned", "moved", "stranger", "neighbour")
VOID = ("outside", "in-anothers-name", "own-vm")


def draw(seed: int) -> Knobs:
    """The knobs of a seed."""
    knobs, rng = _drawn(seed), random.Random(f"fleet {seed}")
    return with_fleet(knobs, rng) if not knobs.intruder and rng.random() < 0.2 else knobs


def with_fleet(knobs: Knobs, rng: random.Random) -> Knobs:
    """Four VMs share a job, many of them are killed, and only so many that are lost are replaced."""
    job = JobPlan(
        open=rng.random() < 0.3, tasks=rng.randint(8, 24), shard_size=rng.randint(1, 4), vms=4,
        keep_warm=rng.choice((0.0, 60.0)), start=0.0, cancel_after=0.0, task_seconds=20.0,
        two_clients=rng.random() < 0.6, replace_lost=rng.randint(0, 4),
    )  # fmt: skip
    return replace(
        knobs, jobs=(job,), dead_after=30.0, contest=20.0, reap_every=20.0, crash=0.5, restart=0.2, pause=0.3,
        meet=False, steps=80, quiet_at=900.0,
    )  # fmt: skip


def _drawn(seed: int) -> Knobs:
    rng = random.Random(f"knobs {seed}")

    def on(probability: float = 0.25) -> bool:
        return rng.random() < probability

    fair = on(0.1)
    bad = rng.choice((0.5, 1.0, 1.0, 2.0, 4.0))
    weather = Weather(
        before=0.0 if fair else 0.02 * bad,
        after=0.0 if fair else 0.03 * bad,
        late=0.0 if fair else 0.02 * bad,
        slow=0.3 if on(0.4) else 0.03,
        slow_seconds=rng.choice((2.0, 20.0, 60.0)),
        late_seconds=rng.choice((2.0, 30.0, 200.0)),
    )
    heartbeat = 15.0
    knobs = Knobs(
        jobs=_jobs(rng),
        weather=weather,
        heartbeat=heartbeat,
        dead_after=heartbeat * (2.0 if on(0.6) else 8.0),
        contest=20.0 if on(0.4) else 90.0,
        reap_every=20.0 if on() else 60.0,
        reapers=rng.choice((1, 2)),
        register=rng.choice((120.0, 300.0)),
        budget=rng.choice((0.0, 1.0, 10.0, 60.0)),
        commit_tasks=rng.choice((1, 2, 4)),
        inline=40 if on() else 128 * 1024,
        stall=0.2 if on(0.5) else 0.02,
        release=0.15 if on() else 0.0,
        nap=0.1 if on() else 0.0,
        meet=False,
        agents_drain=on(0.7),
        finisher=rng.choice(("agent", "client", "both")),
        quiet_at=rng.choice((200.0, 500.0, 900.0)),
        intruder="",
        crash=0.3 if on(0.6) else 0.0,
        restart=0.4 if on(0.5) else 0.0,
        pause=0.6 if on(0.7) else 0.0,
        partition=0.3 if on(0.3) else 0.0,
        pauses=(20.0, 100.0, 250.0, 600.0),
        steps=250,
    )
    if on():
        return with_intruder(knobs, rng.choice((*FORGERIES, *VOID)))
    return _directed(rng, knobs)


def with_intruder(knobs: Knobs, kind: str) -> Knobs:
    """The same world, with an intruder of this kind."""
    if kind == "stranger":
        # VMs of an earlier job stay and take no later one: they are the strangers.
        jobs = tuple(replace(job, keep_warm=0.0, cancel_after=0.0) for job in (*knobs.jobs, *knobs.jobs)[:3])
        return replace(knobs, jobs=jobs, intruder=kind, agents_drain=False, reap_every=60.0, quiet_at=900.0)
    return replace(knobs, intruder=kind)


def calm() -> Knobs:
    """A small world in which nothing goes wrong by itself: to let one thing go wrong at every point of it."""
    job = JobPlan(
        open=False, tasks=4, shard_size=2, vms=2, keep_warm=60.0, start=0.0, cancel_after=0.0, task_seconds=10.0,
        two_clients=False,
    )  # fmt: skip
    return Knobs(
        jobs=(job, replace(job, open=True, tasks=2, vms=1, start=10.0)),
        weather=Weather(before=0.0, after=0.0, late=0.0, slow=0.0, reply=1.0, late_seconds=60.0),
        heartbeat=15.0, dead_after=30.0, contest=20.0, reap_every=30.0, reapers=1, register=120.0, budget=0.0,
        commit_tasks=1, inline=0, stall=0.0, release=0.0, nap=0.0, meet=False, agents_drain=True, finisher="both",
        quiet_at=10_000.0, intruder="", crash=0.0, restart=0.0, pause=0.0, partition=0.0, pauses=(60.0,), steps=1,
        cloud=0.0,
    )  # fmt: skip


def _directed(rng: random.Random, knobs: Knobs) -> Knobs:
    """Two seeds of five are bent towards what chance alone brings about too seldom."""
    fate = rng.random()
    if fate < 0.2:
        # Zombies: a VM sleeps with work in hand, another one takes the work over, and the sleeper wakes.
        jobs = tuple(
            replace(job, vms=3, tasks=rng.randint(6, 10), shard_size=4, task_seconds=20.0, cancel_after=0.0)
            for job in knobs.jobs[:1]
        )
        return replace(
            knobs, jobs=jobs, dead_after=30.0, contest=90.0, reap_every=60.0, pauses=(50.0, 80.0, 120.0), nap=0.2,
            commit_tasks=4, pause=0.0, crash=0.0, restart=0.0, quiet_at=900.0,
        )  # fmt: skip
    if fate < 0.4:
        # Races for a warm VM: clients want it while its agent and the reapers are about to end it.
        jobs = tuple(
            replace(job, tasks=2, shard_size=2, vms=1, task_seconds=2.0, keep_warm=60.0, cancel_after=0.0)
            for job in knobs.jobs
        )
        jobs = tuple(replace(job, start=rng.uniform(45.0, 95.0)) if at else job for at, job in enumerate(jobs))
        return replace(
            knobs, jobs=jobs, stall=0.02, meet=True, reap_every=20.0, reapers=2, agents_drain=rng.random() < 0.4,
            crash=0.0, quiet_at=900.0,
        )  # fmt: skip
    return knobs


def _jobs(rng: random.Random) -> tuple[JobPlan, ...]:
    jobs: list[JobPlan] = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        # A later job comes when the machines of the one before it are warm, or about to end, or ended.
        window = jobs[-1].keep_warm if jobs else 0.0
        jobs.append(_job(rng, rng.uniform(0.0, 60.0) if not jobs else window * rng.random() + rng.uniform(0.0, 60.0)))
    return tuple(jobs)


def _job(rng: random.Random, start: float) -> JobPlan:
    tasks = rng.randint(1, 10)
    return JobPlan(
        open=rng.random() < 0.3,
        tasks=tasks,
        shard_size=rng.randint(1, 4),
        vms=rng.choice((1, 2, 2, 3)),
        keep_warm=rng.choice((0.0, 60.0, 120.0)),
        start=start,
        cancel_after=rng.uniform(20.0, 300.0) if rng.random() < 0.12 else 0.0,
        task_seconds=rng.choice((2.0, 10.0, 40.0)),
        two_clients=rng.random() < 0.3,
    )
