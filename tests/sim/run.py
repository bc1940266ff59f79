"""Playing many seeds: what they reached, which failed, and how to see a failure again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.sim.scenario import play

#: Rare states, and how often 500 seeds must reach each: a third or less of what they do reach. A simulation that no
#: longer gets there has stopped to test what happens there.
SOMETIMES = {
    "lost race": 100,
    "own entry answered with exists": 6,
    "doubtful bytes sent again": 50,
    "late create landed": 60,
    "late create found another's entry": 8,
    "zombie commit": 8,
    "duplicate outcome": 4,
    "fenced": 25,
    "takeover": 40,
    "release": 8,
    "crash between claim and commit": 8,
    "refuted SUSPECT": 80,
    "ASSIGN beat DELETE": 2,
    "DELETE beat ASSIGN": 2,
    "ASSIGN beat DRAIN": 3,
    "DRAIN beat ASSIGN": 2,
    "DELETE beat DELETE": 20,
    "DELETE(dead)": 40,
    "DELETE(idle)": 60,
    "DELETE(never ready)": 60,
    "DELETE(absent)": 200,
    "instance that appeared after its DELETE": 2,
    "warm VM taken": 40,
    "three VMs with shards of one job": 60,
    "lost VM replaced": 25,
    "one loss too many": 100,
    "FINAL by an agent": 100,
    "FINAL by a client": 100,
    "client started again": 30,
    "agent started again": 30,
    "cancel": 10,
    "segment": 200,
    "partition": 50,
    "pause": 200,
    "journal refused": 60,
    "intruder: unsigned": 2,
    "intruder: moved": 2,
    "intruder: stranger": 2,
    "intruder: neighbour": 2,
    "intruder: outside": 2,
    "intruder: in-anothers-name": 2,
    "intruder: own-vm": 2,
}


@dataclass
class Tally:
    """What a number of seeds came to."""

    seeds: int = 0
    events: int = 0
    #: Virtual seconds.
    seconds: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    #: (seed, what it broke).
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another's."""
        self.seeds += other.seeds
        self.events += other.events
        self.seconds += other.seconds
        self.seen.update(other.seen)
        self.failures.extend(other.failures)


def play_all(first: int, count: int) -> Tally:
    """Play seeds `first` … `first + count - 1`; a failure does not stop the rest."""
    tally = Tally(seeds=count)
    for seed in range(first, first + count):
        try:
            history = play(seed)
        except Exception as error:
            tally.failures.append((seed, f"{type(error).__name__}: {error}"))
            continue
        tally.events += history.events
        tally.seconds += history.seconds
        tally.seen.update(history.seen)
    return tally


def how_to_replay(failures: list[tuple[int, str]]) -> str:
    """One line for each failure, and what shows the first one again."""
    lines = [f"seed {seed}: {what}" for seed, what in failures]
    return "\n".join([*lines, f"see it again: python -m tests.sim --seed {failures[0][0]}"])


def too_seldom(tally: Tally) -> list[str]:
    """The rare states that were not reached often enough for so many seeds."""
    share = tally.seeds / 500
    return [
        f"{what}: {tally.seen[what]} of {least * share:.0f} in {tally.seeds} seeds"
        for what, least in SOMETIMES.items()
        if tally.seen[what] < int(least * share)
    ]
