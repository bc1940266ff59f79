"""One VM's journal with clients, reapers and the agent at once: every move says truly whether it holds, and the
journal keeps to its grammar, whatever is lost, delayed or forgotten."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.core.world import JOB, VM, Bench, an_id
from vmrun.core import keys
from vmrun.core.errors import StoreUnavailable
from vmrun.core.records import Alive, Assign, Delete, Drain, Gone, Record, Suspect
from vmrun.core.vm_ledger import VmLedger

CLIENTS = st.integers(0, 1)
FATES = st.sampled_from(["", "", "", "lost", "dropped", "late"])
DOUBTS = st.sampled_from(["", "", "lost", "dropped", "late"])


class VmMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.bench = Bench()
        self.bench.ready_vm()
        self.clients = [self.bench.vm() for _ in range(2)]
        self.agent = self.bench.vm(writer=f"vm:{VM}")
        #: What a reaper saw when it judged.
        self.judged = [0, 0]
        self.jobs = 0
        self.last_job = JOB

    @rule(others=st.lists(st.sampled_from(["assign", "suspect", "answer", "drain", "delete", "deliver"]), max_size=2))
    def slip_in(self, others: list[str]) -> None:
        """Let others be faster: they move after the next mover has read, right before it writes."""
        quick, agent = self.bench.vm(), self.bench.vm(writer=f"vm:{VM}")
        moves: dict[str, Callable[[], object]] = {
            "assign": lambda: quick.assign(self.a_job(), 1.0),
            "suspect": lambda: quick.suspect("q"),
            "answer": agent.alive,
            "drain": lambda: agent.drain("quick", jobs=len(agent.refresh().jobs)),
            "delete": lambda: quick.delete("quick", "q"),
            "deliver": self.bench.store.deliver,
        }
        self.bench.store.before_create = [moves[other] for other in others]

    def a_job(self) -> str:
        self.jobs += 1
        return an_id("0123456789abcdefghjkmnpqrstvwxyz"[self.jobs % 32])

    def move(self, move: Callable[[], bool], fate: str, doubt: str) -> bool | None:
        """Whether it holds; None if that stayed open."""
        try:
            return self.faulty_move(move, fate, doubt)
        finally:
            self.bench.store.before_create = []

    def faulty_move(self, move: Callable[[], bool], fate: str, doubt: str) -> bool | None:
        store = self.bench.store
        if doubt:
            try:
                store.doubt(doubt, move)
            except AssertionError:
                store.doubting, store.fates, store.unanswered = False, [], ""
            return None
        store.fates = [fate]
        try:
            return move()
        except StoreUnavailable:
            return None
        finally:
            store.fates = []

    @rule(who=CLIENTS, again=st.booleans(), fate=FATES, doubt=DOUBTS)
    def assign(self, who: int, again: bool, fate: str, doubt: str) -> None:
        job = self.last_job if again else self.a_job()
        self.last_job = job
        holds = self.move(lambda: self.clients[who].assign(job, 1.0), fate, doubt)
        assert holds is None or holds == (job in self.fold().jobs and not self.ends())

    @rule(who=CLIENTS, fate=FATES, doubt=DOUBTS)
    def suspect(self, who: int, fate: str, doubt: str) -> None:
        holds = self.move(lambda: self.clients[who].suspect("r"), fate, doubt)
        assert not holds or self.fold().suspected

    @rule(fate=FATES, doubt=DOUBTS)
    def answer(self, fate: str, doubt: str) -> None:
        holds = self.move(self.agent.alive, fate, doubt)
        assert holds is None or self.fold().ended or not self.fold().suspected

    @rule(fate=FATES, doubt=DOUBTS)
    def drain(self, fate: str, doubt: str) -> None:
        jobs = len(self.agent.fold.jobs)
        holds = self.move(lambda: self.agent.drain("idle", jobs=jobs), fate, doubt)
        fold = self.fold()
        assert holds is None or holds == (fold.drain is not None and len(fold.jobs) == jobs and not fold.ended)

    @rule(who=CLIENTS)
    def judge(self, who: int) -> None:
        self.clients[who].refresh()
        self.judged[who] = self.clients[who].seen

    @rule(who=CLIENTS, fate=FATES, doubt=DOUBTS)
    def delete(self, who: int, fate: str, doubt: str) -> None:
        seen = self.judged[who]
        holds = self.move(lambda: self.clients[who].delete("idle", f"{who}", seen=seen), fate, doubt)
        bodies = self.bodies()
        if holds:
            assert bodies[seen] == Delete("idle", f"{who}")

    @rule(who=CLIENTS, fate=FATES)
    def gone(self, who: int, fate: str) -> None:
        # Only what was condemned is seen to be gone.
        if self.fold().delete is not None:
            self.move(lambda: self.clients[who].gone("not listed"), fate, "")
            assert self.fold().gone is not None

    @rule()
    def deliver_late(self) -> None:
        self.bench.store.deliver()

    @rule(who=CLIENTS)
    def crash_client(self, who: int) -> None:
        self.clients[who], self.judged[who] = self.bench.vm(), 0

    @rule()
    def crash_agent(self) -> None:
        self.agent = self.bench.vm(writer=f"vm:{VM}")
        self.agent.refresh()

    def fold(self):
        return self.bench.vm().refresh()

    def ends(self) -> bool:
        return self.fold().ended or self.fold().drain is not None

    def bodies(self) -> list[Record | None]:
        ledger = VmLedger(self.bench.reader(), VM)
        found: list[Record | None] = []
        for entry in ledger._journal.read():
            ledger._take(entry)
            found.append(entry.body)
        return found

    @invariant()
    def numbers_have_no_gap(self) -> None:
        prefix = keys.vm_journal(VM)
        numbers = sorted(key for key in self.bench.store.objects if key.startswith(prefix))
        assert numbers == [keys.entry(prefix, n) for n in range(len(numbers))]

    @invariant()
    def the_journal_keeps_to_its_grammar(self) -> None:
        suspected = drained = deleted = gone = False
        jobs = [JOB]
        for body in self.bodies()[3:]:
            assert not gone
            assert not deleted or isinstance(body, Gone)
            if isinstance(body, Assign):
                assert not drained
                assert not suspected
                assert body.job not in jobs
                jobs.append(body.job)
            elif isinstance(body, Suspect):
                assert not suspected
                suspected = True
            elif isinstance(body, Alive):
                assert suspected
                suspected = False
            elif isinstance(body, Drain):
                assert not drained
                drained = True
            deleted = deleted or isinstance(body, Delete)
            gone = gone or isinstance(body, Gone)
        assert self.fold().jobs == jobs


VmMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestVmMachine = VmMachine.TestCase
