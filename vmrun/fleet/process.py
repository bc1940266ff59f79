"""Making a local machine ready: files into its directory, and the guardian starts the agent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from vmrun.agent.config import AgentConfig
from vmrun.artefact.app import app_directory
from vmrun.core import codec
from vmrun.core.blocks import PYTHON
from vmrun.core.clouds import Capabilities, Instance, Provisioner
from vmrun.core.errors import Unreachable, VmrunError
from vmrun.core.records import Ready
from vmrun.core.vm_ledger import VmLedger
from vmrun.crypto import ensure_private_key, public_hex
from vmrun.environment.uv import find_uv
from vmrun.transport.process import ProcessHost

from .deck import Deck, OnStage
from .order import Order, secrets_file

#: Seconds for the guardian to see its files.
_FLUSH_GRACE = 10.0


class ProcessBringUp:
    """Machines that are a directory and a process on this one: nothing is pushed, the installed vmrun is the agent."""

    host_key = ""

    def __init__(self, deck: Deck, order: Order, vm: str, on_stage: OnStage) -> None:
        self._deck = deck
        self._order = order
        self._vm = vm
        self._on_stage = on_stage

    def user_data(self, hard_deadline: float, capabilities: Capabilities) -> str:
        """The guardian's configuration: the same bounds that a VM's dead-man timer gets."""
        del capabilities  # the guardian needs no help to end its machine
        timings = self._order.timings
        config = {
            "hard_deadline": hard_deadline,
            "boot_grace": timings.boot_grace,
            "poll": min(5.0, timings.deadman_poll),
            "flush_grace": min(_FLUSH_GRACE, timings.flush_grace),
        }
        return json.dumps(config, sort_keys=True, separators=(",", ":"))

    def keep(self, until: float) -> bool:
        """A machine that could not be made ready here holds nothing that is not on this computer anyway."""
        del until
        return False

    def make_ready(self, ledger: VmLedger, provisioner: Provisioner, instance: Instance, hard_deadline: float) -> None:
        """Write the agent's files, let it in, and have it started. Raises Unreachable."""
        del provisioner
        deck, timings = self._deck, self._order.timings
        directory = deck.state_dir / "local" / "machines" / instance.name
        host = ProcessHost(directory)
        config_file, secrets_path = directory / "agent.json", directory / "secrets.json"
        access = deck.store_access(self._order.on, hard_deadline - deck.desk.clock.now())
        secrets = secrets_file(access.secrets, self._order.private_index)
        config = AgentConfig(
            vm=self._vm,
            deployment=deck.deployment,
            client_key=deck.client_key,
            store_url=access.url,
            store_options=access.options,
            secrets_file=str(secrets_path) if secrets else "",
            key_file=str(directory / "agent.key"),
            lease_file=str(directory / "lease"),
            hard_deadline=hard_deadline,
            work_dir=str(directory / "work"),
            environments=str(deck.cache_dir / "environments"),
            app_path=str(app_directory(deck.cache_dir)),
            python=sys.executable,
            uv=_uv(),
            lease=timings.lease,
            heartbeat=timings.heartbeat,
            dead_after=timings.dead_after,
            poll_min=timings.poll_min,
            poll_max=timings.poll_max,
            boot_grace=timings.boot_grace,
            ca_file=self._order.ca_file,
            same_machine=True,
            index=self._order.index,
        )
        if secrets:
            host.put(str(secrets_path), [secrets])
        host.put(str(config_file), [codec.canonical(codec.to_data(config))])
        key = ensure_private_key(Path(config.key_file))
        workers = len(os.sched_getaffinity(0))
        ready = Ready(public_hex(key), boot_id="", workers=workers, python=PYTHON, uv=bool(config.uv))
        if not ledger.ready(ready):
            raise Unreachable(f"{instance.name} was given back before it was ready")
        argv = [sys.executable, "-P", "-m", "vmrun.agent", "run", str(config_file)]
        host.put(str(directory / "agent.argv"), [json.dumps(argv).encode()])


def _uv() -> str:
    """Path of uv; a machine without it can still run jobs that need no packages."""
    try:
        return find_uv()
    except VmrunError:
        return ""
