"""Sabotaged protocols, each by one rule left out. The simulation must catch every one of them, or it tests nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from tests.sim.keys import FakeScheme
from tests.sim.knobs import Knobs, draw, with_fleet, with_intruder
from tests.sim.scenario import play
from vmrun.core import journal as journals
from vmrun.core import keys, sealing
from vmrun.core.errors import Corrupt, KeyExists, StoreUnavailable
from vmrun.core.folds import Extent, ShardFold, VmFold
from vmrun.core.journal import Journal
from vmrun.core.ledger import JobLedger, OwnCheck, ShardLedger, WriterCheck
from vmrun.core.records import Alive, Assign, Claim, Delete, Drain, Entry, Intent, Release, Replace, Results
from vmrun.core.vm_ledger import VmLedger

#: Seeds within which a mutant must be caught, unless it says otherwise.
SEEDS = 150


@dataclass(frozen=True)
class Mutant:
    """One sabotage."""

    name: str
    #: The rule that it breaks.
    breaks: str
    owner: object
    attribute: str
    instead: object
    #: Bends a seed's knobs towards where the sabotage shows.
    bend: Callable[[Knobs], Knobs] = lambda knobs: knobs
    seeds: int = SEEDS

    def at_work(self) -> AbstractContextManager[object]:
        """The protocol is sabotaged while this lasts."""
        return patch.object(self.owner, self.attribute, self.instead)

    def caught(self) -> tuple[int, str] | None:
        """How many seeds it took, and what gave it away; None if it survived."""
        with self.at_work():
            for seed in range(self.seeds):
                try:
                    play(seed, knobs=self.bend(draw(seed)))
                except Exception as error:
                    return seed + 1, f"{type(error).__name__}: {error}"
        return None


# --- the journal ---


def create_without_reading_back(self: Journal, data: bytes) -> bool:
    for _ in range(50):
        try:
            self._store.create(keys.entry(self.prefix, self.next), data)
        except KeyExists:
            self._doubtful = False
            return False
        except StoreUnavailable:
            self._clock.sleep(1.0)
            continue
        self._doubtful = False
        return True
    raise StoreUnavailable("gave up")


def take_exists_for_success(self: Journal, data: bytes) -> bool:
    for _ in range(50):
        try:
            self._store.create(keys.entry(self.prefix, self.next), data)
        except StoreUnavailable:
            self._clock.sleep(1.0)
            continue
        except KeyExists:
            pass
        self._doubtful = False
        return True
    raise StoreUnavailable("gave up")


def take_doubt_for(won: bool) -> Callable[[Journal, bytes], bool]:
    def send(self: Journal, data: bytes) -> bool:
        try:
            self._store.create(keys.entry(self.prefix, self.next), data)
        except KeyExists:
            self._doubtful = False
            return self._peek(keys.entry(self.prefix, self.next)) == data
        except StoreUnavailable:
            self._doubtful = False
            return won
        self._doubtful = False
        return True

    return send


def forget_the_doubt(self: Journal, data: bytes) -> bool:
    try:
        return REAL_SEND(self, data)
    except StoreUnavailable:
        self._doubtful, self._sent = False, None
        raise


def skip_the_number_that_was_lost(self: Journal, data: bytes) -> bool:
    won = REAL_SEND(self, data)
    if not won:
        self.next += 1
    return won


def overwrite(self: Journal, data: bytes) -> bool:
    self._store.replace(keys.entry(self.prefix, self.next), data)
    self._doubtful = False
    return True


def end_at_an_outage(self: Journal) -> Iterator[Entry]:
    try:
        yield from REAL_READ(self)
    except StoreUnavailable:
        return


def stop_before_what_is_damaged_and_go_on(self: Journal) -> Iterator[Entry]:
    """Pass over entries that cannot be trusted."""
    while True:
        try:
            yield from REAL_READ(self)
            return
        except journals.StoreUnavailable:
            raise
        except Corrupt:
            self.next += 1


def unseal_anywhere(journal: str, n: int | None, data: bytes, verifier: Any) -> Entry:
    """Take entries that were made for another place."""
    head = json.loads(data[: data.index(b"\n")])
    entry = sealing.unseal(head["journal"], head["n"], data, verifier)
    return replace(entry, n=head["n"] if n is None else n)


REAL_SEND, REAL_READ = Journal._send, Journal.read

# --- shards ---


def let_the_last_outcome_win(self: ShardFold, n: int, body: Results) -> list[Extent]:
    settled = []
    for block in body.blocks:
        end = block.first + block.count
        self.extents = [e for e in self.extents if e.first >= end or e.end <= block.first]
        self.done.add(block.first, end)
        settled.append(Extent(block.first, end, n, block))
    self.extents.extend(settled)
    return settled


def forget_results_at_takeover(self: ShardFold, entry: Entry) -> list[Extent]:
    if isinstance(entry.body, Claim) and self.owner not in ("", entry.body.vm):
        self.done, self.extents = type(self.done)(), []
    return REAL_SHARD_APPLY(self, entry)


def count_what_is_outside(self: ShardFold, n: int, body: Results) -> list[Extent]:
    settled = []
    for block in body.blocks:
        for first, end in self.done.add(block.first, block.first + block.count):
            settled.append(Extent(first, end, n, block))
    self.extents.extend(settled)
    return settled


def ignore_results_of_the_fenced(self: ShardFold, entry: Entry) -> list[Extent]:
    if isinstance(entry.body, Results) and entry.body.epoch != self.epoch:
        return []
    return REAL_SHARD_APPLY(self, entry)


def let_anybody_speak_for_anybody(self: ShardFold, entry: Entry) -> list[Extent]:
    vm = getattr(entry.body, "vm", "")
    return REAL_SHARD_APPLY(self, replace(entry, writer=f"vm:{vm}"))


def drop_what_the_fenced_commit(self: ShardLedger, vm: str, epoch: int, blocks: Any, files: Any, inline: bytes) -> bool:
    self.refresh()
    if self.fold.owner != vm or self.fold.epoch != epoch:
        return False
    return REAL_COMMIT(self, vm, epoch, blocks, files, inline)


def commit_once(self: ShardLedger, vm: str, epoch: int, blocks: Any, files: Any, inline: bytes) -> bool:
    self.refresh()
    self._append(Results(vm, epoch, tuple(blocks), tuple(files)), inline)
    return self.fold.owner == vm


def drop_what_is_partly_known(self: ShardLedger, vm: str, epoch: int, blocks: Any, files: Any, inline: bytes) -> bool:
    self.refresh()
    if any(self.fold.done.covered(block.first, block.first + block.count) for block in blocks):
        return self.fold.owner == vm and self.fold.epoch == epoch
    return REAL_COMMIT(self, vm, epoch, blocks, files, inline)


def claim_from_the_living(self: ShardLedger, vm: str, *, from_owner: str | None = None) -> bool:
    self.refresh()
    return not self.fold.complete and self._append(Claim(vm))


def claim_what_is_complete(self: ShardLedger, vm: str, *, from_owner: str | None = None) -> bool:
    self.refresh()
    return self.fold.owner in ("", vm, from_owner) and self._append(Claim(vm))


def release_whosever_it_is(self: ShardLedger, vm: str, reason: str) -> bool:
    self.refresh()
    while not self._append(Release(vm, reason)):
        self.refresh()
    return True


def refresh_and_forget(self: ShardLedger) -> list[tuple[Entry, list[Extent]]]:
    return [(entry, self.fold.apply(entry)) for entry in self._journal.read()]


REAL_SHARD_APPLY, REAL_COMMIT = ShardFold.apply, ShardLedger.commit

# --- VMs ---


def assign_whatever_it_is(self: VmLedger, job: str, keep_warm: float) -> bool:
    return job not in self.refresh().jobs and self._move(Assign(job, keep_warm), lambda fold: job not in fold.jobs)


def assign_on_an_old_look(self: VmLedger, job: str, keep_warm: float) -> bool:
    """Judge once, then append until it holds."""
    if not self.refresh().assignable or job in self.fold.jobs:
        return False
    return self._move(Assign(job, keep_warm), lambda fold: True)


def replace_again(self: JobLedger, vm: str) -> bool:
    """As if nobody else could have done it."""
    return self._move(Replace(vm), lambda fold: fold.final is None)


def replace_without_end(self: JobLedger, vm: str) -> bool:
    return self._move(Replace(vm), lambda fold: fold.final is None and vm not in fold.replaced)


def delete_without_looking(self: VmLedger, why: str, by: str, *, seen: int | None = None) -> bool:
    return REAL_DELETE(self, why, by)


def delete_without_a_word(self: VmLedger, why: str, by: str, *, seen: int | None = None) -> bool:
    return not self.refresh().ended


def intend_without_a_word(self: VmLedger, body: Intent) -> bool:
    return not self.refresh().intent


def drain_over_new_jobs(self: VmLedger, reason: str, *, jobs: int) -> bool:
    return self._move(Drain(reason), lambda fold: fold.drain is None and not fold.ended)


def stay_suspected(self: VmFold, entry: Entry) -> None:
    if not isinstance(entry.body, Alive):
        REAL_VM_APPLY(self, entry)


def come_back_after_delete(self: VmFold, entry: Entry) -> None:
    if not isinstance(entry.body, Delete):
        REAL_VM_APPLY(self, entry)


REAL_DELETE, REAL_VM_APPLY = VmLedger.delete, VmFold.apply

# --- who is trusted ---


def given_any_job(self: WriterCheck, vm: str) -> bool:
    ledger = self._ledgers.setdefault(vm, VmLedger(self._desk, vm))
    return ledger.refresh().ready is not None


def an_intruder(kind: str) -> Callable[[Knobs], Knobs]:
    """Seeds with this intruder, and enough going on for it to find its chance."""
    return lambda knobs: with_intruder(replace(knobs, quiet_at=900.0), kind)


def more_doubt(knobs: Knobs) -> Knobs:
    """Requests fail often, and appends give up at once."""
    weather = replace(knobs.weather, before=0.1, after=0.1, late=0.05)
    return replace(knobs, weather=weather, budget=0.0)


def all_open(knobs: Knobs) -> Knobs:
    """Jobs whose tasks are added while they run, under bad weather."""
    return more_doubt(replace(knobs, jobs=tuple(replace(job, open=True, cancel_after=0.0) for job in knobs.jobs)))


def all_fleets(knobs: Knobs) -> Knobs:
    """Four VMs for one job, many of them killed, and two clients that look after it."""
    fleet = with_fleet(knobs, random.Random(0))
    return replace(fleet, jobs=tuple(replace(job, two_clients=True, replace_lost=1) for job in fleet.jobs), intruder="")


def all_zombies(knobs: Knobs) -> Knobs:
    """Machines sleep with work in hand, and wake."""
    jobs = tuple(
        replace(job, vms=3, tasks=8, shard_size=4, task_seconds=20.0, cancel_after=0.0, open=False)
        for job in knobs.jobs[:1]
    )
    return replace(
        knobs,
        jobs=jobs,
        dead_after=30.0,
        pauses=(60.0, 100.0),
        nap=0.2,
        commit_tasks=4,
        quiet_at=900.0,
        intruder="",
        crash=0.0,
        restart=0.0,
        stall=0.2,
    )


def all_races(knobs: Knobs) -> Knobs:
    """Everybody wants the same warm VM at the same time."""
    jobs = tuple(
        replace(job, tasks=2, shard_size=2, vms=1, task_seconds=2.0, keep_warm=60.0, cancel_after=0.0, start=50.0)
        for job in (*knobs.jobs, *knobs.jobs)[:3]
    )
    return replace(knobs, jobs=jobs, meet=True, reap_every=20.0, reapers=2, quiet_at=900.0, intruder="", crash=0.0)


def often_released(knobs: Knobs) -> Knobs:
    """Shards are given back, and given back too late."""
    return replace(all_zombies(knobs), release=0.5)


def sleepy_agents(knobs: Knobs) -> Knobs:
    """Agents that are suspected, and answer."""
    return replace(all_zombies(knobs), reap_every=20.0, contest=20.0, pauses=(40.0, 60.0))


MUTANTS = (
    Mutant("blind resend", "a doubtful create is read back", Journal, "_send", create_without_reading_back),
    Mutant("exists is mine", "an entry that exists may be another's", Journal, "_send", take_exists_for_success),
    Mutant("doubt is lost", "no answer decides nothing", Journal, "_send", take_doubt_for(won=False)),
    Mutant("doubt is won", "no answer decides nothing", Journal, "_send", take_doubt_for(won=True)),
    Mutant(
        "doubt forgotten", "doubtful bytes are sent again before others", Journal, "_send", forget_the_doubt, all_open
    ),
    Mutant("number skipped", "who lost reads before going on", Journal, "_send", skip_the_number_that_was_lost),
    Mutant("overwrite", "entries are created, never overwritten", Journal, "_send", overwrite),
    Mutant("outage is the end", "a failed read is not an absence", Journal, "read", end_at_an_outage, more_doubt),
    Mutant(
        "damage passed over",
        "reading stops where trust ends",
        Journal,
        "read",
        stop_before_what_is_damaged_and_go_on,
        an_intruder("unsigned"),
    ),
    Mutant("unsigned", "signatures are checked", FakeScheme, "check", lambda *_: True, an_intruder("unsigned")),
    Mutant("moved", "an entry counts in its place only", journals, "unseal", unseal_anywhere, an_intruder("moved")),
    Mutant(
        "stranger",
        "a VM writes for its own jobs only",
        WriterCheck,
        "_assigned",
        given_any_job,
        an_intruder("stranger"),
    ),
    Mutant(
        "neighbour",
        "a VM writes into its own journal only",
        OwnCheck,
        "verify",
        lambda self, *entry: self._keyring.verify(*entry),
        an_intruder("neighbour"),
    ),
    Mutant(
        "last outcome wins", "the first outcome counts", ShardFold, "_settle", let_the_last_outcome_win, all_zombies
    ),
    Mutant(
        "takeover starts anew", "a takeover keeps results", ShardFold, "apply", forget_results_at_takeover, all_zombies
    ),
    Mutant(
        "outside counts",
        "outcomes count within their shard",
        ShardFold,
        "_settle",
        count_what_is_outside,
        an_intruder("outside"),
    ),
    Mutant(
        "fenced is void",
        "finished work is never thrown away",
        ShardFold,
        "apply",
        ignore_results_of_the_fenced,
        all_zombies,
    ),
    Mutant(
        "anybody speaks",
        "a VM speaks for itself only",
        ShardFold,
        "apply",
        let_anybody_speak_for_anybody,
        an_intruder("in-anothers-name"),
    ),
    Mutant(
        "fenced is dropped",
        "a commit is appended or fails",
        ShardLedger,
        "commit",
        drop_what_the_fenced_commit,
        all_zombies,
    ),
    Mutant(
        "partly known is dropped",
        "what has no outcome yet is committed",
        ShardLedger,
        "commit",
        drop_what_is_partly_known,
        all_zombies,
    ),
    Mutant("commit once", "a commit that lost its number is repeated", ShardLedger, "commit", commit_once, all_zombies),
    Mutant("claim from the living", "a shard has one owner that lives", ShardLedger, "claim", claim_from_the_living),
    Mutant(
        "claim of the complete",
        "complete shards are left alone",
        ShardLedger,
        "claim",
        claim_what_is_complete,
        all_zombies,
    ),
    Mutant(
        "release of others",
        "only the owner gives a shard back",
        ShardLedger,
        "release",
        release_whosever_it_is,
        often_released,
    ),
    Mutant(
        "refresh forgets",
        "what was read before an outage is told",
        ShardLedger,
        "refresh",
        refresh_and_forget,
        more_doubt,
    ),
    Mutant(
        "final when claimed", "FINAL needs outcomes", ShardFold, "complete", property(lambda fold: bool(fold.owner))
    ),
    Mutant("added twice", "tasks in doubt are added once", JobLedger, "_added_in_doubt", lambda *_: None, all_open),
    Mutant("replaced twice", "a loss is made good once", JobLedger, "replace", replace_again, all_fleets),
    Mutant("replaced without end", "so many as asked for", JobLedger, "replace", replace_without_end, all_fleets),
    Mutant("assign unchecked", "ASSIGN is decided on the fold", VmLedger, "assign", assign_whatever_it_is, all_races),
    Mutant("assign on an old look", "who lost decides anew", VmLedger, "assign", assign_on_an_old_look, all_races),
    Mutant(
        "delete without seen", "DELETE holds for what was judged", VmLedger, "delete", delete_without_looking, all_races
    ),
    Mutant("delete unlogged", "DELETE comes before every cloud delete", VmLedger, "delete", delete_without_a_word),
    Mutant("create unlogged", "INTENT comes before every create", VmLedger, "intend", intend_without_a_word),
    Mutant(
        "drain without jobs",
        "DRAIN holds for the jobs that are done",
        VmLedger,
        "drain",
        drain_over_new_jobs,
        all_races,
    ),
    Mutant("alive ignored", "ALIVE refutes a SUSPECT", VmFold, "apply", stay_suspected, sleepy_agents),
    Mutant("delete ignored", "nothing but GONE counts after DELETE", VmFold, "apply", come_back_after_delete),
    Mutant("VMs may all", "a VM writes ALIVE and DRAIN only", VmFold, "_own", lambda *_: True, an_intruder("own-vm")),
)
