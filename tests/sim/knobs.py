"""What differs from seed to seed: sizes, timings, weather, and the knobs that push histories towards rare paths."""

from __future__ import annotations

import random
from dataclasses import dataclass

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
    after_other: bool
    #: Seconds after its submission; 0 for never.
    cancel_after: float
    #: Most seconds of a task.
    task_seconds: float


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


#: What intruders try. After the first three the journal cannot be trusted any more; the others must not matter.
FORGERIES = ("unsigned", "moved", "stranger")
VOID = ("outside", "in-anothers-name", "own-vm")


def draw(seed: int) -> Knobs:
    """The knobs of a seed."""
    rng = random.Random(f"knobs {seed}")

    def on(probability: float = 0.25) -> bool:
        return rng.random() < probability

    fair = on(0.1)
    bad = rng.choice((0.5, 1.0, 1.0, 2.0, 4.0))
    weather = Weather(
        before=0.0 if fair else 0.02 * bad,
        after=0.0 if fair else 0.03 * bad,
        late=0.0 if fair else 0.02 * bad,
        slow=0.3 if on() else 0.03,
        slow_seconds=rng.choice((2.0, 20.0)),
        late_seconds=rng.choice((2.0, 30.0, 200.0)),
    )
    heartbeat = 15.0
    return Knobs(
        jobs=_jobs(rng),
        weather=weather,
        heartbeat=heartbeat,
        dead_after=heartbeat * (2.0 if on(0.4) else 8.0),
        contest=20.0 if on(0.4) else 90.0,
        reap_every=20.0 if on() else 60.0,
        reapers=rng.choice((1, 2)),
        register=rng.choice((120.0, 300.0)),
        budget=rng.choice((0.0, 1.0, 10.0, 60.0)),
        commit_tasks=rng.choice((1, 2, 4)),
        inline=40 if on() else 128 * 1024,
        stall=0.2 if on(0.5) else 0.02,
        release=0.15 if on() else 0.0,
        finisher=rng.choice(("agent", "client", "both")),
        quiet_at=rng.choice((200.0, 500.0, 900.0)),
        intruder=rng.choice((*FORGERIES, *VOID)) if on(0.15) else "",
        crash=0.3 if on(0.6) else 0.0,
        restart=0.4 if on(0.5) else 0.0,
        pause=0.5 if on(0.6) else 0.0,
        partition=0.3 if on(0.3) else 0.0,
    )


def _jobs(rng: random.Random) -> tuple[JobPlan, ...]:
    count = rng.choice((1, 2, 2))
    return tuple(_job(rng, number) for number in range(count))


def _job(rng: random.Random, number: int) -> JobPlan:
    tasks = rng.randint(1, 8)
    return JobPlan(
        open=rng.random() < 0.3,
        tasks=tasks,
        shard_size=rng.randint(1, 4),
        vms=rng.choice((1, 1, 2)),
        keep_warm=rng.choice((0.0, 60.0, 120.0)),
        start=rng.uniform(0.0, 60.0) if number == 0 else rng.uniform(0.0, 120.0),
        after_other=number > 0,
        cancel_after=rng.uniform(20.0, 300.0) if rng.random() < 0.12 else 0.0,
        task_seconds=rng.choice((2.0, 10.0, 40.0)),
    )
