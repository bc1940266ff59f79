"""How long a pass of the reaper takes, and what memory, over 100, 1,000 and 10,000 VMs.

The store is a directory with real, signed journals and heartbeats, each VM ready and at work; the cloud is in memory,
so that what is measured is vmrun. Each size runs in a process of its own: first a pass that reads everything, then one
that reads what is new. A store with a delay for each read shows what reading at the same time is worth.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import harness
from figures import Figure

SIZES, QUICK = (100, 1_000, 10_000), (20, 100)
#: Seconds that each read of the slow store takes, as object storage in the same region does.
DELAY = 0.02
DEPLOYMENT = "benchmrk"


def build(folder: Path, count: int, delay: float):
    """A deck over a directory with the journals of `count` VMs, and a cloud that has them."""
    from vmrun.core.clock import SystemClock
    from vmrun.core.desk import Desk
    from vmrun.core.signing import Keyring
    from vmrun.crypto import Ed25519Scheme, Ed25519Signer
    from vmrun.fleet.deck import Deck
    from vmrun.fleet.order import StoreAccess
    from vmrun.provisioners.fake import FakeCloud
    from vmrun.store.directory import DirectoryStore

    class Slow(DirectoryStore):
        """Every read takes a while; the others go on meanwhile."""

        late = 0.0

        def get(self, key, start=0, end=None):
            if self.late:
                time.sleep(self.late)  # noqa: TID251  it plays a store far away
            return super().get(key, start, end)

    clock, rng = SystemClock(), random.Random(1)
    store = Slow(folder / "store", fsync=False)
    signer = Ed25519Signer("client", rng.randbytes(32))
    keyring = Keyring(Ed25519Scheme(), {"client": signer.public_key})
    cloud = FakeCloud(clock, rng)
    deck = Deck(
        desk=Desk(store, clock, rng, keyring, signer, DEPLOYMENT),
        deployment=DEPLOYMENT,
        client_key="",
        provisioner=lambda _: cloud,
        store_access=lambda _: StoreAccess(""),
        recorded=lambda: DEPLOYMENT,
        state_dir=folder / "state",
        cache_dir=folder / "cache",
    )
    for number in range(count):
        add(deck, cloud, signer, number)
    store.late = delay
    return deck


def add(deck, cloud, signer, number: int) -> None:
    """One VM as a client and an agent would have left it: five entries, a heartbeat, an instance with its tags."""
    from vmrun.core import keys
    from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_PROOF, TAG_VM, InstanceSpec, Need, instance_name
    from vmrun.core.heartbeats import write_heartbeat
    from vmrun.core.ids import new_id
    from vmrun.core.records import Entry, Heartbeat, Intent, Ready
    from vmrun.core.vm_ledger import VmLedger
    from vmrun.crypto import Ed25519Signer
    from vmrun.fleet.guards import make_proof

    desk = deck.desk
    vm, job = new_id(desk.clock, desk.rng), new_id(desk.clock, desk.rng)
    name, deadline = instance_name(DEPLOYMENT, vm), float(int(desk.clock.now()) + 86400)
    offer = next(iter(cloud.offers(Need())))
    until = str(int(deadline))
    proof = make_proof(signer, name, "fake", offer.region, until)
    tags = {TAG_OWNER: DEPLOYMENT, TAG_VM: vm, TAG_DEADLINE: until, TAG_PROOF: proof}
    agent = Ed25519Signer(f"vm:{vm}", desk.rng.randbytes(32))
    desk.store.create(keys.vm_index(vm), b"")
    ledger = VmLedger(desk, vm)
    ledger.intend(
        Intent(
            vm=vm,
            deployment=DEPLOYMENT,
            on="fake",
            name=name,
            region=offer.region,
            zone=offer.zone,
            instance_type=offer.instance_type,
            vcpus=2,
            memory=1,
            arch="x86_64",
            usd_per_hour=1.0,
            user_data="0" * 64,
            hard_deadline=deadline,
            boot_grace=900.0,
            job=job,
        )
    )
    ledger.created(cloud.create(InstanceSpec(vm, DEPLOYMENT, name, offer, "", deadline, tags)).id)
    ledger.ready(Ready(agent.public_key.hex(), "boot", host="192.0.2.1", workers=2, python="3.11"))
    for _ in range(2):
        ledger.assign(new_id(desk.clock, desk.rng), 60.0)
    beat = Heartbeat(number, "boot", 5, job=job, busy="a job")
    write_heartbeat(desk.store, vm, Entry(number, "", "0" * 24, desk.clock.now(), beat), agent)


def child(count: int, delay: float) -> None:
    """Build, sweep twice, print figures as JSON."""
    from vmrun.reaper.sweep import Reaper

    with tempfile.TemporaryDirectory(prefix="vmrun-bench-") as folder:
        deck = build(Path(folder), count, delay)
        before = resident()
        reaper = Reaper(deck, 120.0)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            names = reaper.drivers()
            verdicts = reaper.sweep(names, dry_run=False, everything=False, on_stage=lambda _: None)
            seconds.append(time.perf_counter() - began)
            assert [each.policy for each in verdicts] == ["keep"] * count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"first": seconds[0], "again": seconds[1], "bytes": max(peak - before, 0), "peak": peak}))


def resident() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(*, quick: bool) -> Iterator[Figure]:
    """All sizes, and the largest but one on a slow store."""
    rows, found = [], {}
    sizes = QUICK if quick else SIZES
    for count, delay in [*((size, 0.0) for size in sizes), (sizes[-2], DELAY)]:
        command = [sys.executable, __file__, "--child", str(count), str(delay)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=900).stdout
        one = found[count, delay] = json.loads(said)
        where = f"{1000 * delay:.0f} ms a read" if delay else "directory"
        rows.append(
            (
                f"{count:,}",
                where,
                f"{one['first']:.2f} s",
                f"{one['again']:.2f} s",
                f"{one['bytes'] / 1e6:.0f} MB",
                f"{one['peak'] / 1e6:.0f} MB",
            )
        )
    print(harness.table(("VMs", "store", "first pass", "next pass", "memory of the passes", "peak of all"), rows))
    harness.write("reaper-pass", {f"{count} at {delay}": one for (count, delay), one in found.items()})
    last = found[sizes[-1], 0.0]
    yield Figure("reaper: first pass", last["first"], f"{sizes[-1]:,} VMs, five entries each")
    yield Figure("reaper: next pass", last["again"], f"{sizes[-1]:,} VMs, nothing new but heartbeats")
    yield Figure("reaper: memory", last["bytes"], f"{sizes[-1]:,} VMs, beyond what the process had")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, metavar=("VMS", "DELAY"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    asked = parser.parse_args()
    if asked.child:
        child(int(asked.child[0]), float(asked.child[1]))
        return
    for figure in measure(quick=asked.quick):
        print(f"{figure.name}: {figure.value:.3f} ({figure.note})")


if __name__ == "__main__":
    main()
