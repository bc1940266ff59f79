"""Making a VM ready over SSH: pinned host key, armed timer, pushed agent, and only then READY."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from vmrun.agent.config import AgentConfig
from vmrun.artefact.build import Artefact, build_artefact, build_uv
from vmrun.core import codec
from vmrun.core.clouds import Address, Capabilities, Instance, Provisioner, instance_name
from vmrun.core.errors import Unreachable, VmrunError
from vmrun.core.hosts import Host
from vmrun.core.records import Ready
from vmrun.core.vm_ledger import VmLedger
from vmrun.environment.target import Target
from vmrun.machine import borrowed, commands, layout, units
from vmrun.machine.user_data import Seed, user_data
from vmrun.store.files import FilePieces
from vmrun.transport.jump import read_jump
from vmrun.transport.keys import new_key_pair
from vmrun.transport.ssh import Login, SshHost

from .address import wait_for_address
from .deck import Deck, OnStage, Session, read_json
from .order import Order, secrets_file

log = logging.getLogger(__name__)

#: Certificates for package downloads, on the VM.
CA_FILE = f"{layout.PROGRAMS}/ca.pem"
#: Environments, on the VM; made by the agent, read by the user's code.
ENVIRONMENTS = f"{layout.STATE}/environments"
#: How an agent ends a machine that is not to stay.
POWER_OFF = ("systemctl", "poweroff", "--no-block")
#: Lines of the machine's journal in a report of what went wrong.
TAIL_LINES = 20


class SshBringUp:
    """One VM, from its first answer to its agent's start."""

    def __init__(self, deck: Deck, order: Order, vm: str, on_stage: OnStage) -> None:
        self._deck = deck
        self._order = order
        self._vm = vm
        self._on_stage = on_stage
        self._client_key = new_key_pair(f"vmrun-{vm}")
        self._first_host_key = new_key_pair()
        #: Where it was reached, and the host key that it has from then on.
        self._pinned: tuple[Address, str] | None = None

    @property
    def host_key(self) -> str:
        """The single-use host key, public half."""
        return self._first_host_key.public

    def user_data(self, hard_deadline: float, capabilities: Capabilities) -> str:
        """The VM's cloud-config; for a machine that has an owner, what it is told in its place."""
        timings = self._order.timings
        if capabilities.borrowed:
            return borrowed.borrow_data(
                borrowed.BorrowSeed(
                    vm=self._vm,
                    owner=self._deck.deployment,
                    name=instance_name(self._deck.deployment, self._vm),
                    hard_deadline=hard_deadline,
                    client_public_key=self._client_key.public,
                    boot_grace=timings.boot_grace,
                    poll=timings.deadman_poll,
                    flush_grace=timings.flush_grace,
                )
            )
        return user_data(
            Seed(
                hard_deadline=hard_deadline,
                client_public_key=self._client_key.public,
                host_private_key=self._first_host_key.private,
                host_public_key=self._first_host_key.public,
                boot_grace=timings.boot_grace,
                poll=timings.deadman_poll,
                flush_grace=timings.flush_grace,
                self_delete=capabilities.self_delete,
            )
        )

    def make_ready(self, ledger: VmLedger, provisioner: Provisioner, instance: Instance, hard_deadline: float) -> None:
        """Reach the VM, check its timer, push the agent, let it in, start it. Raises Unreachable."""
        self._on_stage(f"booting {instance.name}")
        clock, timeout = self._deck.desk.clock, self._order.timings.ssh_timeout
        address = wait_for_address(provisioner, instance, clock, timeout)
        owned = provisioner.capabilities.borrowed
        # A machine that has an owner keeps its key, which the driver made sure of.
        pinned = instance.host_key if owned else self._first_host_key.public
        host = self._connect(address, pinned)
        try:
            if not owned:
                self._check_boot(host)
            self._check_timer(host, hard_deadline)
            if not owned:
                pinned = self._rotate_host_key(host)
                host.close()
                host = self._connect(address, pinned)
            Session.of(self._deck, self._vm).save(self._client_key.private, address.host, address.port, pinned)
            self._pinned = None if owned else (address, pinned)
            facts = commands.read_facts(host.run(commands.facts()))
            artefact = self._push_agent(host, facts)
            uv = self._push_uv(host, facts)
            app = f"{layout.agent_directory(artefact.sha256)}/app"
            spot = ledger.fold.intent is not None and ledger.fold.intent.spot
            self._configure(host, provisioner, hard_deadline, uv, app, spot=spot)
            prepare = ["sudo", "-n", layout.PYTHON, "-I", f"{layout.agent_directory(artefact.sha256)}/main.py"]
            done = host.run([*prepare, "prepare", layout.AGENT_CONFIG])
            told = read_json(commands.succeeded(done, "prepare the agent").stdout, "the agent")
            ready = Ready(
                agent_key=str(told["public_key"]),
                boot_id=facts.boot_id,
                agent=artefact.sha256,
                host_key=pinned,
                host=address.host,
                port=address.port,
                user=address.user,
                workers=facts.cpus,
                python=_minor(facts),
                uv=bool(uv),
            )
            if not ledger.ready(ready):
                raise Unreachable(f"{instance.name} was given back before it was ready")
            self._on_stage("starting the agent")
            unit = units.agent_service(artefact.sha256, flush_grace=self._order.timings.flush_grace)
            commands.succeeded(host.run(commands.start_agent(), input=unit.encode()), "start the agent")
        except VmrunError:
            log.info("event=not-ready vm=%s tail=%s", self._vm, self._tail(host))
            raise
        finally:
            host.close()

    def keep(self, until: float) -> bool:
        """Have the machine, which could not be made ready, stay until then for whoever looks; False if nobody can.

        The dead-man timer ends it, as nobody renews the lease that is written. Raises Unreachable.
        """
        if self._pinned is None or not Session.of(self._deck, self._vm).exists():
            return False
        host = self._connect(*self._pinned)
        try:
            host.run(commands.stop_agent(), timeout=self._order.timings.flush_grace + 30)
            host.put(layout.LEASE, [f"{int(until)}\n".encode()], mode=0o644)
        finally:
            host.close()
        return True

    def _connect(self, address: Address, host_key: str) -> SshHost:
        jump = read_jump(self._deck.proxy_jump(self._order.on))
        login = Login(address, self._client_key.private, (host_key,), jump)
        host = SshHost(login, self._deck.desk.clock)
        host.connect(timeout=self._order.timings.ssh_timeout)
        return host

    def _check_boot(self, host: Host) -> None:
        self._on_stage("waiting for cloud-init")
        wait = self._order.timings.ssh_timeout
        boot = commands.read_boot(host.run(commands.wait_boot(wait), timeout=wait + 30))
        if boot.disabled or not boot.finished:
            raise Unreachable(
                f"cloud-init is {'disabled' if boot.disabled else f'still at {boot.stage}'} on the machine",
                hint="choose an image with cloud-init; the dead-man timer is armed by it",
            )

    def _check_timer(self, host: Host, hard_deadline: float) -> None:
        timer = commands.read_timer(host.run(commands.timer()))
        if fault := timer.fault(hard_deadline):
            raise Unreachable(f"the machine is refused: {fault}", hint="choose an image with systemd and cloud-init")
        if fault := timer.clock_fault(self._deck.desk.clock.now()):
            hint = "`vmrun doctor` tells whether it is this computer's clock; if not, choose an image that sets its own"
            raise Unreachable(f"the machine is refused: {fault}", hint=hint)

    def _rotate_host_key(self, host: Host) -> str:
        pinned = commands.read_host_key(host.run(commands.prepare_host_key()))
        commands.read_host_key(host.run(commands.activate_host_key()))
        return pinned

    def _push_agent(self, host: Host, facts: commands.Facts) -> Artefact:
        artefact = build_artefact(Target(_minor(facts), facts.arch), self._deck.cache_dir, self._on_stage)
        if host.run(commands.has_agent(artefact.sha256)).exit_code != 0:
            self._on_stage(f"pushing the agent ({artefact.size / 1e6:.1f} MB)")
            host.put(layout.agent_archive(artefact.sha256), FilePieces(artefact.path))
            installed = host.run(commands.install_agent(artefact.sha256), timeout=120)
            commands.succeeded(installed, "install the agent")
        return artefact

    def _push_uv(self, host: Host, facts: commands.Facts) -> str:
        """Path of uv on the VM, pushed if the job needs it; "" if it does not."""
        if not self._order.needs_packages and self._order.python in ("", _minor(facts)):
            return ""
        program = build_uv(Target(_minor(facts), facts.arch), self._deck.cache_dir, self._on_stage)
        if host.run(commands.has_uv(program.sha256)).exit_code != 0:
            self._on_stage(f"pushing uv ({program.size / 1e6:.1f} MB)")
            host.put(layout.uv_incoming(program.sha256), FilePieces(program.path))
            commands.succeeded(host.run(commands.install_uv(program.sha256), timeout=120), "install uv")
        return layout.uv_path(program.sha256)

    def _configure(
        self, host: Host, provisioner: Provisioner, hard_deadline: float, uv: str, app: str, *, spot: bool
    ) -> None:
        order, deck, timings = self._order, self._deck, self._order.timings
        access = deck.store_access(order.on, hard_deadline - deck.desk.clock.now())
        secrets = secrets_file(access.secrets, {})
        if secrets:
            host.put(layout.SECRETS, [secrets])
        ca_file = order.ca_file if provisioner.capabilities.shares_network else ""
        if ca_file:
            host.put(CA_FILE, [Path(ca_file).read_bytes()], mode=0o644)
        config = AgentConfig(
            vm=self._vm,
            deployment=deck.deployment,
            client_key=deck.client_key,
            store_url=access.url,
            store_options=access.options,
            secrets_file=layout.SECRETS if secrets else "",
            key_file=f"{layout.STATE}/agent.key",
            lease_file=layout.LEASE,
            hard_deadline=hard_deadline,
            work_dir=layout.WORK,
            environments=ENVIRONMENTS,
            app_path=app,
            python=layout.PYTHON,
            uv=uv,
            job_user=layout.JOB_USER,
            lease=timings.lease,
            heartbeat=timings.heartbeat,
            dead_after=timings.dead_after,
            poll_min=timings.poll_min,
            poll_max=timings.poll_max,
            boot_grace=timings.boot_grace,
            ca_file=CA_FILE if ca_file else "",
            power_off=ending(provisioner.capabilities),
            index=order.index,
            notices=provisioner.capabilities.notices if spot else None,
        )
        host.put(layout.AGENT_CONFIG, [codec.canonical(codec.to_data(config))])

    def _tail(self, host: Host) -> str:
        try:
            tail = host.run(commands.journal_tail(TAIL_LINES), timeout=10).stdout
        except VmrunError as error:
            return error.message
        return json.dumps(tail.decode("utf-8", "replace")[-4000:])


def ending(capabilities: Capabilities) -> tuple[str, ...]:
    """How an agent ends its machine: by a power-off, or through the dead-man timer where that leaves something."""
    # A machine that is only powered off is there until a client or a reaper comes by; it may be long.
    through_timer = capabilities.borrowed or capabilities.self_delete
    return borrowed.end_now() if through_timer else POWER_OFF


def _minor(facts: commands.Facts) -> str:
    return ".".join(facts.python.split(".")[:2])
