"""Hosts that the user has, as a cloud: each may be borrowed by one VM at a time, and is clean before and after.

Who may borrow a host is decided in the store; who has borrowed it is what the host itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from vmrun.core.clock import Clock
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
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
    instance_name,
)
from vmrun.core.desk import Desk
from vmrun.core.errors import ConfigError, Unreachable
from vmrun.core.host_records import Borrow
from vmrun.core.hosts import Completed
from vmrun.core.ids import is_id
from vmrun.core.leases import HostLedger, leased_hosts
from vmrun.machine import borrowed, commands, layout
from vmrun.machine.borrowed import Marker
from vmrun.provisioners.context import ProvisionerContext

from .errors import HostError, Trouble
from .facts import FactsCache, fits, is_named, offer_of
from .hosts import HostName, configured_hosts, parse_host
from .leasing import MARGIN, held, held_by_others, may_take
from .openssh import OpenSsh

Answer = TypeVar("Answer")
#: Hosts that are asked at once.
_AT_ONCE = 16
#: Seconds for a look at a host, and for borrowing it, an end of the last cleaning included.
_LOOK, _BORROWING = 30.0, 360.0
#: Seconds that an agent may take to flush at most, as the settings allow.
_FLUSH_MAX = 3600.0
_LOG_LINES = 100


class Runner(Protocol):
    """What runs commands on hosts, as root; OpenSsh is one."""

    def run(self, host: HostName, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Raises HostError when the command did not run."""
        ...

    def address(self, host: HostName, user: str) -> Address:
        """Where a user of the host logs in."""
        ...


def open_driver(context: ProvisionerContext) -> SshProvisioner:
    """The driver of the configured hosts. Nothing is asked of them yet. Raises ConfigError."""
    if context.desk is None:
        raise ConfigError("hosts are leased in a store, and there is none", hint="name one: --store, or [store] url")
    cache = FactsCache(context.cache_dir / "ssh")
    hosts = configured_hosts(context.settings)
    return SshProvisioner(hosts, OpenSsh(context.settings), context.desk, context.clock, cache, context.progress)


class SshProvisioner:
    """The hosts. They cost nothing."""

    name = "ssh"
    capabilities = Capabilities(poweroff_deletes=True, borrowed=True)

    def __init__(
        self,
        hosts: Sequence[HostName],
        runner: Runner,
        desk: Callable[[], Desk],
        clock: Clock,
        facts: FactsCache,
        progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._runner = runner
        self._desk = desk
        self._clock = clock
        self._facts = facts
        self._progress = progress

    def prepare(self) -> None:
        """Nothing is needed."""

    def offers(self, need: Need) -> Iterable[Offer]:
        """One for each host that is large enough and can be worked on now, whoever has it.

        CloudError if none can be worked on of those that might do.
        """
        now = self._clock.now()
        known = {host: self._facts.recall(host, now) for host in self._hosts if is_named(host, need)}
        asked = [host for host, facts in known.items() if facts is None or fits(facts, need)]
        answers = self._each(asked, self._ask_facts)
        found = {host: answer for host, answer in answers.items() if isinstance(answer, commands.Facts)}
        self._facts.note(found, now)
        troubles = [answer for answer in answers.values() if isinstance(answer, HostError)]
        for trouble in troubles:
            self._progress(f"left out: {trouble.message}")
        if troubles and not found:
            raise _none_works(troubles)
        return [offer_of(host, facts) for host, facts in found.items() if fits(facts, need)]

    def create(self, spec: InstanceSpec) -> Instance:
        """Lease the host that is offered, and make of it what a fresh machine would be.

        CloudError (stockout) if another VM has it; the host is then left alone.
        """
        if spec.name != instance_name(spec.owner, spec.vm):
            raise CloudError(f"{spec.name[:120]} is the name of another VM", fault=Fault.config)
        host = self._offered(spec.offer)
        try:
            grace, document = borrowed.boot_grace(spec.user_data), borrowed.tagged(spec.user_data, spec.tags)
        except ValueError as error:
            raise CloudError("the user data is not for a borrowed machine", fault=Fault.config) from error
        body = Borrow(spec.vm, spec.owner, host.text, spec.name, spec.hard_deadline, grace, spec.tags)
        desk = self._desk()
        ledger = HostLedger(desk, host.key)
        if not ledger.borrow(body, lambda fold: may_take(desk, fold, lambda: self._marker(host))):
            assert ledger.fold.holder is not None, "it would have been borrowed"
            raise held(host, ledger.fold.holder)
        try:
            return self._occupy(host, spec, document)
        except CloudError:
            self._undo(host, ledger, spec.vm)
            raise

    def get(self, id: str) -> Instance:
        """The VM that the host says it has. Raises InstanceNotFound, and CloudError if the host cannot say.

        Past its deadline one on a host that cannot say is shown as it was leased: it may be given back.
        """
        host, vm = self._place(id)
        holder = HostLedger(self._desk(), host.key).refresh().holder
        if holder is None or holder.vm != vm:
            raise _not_found(id)  # it was cleaned, or is by whoever took it
        try:
            marker = self._marker(host)
        except HostError as error:
            if self._clock.now() > holder.hard_deadline + MARGIN:
                return _leased(host, holder, error)
            raise _unavailable(error) from error
        if marker is None or marker.vm != vm:
            raise _not_found(id)
        return _instance(host, marker)

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every VM that has a lease in the store and is on its host, or may be: a host that cannot say counts too."""
        leases = [
            (parse_host(holder.host), holder)
            for ledger in leased_hosts(self._desk())
            if (holder := ledger.fold.holder) is not None and holder.deployment == owner
        ]
        markers = self._each([host for host, _ in leases], self._marker)
        for host, holder in leases:
            marker = markers[host]
            if isinstance(marker, HostError):
                # Nothing is concluded from silence but what the deadline says.
                yield _leased(host, holder, marker)
            elif marker is not None and marker.vm == holder.vm:
                yield _instance(host, marker)

    def delete(self, id: str) -> None:
        """Take all that the VM brought off its host, and end its lease; the host stays as it is otherwise."""
        try:
            host, vm = self._place(id)
        except InstanceNotFound:
            return
        ledger = HostLedger(self._desk(), host.key)
        holder = ledger.refresh().holder
        if holder is None or holder.vm != vm:
            return  # it was cleaned, or is by whoever took it
        try:
            self._clean(host, vm)
            evidence = "cleaned"
        except HostError as error:
            if self._clock.now() <= holder.hard_deadline + MARGIN:
                raise _unavailable(error) from error
            evidence = f"past its deadline, when the host cleans itself; {error.message}"
        ledger.give_back(vm, evidence)

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """None: what a VM brings goes with it."""
        del owner
        return iter(())

    def discard(self, leftover: Leftover) -> None:
        """There is nothing to discard."""

    def boot_log(self, id: str) -> str:
        """What the host's journal says of the agent and the timer."""
        host, _ = self._place(id)
        units = [word for unit in (layout.AGENT_SERVICE, layout.DEADMAN_SERVICE) for word in ("--unit", unit)]
        argv = ["journalctl", "--no-pager", "--quiet", f"--lines={_LOG_LINES}", *units]
        return self._runner.run(host, argv, timeout=_LOOK).stdout.decode("utf-8", "replace")

    def _occupy(self, host: HostName, spec: InstanceSpec, document: str) -> Instance:
        """Have the host put itself into the state of a fresh machine, and cleaned before if need be."""
        for _ in range(2):
            told = self._ask(host, borrowed.borrow(), borrowed.read_borrowed, _BORROWING, document.encode())
            if told.refused:
                raise _refused(host, told.refused)
            if told.holder is None:
                deadline = int(spec.hard_deadline)
                marker = Marker(spec.vm, spec.owner, spec.name, deadline, int(self._clock.now()), spec.tags)
                address = self._runner.address(host, layout.LOGIN_USER)
                return _instance(host, marker, address=address, host_key=told.host_key)
            if not self._is_over(told.holder, spec, told.now):
                raise held_by_others(host, told.holder)
            self._clean(host, told.holder.vm)
        raise _refused(host, "others borrow it at the same time")

    def _is_over(self, marker: Marker, spec: InstanceSpec, now: int) -> bool:
        """Whether a VM that is on the host, and has no lease of it, is to go."""
        if now > marker.hard_deadline + MARGIN:
            return True
        # The same machine may be configured under two names: then the lease is another one.
        leases = leased_hosts(self._desk())
        elsewhere = any(ledger.fold.holder is not None and ledger.fold.holder.vm == marker.vm for ledger in leases)
        return marker.owner == spec.owner and not elsewhere

    def _undo(self, host: HostName, ledger: HostLedger, vm: str) -> None:
        """Leave nothing behind; if the host cannot be told, its timer does it, and the lease is free once it did."""
        try:
            self._clean(host, vm)
        except CloudError as error:
            self._progress(f"{host.text} will clean itself: {error.message}")
            return
        ledger.give_back(vm, "it did not come to be")

    def _clean(self, host: HostName, vm: str) -> None:
        timeout = _FLUSH_MAX + borrowed.CLEANING
        self._ask(host, borrowed.clean(vm), borrowed.read_cleaned, timeout)

    def _marker(self, host: HostName) -> Marker | None:
        return self._ask(host, borrowed.borrower(), borrowed.read_borrower, _LOOK)

    def _ask_facts(self, host: HostName) -> commands.Facts:
        return self._ask(host, borrowed.facts(), commands.read_facts, _LOOK)

    def _ask(
        self,
        host: HostName,
        argv: Sequence[str],
        read: Callable[[Completed], Answer],
        timeout: float,
        input: bytes = b"",
    ) -> Answer:
        done = self._runner.run(host, argv, input=input, timeout=timeout)
        try:
            return read(done)
        except Unreachable as error:
            raise HostError(host, Trouble.failed, error.message) from error

    def _each(self, hosts: Sequence[HostName], ask: Callable[[HostName], Answer]) -> dict[HostName, Answer | HostError]:
        def told(host: HostName) -> Answer | HostError:
            try:
                return ask(host)
            except HostError as error:
                return error

        if not hosts:
            return {}
        with ThreadPoolExecutor(min(_AT_ONCE, len(hosts))) as pool:
            return dict(zip(hosts, pool.map(told, hosts), strict=True))

    def _offered(self, offer: Offer) -> HostName:
        for host in self._hosts:
            if host.place == offer.zone:
                return host
        raise CloudError(f"{offer.zone[:80]} is none of the configured hosts", fault=Fault.not_offered)

    def _place(self, id: str) -> tuple[HostName, str]:
        """The host and the VM in an instance's id; by its name, the host that it has a lease of."""
        text, slash, vm = id.rpartition("/")
        if slash and is_id(vm):
            try:
                return parse_host(text), vm
            except ConfigError as error:
                raise _not_found(id) from error
        if id:
            for ledger in leased_hosts(self._desk()):
                holder = ledger.fold.holder
                if holder is not None and holder.name == id:
                    return parse_host(holder.host), holder.vm
        raise _not_found(id)


def _instance(
    host: HostName, marker: Marker, *, address: Address | None = None, host_key: str = "", reason: str = ""
) -> Instance:
    return Instance(
        id=f"{host.text}/{marker.vm}",
        name=marker.name,
        on=SshProvisioner.name,
        state=InstanceState.running,
        region="own",
        zone=host.place,
        instance_type=host.place,
        address=address or Address(host.host, host.port or 22, layout.LOGIN_USER),
        tags={**marker.tags, TAG_OWNER: marker.owner, TAG_VM: marker.vm, TAG_DEADLINE: str(marker.hard_deadline)},
        created_at=float(marker.at),
        reason=reason,
        host_key=host_key,
    )


def _leased(host: HostName, holder: Borrow, error: HostError) -> Instance:
    """A VM as its lease knows it, for a host that cannot say."""
    marker = Marker(holder.vm, holder.deployment, holder.name, int(holder.hard_deadline), 0, holder.tags)
    return _instance(host, marker, reason=error.message)


def _not_found(id: str) -> InstanceNotFound:
    return InstanceNotFound(f"no host has the VM {id[:120]}", hint="it was cleaned, or cleaned itself")


def _refused(host: HostName, reason: str) -> CloudError:
    message = f"{host.text} cannot be borrowed: {reason}"
    return CloudError(message, fault=Fault.not_offered, scope=Scope.zone, cloud_code="refused", hint=message)


def _unavailable(error: HostError) -> CloudError:
    """That a host does not answer says nothing of the VM that it has."""
    return CloudError(error.message, fault=Fault.unavailable, scope=Scope.zone, hint=error.hint)


def _none_works(troubles: Sequence[HostError]) -> CloudError:
    lasting = all(each.fault is Fault.not_offered for each in troubles)
    message = "; ".join(each.message for each in troubles[:4])
    hint = troubles[0].hint if lasting else f"{message}: {troubles[0].hint}"
    return CloudError(message, fault=Fault.config if lasting else Fault.stockout, scope=Scope.cloud, hint=hint)
