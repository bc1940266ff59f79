"""A cloud in memory, for tests and simulations: it keeps the rules of the seam, and misbehaves as it is told to.

Nothing happens by itself: what an instance is follows from its history and the time on the clock that is handed in,
and every draw comes from the randomness that is handed in. One thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from vmrun.core.clock import Clock, Rng
from vmrun.core.clouds import (
    Address,
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Leftover,
    Need,
    Offer,
    Scope,
)

from .knobs import Knobs, Span

#: Calls that are remembered.
_CALLS_KEPT = 100_000
#: The next step that injected faults name.
_HINT = "this cloud was told to fail"
#: How far the faults reach that are injected.
_SCOPES = {
    Fault.stockout: Scope.zone,
    Fault.quota: Scope.bucket,
    Fault.not_offered: Scope.zone,
    Fault.throttle: Scope.region,
    Fault.permission: Scope.cloud,
    Fault.billing: Scope.cloud,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made, whatever came of it."""

    at: float
    verb: str
    #: The instance's name or id, the owner, or nothing.
    subject: str


@dataclass(frozen=True, slots=True)
class _Fault:
    verb: str
    fault: Fault
    zone: str
    #: Raised after the call took effect.
    after: bool
    #: None: as far as faults of its kind reach.
    scope: Scope | None = None
    code: str = ""
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class _Doom:
    """What becomes of an instance that was accepted."""

    fault: Fault
    reason: str
    zone: str
    after: float


@dataclass
class Machine:
    """One instance and its whole history, as an all-knowing observer sees it."""

    id: str
    name: str
    owner: str
    foreign: bool
    region: str
    zone: str
    instance_type: str
    tags: dict[str, str]
    began: float
    #: Which one it is of all that ever were, from 1.
    number: int = 0
    #: Seconds since the epoch at which the cloud itself deletes it.
    until: float = float("inf")
    #: Seconds for which it is still shown when it is gone.
    linger: float = 0.0
    spec: InstanceSpec | None = None
    #: Why it did not start, if it did not.
    reason: str = ""
    fault: Fault | None = None
    #: What it is from which moment on, in order; None: not visible.
    history: list[tuple[float, InstanceState | None]] = field(default_factory=list)

    def state(self, at: float) -> InstanceState | None:
        """What it was, is, or will be at a moment if nothing more is done to it."""
        found: InstanceState | None = None
        for since, state in self.history:
            if since > at:
                break
            found = state
        end = self.ends()
        if at >= end:
            return InstanceState.gone if at < end + self.linger else None
        return found

    def ends(self) -> float:
        """When it is, or was, gone for good, as far as that is settled already; infinite while it is not."""
        return min([self.until, *(since for since, state in self.history if state is InstanceState.gone)])

    def is_deleted(self) -> bool:
        """Whether it is gone or on its way there, by an act and not for its age."""
        return any(state is InstanceState.gone for _, state in self.history)

    def turn(self, at: float, *steps: tuple[float, InstanceState | None]) -> None:
        """Rewrite what is to come from `at` on; `steps` are seconds from then and what it is afterwards."""
        self.history = [(since, state) for since, state in self.history if since <= at]
        self.history += [(at + seconds, state) for seconds, state in steps]


def small_offers(on: str = "fake") -> list[Offer]:
    """Two types in three zones of two regions, as a cloud might sell them."""
    types = [("small", 2, 8 << 30, 0.10), ("large", 64, 256 << 30, 3.00)]
    zones = [("east", "east-1"), ("east", "east-2"), ("west", "west-1")]
    return [
        Offer(on, name, region, zone, "x86_64", vcpus, vcpus // 2, memory, price, priced_at="2026-01-01")
        for region, zone in zones
        for name, vcpus, memory, price in types
    ]


class FakeCloud:
    """An in-memory Provisioner; `knobs`, `fail` and `lose_next_delete` make it misbehave."""

    def __init__(
        self,
        clock: Clock,
        rng: Rng,
        *,
        name: str = "fake",
        capabilities: Capabilities | None = None,
        offers: Iterable[Offer] | None = None,
        knobs: Knobs | None = None,
    ) -> None:
        self.name = name
        self.capabilities = capabilities or Capabilities()
        self.knobs = knobs or Knobs()
        #: The calls so far, oldest first.
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        #: Every instance that ever was, oldest first.
        self.machines: list[Machine] = []
        #: What `leftovers` gives, by owner.
        self.left: dict[str, list[Leftover]] = {}
        self.consoles: dict[str, str] = {}
        self._clock = clock
        self._rng = rng
        self._offers = list(offers) if offers is not None else small_offers(name)
        self._faults: deque[_Fault] = deque()
        self._lost_deletes = 0
        self._dooms: deque[_Doom] = deque()

    # What a Provisioner does.

    def offers(self, need: Need) -> Iterable[Offer]:
        """What fits of the offers that this cloud was made with."""
        self._enter("offers", "")
        return [offer for offer in self._offers if _fits(offer, need)]

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def create(self, spec: InstanceSpec) -> Instance:
        """Accept an instance; the same spec again names the same one, also when it is gone by now."""
        late_fault = self._enter("create", spec.name, spec.offer.zone)
        now = self._clock.now()
        machine = next((one for one in self.machines if one.spec and one.spec.vm == spec.vm), None)
        if machine is None:
            self._check_name(spec, now)
            machine = self._accept(spec, now)
        elif machine.spec != spec:
            raise CloudError(
                f"{spec.name} was asked for before, with other parameters",
                fault=Fault.config,
                hint="a retry with other parameters needs another VM id",
            )
        if late_fault:
            raise late_fault
        if self._happens(self.knobs.create_reply_lost):
            raise _error(Fault.unavailable, f"no answer to the creation of {spec.name}")
        state = machine.state(now) or (InstanceState.gone if now >= machine.ends() else InstanceState.pending)
        return self._view(machine, now, state)

    def get(self, id: str) -> Instance:
        """One instance as the cloud tells it. Raises InstanceNotFound."""
        self._enter("get", id)
        at = self._clock.now() - self._draw(self.knobs.get_lag)
        machine = self._machine(id)
        state = machine.state(at) if machine else None
        if machine is None or state is None:
            raise InstanceNotFound(f"{self.name} knows no instance {id}", hint="it may be gone, or not yet visible")
        return self._view(machine, at, state)

    def instances(self, owner: str) -> Iterator[Instance]:
        """What the listing shows of this owner, as old as the knobs say."""
        self._enter("instances", owner)
        at = self._clock.now() - self._draw(self.knobs.list_lag)
        shown = [one for one in self.machines if self.knobs.ignores_owner or one.owner == owner]
        states = [(machine, machine.state(at)) for machine in shown]
        return iter([self._view(machine, at, state) for machine, state in states if state is not None])

    def delete(self, id: str) -> None:
        """Accept a delete. One that is not visible yet is not found, so that it lives on."""
        late_fault = self._enter("delete", id)
        now = self._clock.now()
        machine = self._machine(id)
        if machine is not None and machine.state(now) is not None and not machine.is_deleted():
            if self._lost_deletes:
                self._lost_deletes -= 1
            elif not self._happens(self.knobs.delete_lost):
                self._end(machine, now)
        if late_fault:
            raise late_fault
        if self._happens(self.knobs.delete_reply_lost):
            raise _error(Fault.unavailable, f"no answer to the deletion of {id}")

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """What was put into `left` for this owner."""
        self._enter("leftovers", owner)
        return iter(list(self.left.get(owner, [])))

    def discard(self, leftover: Leftover) -> None:
        """Take it out of `left`."""
        self._enter("discard", leftover.id)
        for found in self.left.values():
            if leftover in found:
                found.remove(leftover)

    def boot_log(self, id: str) -> str:
        """What was put into `consoles` for this instance."""
        self._enter("boot_log", id)
        return self.consoles.get(id, "")

    # What a test does to it.

    def fail(  # noqa: PLR0913 -- each says one thing of the fault
        self,
        verb: str,
        fault: Fault,
        *,
        zone: str = "",
        times: int = 1,
        after: bool = False,
        scope: Scope | None = None,
        code: str = "",
        bucket: str = "",
    ) -> None:
        """Let the next `times` calls of `verb` fail: in one zone if it is given, else in any.

        With `after` the call takes effect and only its reply is lost. `scope`, `code` and `bucket` are the error's.
        """
        self._faults.extend([_Fault(verb, fault, zone, after, scope, code, bucket)] * times)

    def doom(self, fault: Fault, reason: str, *, zone: str = "", after: float = 0.0, times: int = 1) -> None:
        """Let the next `times` instances be accepted and, seconds later, end stopped with a fault and its reason."""
        self._dooms.extend([_Doom(fault, reason, zone, after)] * times)

    def lose_next_delete(self, times: int = 1) -> None:
        """Let the next deletes be accepted and never happen."""
        self._lost_deletes += times

    def power_off(self, id: str) -> None:
        """What the machine does to itself, by its dead-man timer for example."""
        machine, now = self._known(id), self._clock.now()
        if machine.state(now) in (InstanceState.pending, InstanceState.running):
            if self.capabilities.poweroff_deletes:
                self._end(machine, now)
            else:
                stopped = (self._draw(self.knobs.vanish), InstanceState.stopped)
                machine.turn(now, (0.0, InstanceState.stopping), stopped)

    def take_away(self, id: str) -> None:
        """The cloud wants its machine back: gone at once."""
        machine, now = self._known(id), self._clock.now()
        if machine.ends() > now:
            machine.turn(now, (0.0, InstanceState.gone))

    def add_foreign(self, name: str, *, owner: str = "somebody-else", tags: dict[str, str] | None = None) -> str:
        """Put a running instance there that vmrun did not make; its id."""
        now = self._clock.now()
        where = self._offers[0]
        foreign = Machine(
            id=self._new_id(),
            name=name,
            owner=owner,
            foreign=True,
            region=where.region,
            zone=where.zone,
            instance_type=where.instance_type,
            tags=dict(tags or {}),
            began=now,
            number=len(self.machines) + 1,
            history=[(now, InstanceState.running)],
        )
        self.machines.append(foreign)
        return foreign.id

    def alive(self) -> list[Machine]:
        """What truly exists now and may cost money, visible or not; foreign ones too."""
        now = self._clock.now()
        return [one for one in self.machines if one.ends() > now]

    def _enter(self, verb: str, subject: str, zone: str = "") -> CloudError | None:
        """Record a call and raise what it is to fail with; the error to be raised after its effect, if any."""
        self.calls.append(Call(self._clock.now(), verb, subject))
        planned = next((one for one in self._faults if one.verb == verb and one.zone in ("", zone)), None)
        if planned is not None:
            self._faults.remove(planned)
            error = _error(planned.fault, f"{self.name} could not {verb} {subject}: {planned.fault.value}")
            error.scope = planned.scope or error.scope
            error.cloud_code, error.bucket = planned.code, planned.bucket
            if planned.after:
                return error
            raise error
        if self._happens(self.knobs.throttled):
            raise _error(Fault.throttle, f"{self.name} was asked too often")
        return None

    def _check_name(self, spec: InstanceSpec, now: float) -> None:
        taken = (one for one in self.machines if one.name == spec.name and one.ends() > now)
        if next(taken, None) is not None:
            raise CloudError(
                f"an instance named {spec.name} exists and is not this one",
                fault=Fault.name_taken,
                hint="names are never used twice; look at the instance in the cloud's console",
            )

    def _accept(self, spec: InstanceSpec, now: float) -> Machine:
        appears = self._draw(self.knobs.appear)
        runs = appears + self._draw(self.knobs.boot)
        machine = Machine(
            id=self._new_id(),
            name=spec.name,
            owner=spec.owner,
            foreign=False,
            region=spec.offer.region,
            zone=spec.offer.zone,
            instance_type=spec.offer.instance_type,
            tags=dict(spec.tags),
            began=now,
            number=len(self.machines) + 1,
            until=spec.hard_deadline if self.capabilities.provider_ttl else float("inf"),
            linger=self._draw(self.knobs.linger),
            spec=replace(spec, tags=dict(spec.tags)),
        )
        machine.turn(now, (appears, InstanceState.pending), (runs, InstanceState.running))
        doom = next((one for one in self._dooms if one.zone in ("", machine.zone)), None)
        if doom is not None:
            self._dooms.remove(doom)
            machine.fault, machine.reason = doom.fault, doom.reason
            stopped = (appears + doom.after, InstanceState.stopped)
            machine.turn(now, (appears, InstanceState.pending), stopped)
        self.machines.append(machine)
        return machine

    def _end(self, machine: Machine, now: float) -> None:
        machine.turn(now, (0.0, InstanceState.stopping), (self._draw(self.knobs.vanish), InstanceState.gone))

    def _view(self, machine: Machine, at: float, state: InstanceState) -> Instance:
        running = state is InstanceState.running
        return Instance(
            id=machine.id,
            name=machine.name,
            on=self.name,
            state=state,
            region=machine.region,
            zone=machine.zone,
            instance_type=machine.instance_type,
            address=Address(host=f"192.0.2.{machine.number % 256}") if running else None,
            tags=dict(machine.tags),
            created_at=min(machine.began, at),
            reason=machine.reason if state is InstanceState.stopped else "",
            fault=machine.fault if state is InstanceState.stopped else None,
        )

    def _machine(self, id: str) -> Machine | None:
        return next((one for one in self.machines if one.id == id), None)

    def _known(self, id: str) -> Machine:
        machine = self._machine(id)
        assert machine is not None, f"no instance {id} was ever made"
        return machine

    def _new_id(self) -> str:
        return f"i-{self._rng.getrandbits(48):012x}"

    def _draw(self, span: Span) -> float:
        return span[0] if span[0] == span[1] else self._rng.uniform(*span)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.uniform(0, 1) < probability


def _error(fault: Fault, message: str) -> CloudError:
    return CloudError(message, fault=fault, scope=_SCOPES.get(fault, Scope.offer), hint=_HINT)


def _fits(offer: Offer, need: Need) -> bool:
    return (
        need.cpus <= offer.vcpus
        and need.memory <= offer.memory
        and need.arch in ("", offer.arch)
        and need.instance_type in ("", offer.instance_type)
        and need.region in ("", offer.region)
        and need.zone in ("", offer.zone)
    )
