"""What is shown of a job that several VMs share, and how little is asked of the store for it."""

from __future__ import annotations

import random

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import JOB, OTHER_VM, VM, ManualClock, intent, job_spec, ready, results
from vmrun.core.desk import Desk
from vmrun.core.ledger import JobLedger
from vmrun.core.model import JobState
from vmrun.core.records import Submit
from vmrun.core.vm_ledger import VmLedger
from vmrun.store.counting import CountingStore
from vmrun.store.memory import MemoryStore
from vmrun.watch.observe import READ_MOST, JobObserver

SHARDS = 5 * READ_MOST


def test_a_look_at_many_shards_reads_those_that_have_news_and_sees_all_of_it() -> None:
    store, clock = CountingStore(MemoryStore()), ManualClock()

    def desk(writer: str = "client") -> Desk:
        return Desk(store, clock, random.Random(1), fake_keyring(), FakeSigner(writer))

    job = JobLedger(desk(), JOB)
    assert job.submit(Submit(JOB, job_spec(tasks=SHARDS, shard_size=1), ""))
    for vm in (VM, OTHER_VM):
        made = VmLedger(desk(), vm)
        assert made.intend(intent(vm, JOB))
        assert made.created(f"i-{vm}")
        assert job.enlist(vm)
    assert made.ready(ready(OTHER_VM))
    observer = JobObserver(desk(), JOB)
    view = observer.look()
    # VMs that have claimed nothing yet are shown
    assert [(vm.id, vm.state) for vm in view.vms] == [(VM, "booting"), (OTHER_VM, "ready")]
    assert (view.state, view.tasks.total, view.tasks.done) == (JobState.running, SHARDS, 0)
    working = JobLedger(desk(f"vm:{OTHER_VM}"), JOB)
    plans = list(working.refresh().shards())
    for done, plan in enumerate(plans, 1):
        shard = working.shard(plan)
        assert shard.claim(OTHER_VM)
        refs, inline = results(plan.first, b"x")
        assert shard.commit(OTHER_VM, shard.fold.epoch, refs, (), inline)
        store.reset()
        assert observer.look().tasks.done == done
        asked = store.reset()
        if SHARDS - done >= SHARDS // 2:
            # The job's journal, both VMs and the heartbeat, and of the shards a listing and what is new in one of them
            assert (asked["list"], asked["get"] <= 10) == (1, True)
