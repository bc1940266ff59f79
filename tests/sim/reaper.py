"""A reaper: looks at the cloud, then at the journals, and condemns, contests, deletes and verifies."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.tools import Scene
from tests.sim.world import Machine, Process
from vmrun.core import keys
from vmrun.core.clouds import CloudError
from vmrun.core.errors import Corrupt, StoreUnavailable
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ledger import Desk
from vmrun.core.vm_ledger import VmLedger

#: Passes in a row in which the cloud must not know a VM before it counts as absent.
ABSENT = 2


def start(scene: Scene, machine: Machine, delay: float) -> None:
    """Run a reaper, and another one whenever it is lost."""
    lives = 0

    def again() -> None:
        nonlocal lives
        lives += 1
        scene.world.spawn(machine, f"{machine.name}.{lives}", Reaper(scene, f"{machine.name}.{lives}").run)

    machine.on_restart = again
    scene.world.after(delay, again)


@dataclass
class Watched:
    """What one reaper knows of one VM, on its own clock."""

    ledger: VmLedger
    first_seen: float
    absent: int = 0
    counter: int | None = None
    counter_since: float = 0.0
    suspected_since: float | None = None


class Reaper:
    """One life of a reaper."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene = scene
        self.name = name
        self.vms: dict[str, Watched] = {}

    def run(self, process: Process) -> None:
        desk = self.scene.desk(process)
        while True:
            try:
                self.look(process, desk)
            except (StoreUnavailable, CloudError):
                # Nothing is concluded from what could not be listed.
                pass
            process.sleep(self.scene.knobs.reap_every)

    def look(self, process: Process, desk: Desk) -> None:
        """One pass."""
        visible = self.scene.cloud.instances()
        for listed in desk.store.list(keys.VMS_INDEX):
            vm = listed.key[len(keys.VMS_INDEX) :]
            if vm not in self.vms:
                self.vms[vm] = Watched(VmLedger(desk, vm), process.monotonic())
            watched = self.vms[vm]
            if watched.ledger.fold.gone is not None and vm not in visible:
                continue
            try:
                self.see_to(process, desk, watched, there=vm in visible)
            except (StoreUnavailable, CloudError):
                continue
            except Corrupt:
                self.scene.world.note("journal refused")

    def see_to(self, process: Process, desk: Desk, watched: Watched, *, there: bool) -> None:
        ledger = watched.ledger
        fold = ledger.refresh()
        if fold.intent is None:
            return
        watched.absent = 0 if there else watched.absent + 1
        if fold.delete is not None or fold.gone is not None:
            if there:
                if fold.gone is not None:
                    self.scene.world.note("late instance deleted")
                self.scene.cloud.delete(ledger.vm)
            elif watched.absent > ABSENT and fold.gone is None:
                process.stall()
                if ledger.gone("not listed"):
                    self.scene.oracle.moved(ledger.vm, "GONE")
            return
        why = self.judge(process, desk, watched, fold)
        if why:
            self.condemn(process, ledger, why)

    def judge(self, process: Process, desk: Desk, watched: Watched, fold: VmFold) -> str:
        """Why the VM is to go; "" if it is to stay."""
        now = process.monotonic()
        if watched.absent > ABSENT and (fold.cloud_id or now - watched.first_seen > self.scene.knobs.register):
            return "absent"
        if fold.ready is None:
            return "never ready" if now - watched.first_seen > self.scene.knobs.register else ""
        beat = read_heartbeat(desk.store, watched.ledger.vm, desk.keyring)
        counter = -1 if beat is None else beat.counter
        if counter != watched.counter:
            watched.counter, watched.counter_since, watched.suspected_since = counter, now, None
        if now - watched.counter_since > self.scene.knobs.dead_after:
            return self.contest(process, watched, fold, now)
        idle = beat is not None and not beat.busy and beat.idle > fold.keep_warm
        return "idle" if idle and beat is not None and beat.seen == watched.ledger.seen else ""

    def contest(self, process: Process, watched: Watched, fold: VmFold, now: float) -> str:
        if not fold.suspected:
            process.stall()
            watched.ledger.suspect(self.name)
            watched.suspected_since = None
            return ""
        if watched.suspected_since is None:
            watched.suspected_since = now
            return ""
        return "dead" if now - watched.suspected_since > self.scene.knobs.contest else ""

    def condemn(self, process: Process, ledger: VmLedger, why: str) -> None:
        """Condemn on what was seen when it was judged, and no more than that; then delete."""
        seen = ledger.seen
        process.stall()
        if ledger.delete(why, f"{self.name}#{seen}", seen=seen):
            self.scene.oracle.moved(ledger.vm, "DELETE")
            process.stall()
            self.scene.cloud.delete(ledger.vm)
