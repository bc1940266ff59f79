"""A cloud whose calls are slow, lose their replies, and sometimes take effect minutes later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.oracle import Oracle
from tests.sim.world import Machine, World
from vmrun.core.clouds import CloudError, Fault


@dataclass
class Rented:
    """One instance; `machine` runs once it has booted."""

    vm: str
    machine: Machine
    booted: bool = False
    off: bool = False


class Cloud:
    """Creates at most one instance per VM id, and boots it."""

    def __init__(self, world: World, oracle: Oracle, boot: Callable[[Rented], None], unreliable: float) -> None:
        self._world = world
        #: Probability of each misfortune, per call.
        self._unreliable = unreliable
        self._oracle = oracle
        self._boot = boot
        self.rented: dict[str, Rented] = {}
        self._ever: set[str] = set()
        #: Calls so far that change something, and the fate of some of them, by number.
        self.calls = 0
        self.fates: dict[int, str] = {}

    def create(self, vm: str) -> str:
        """Idempotent by VM id, even after the instance's end."""
        self._oracle.creating(vm)
        fate = self._ask("create", vm)
        if fate == "late":
            self._world.after(self._world.rng.uniform(0.0, 300.0), lambda: self._appear(vm, late=True))
            raise CloudError("timed out", fault=Fault.unavailable)
        self._appear(vm, late=False)
        if fate == "after":
            raise CloudError("connection reset", fault=Fault.unavailable)
        return f"i-{vm[-6:]}"

    def delete(self, vm: str) -> None:
        """Not found is success."""
        self._oracle.terminating(vm)
        fate = self._ask("delete", vm)
        if fate == "late":
            # Accepted, and never done.
            return
        rented = self.rented.pop(vm, None)
        if rented is not None:
            self._world.log(f"terminated {vm[-6:]}")
            rented.machine.lose()
        if fate == "after":
            raise CloudError("connection reset", fault=Fault.unavailable)

    def get(self, vm: str) -> Rented | None:
        """One instance, uncached."""
        self._ask("get", vm)
        return self.rented.get(vm)

    def instances(self) -> list[str]:
        """Every instance's VM id, uncached and complete."""
        self._ask("instances", "")
        return sorted(self.rented)

    def power_off(self, vm: str) -> None:
        """The machine itself ends; its instance goes with it."""
        rented = self.rented.pop(vm, None)
        self._world.log(f"powered off {vm[-6:]}")
        if rented is not None:
            rented.machine.lose()

    def _appear(self, vm: str, *, late: bool) -> None:
        if vm in self._ever:
            return
        self._ever.add(vm)
        world = self._world
        truth = self._oracle.vms[vm]
        if truth.deleted or truth.gone:
            world.note("instance that appeared after its DELETE")
        world.log(f"created {vm[-6:]}{' late' if late else ''}")
        rented = self.rented[vm] = Rented(vm, Machine(world, f"vm-{len(self._ever)}"))

        def boot() -> None:
            if not rented.machine.dead:
                rented.booted = True
                self._boot(rented)

        world.after(world.rng.uniform(5.0, 30.0), boot)

    def _ask(self, verb: str, vm: str) -> str:
        world = self._world
        world.log(f"cloud {verb} {vm[-6:]}")
        if not world.faulty:
            world.wait(0.2)
            return ""
        world.wait(world.rng.uniform(0.1, 3.0) if world.rng.random() < 0.95 else world.rng.uniform(3.0, 60.0))
        fate = self._fate(verb, world.rng.random())
        if fate == "before":
            raise CloudError("throttled", fault=Fault.throttle)
        return fate

    def _fate(self, verb: str, draw: float) -> str:
        if verb in ("create", "delete"):
            self.calls += 1
            if self.calls in self.fates:
                return self.fates[self.calls]
        share = self._unreliable
        return "before" if draw < share else "after" if draw < 2 * share else "late" if draw < 3 * share else ""
