"""Looks at a shell's store from outside, as a reader who has its configuration."""

from __future__ import annotations

from pathlib import Path

from tests.support.shell import Shell
from vmrun.client import Client
from vmrun.core.clock import Clock
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.records import Claim
from vmrun.settings import load_settings


def client_of(shell: Shell, clock: Clock | None = None) -> Client:
    """A client with the shell's home, and this computer's clock where it is given no other."""
    home = str(shell.home)
    environment = {
        "HOME": home,
        "VMRUN_CONFIG_DIR": f"{home}/.config/vmrun",
        "VMRUN_STATE_DIR": f"{home}/.local/state/vmrun",
        "VMRUN_CACHE_DIR": f"{home}/.cache/vmrun",
        "VMRUN_STORE_URL": f"file://{home}/.local/share/vmrun/store",
        **shell.environment,
    }
    return Client(load_settings(environ=environment, cwd=Path(home)), clock)


def committed_tasks(shell: Shell, job: str) -> list[int]:
    """Tasks by their settled outcomes, in order: a task that was settled twice would stand here twice."""
    client = client_of(shell)
    ledger = JobLedger(client.desk, job)
    found: list[int] = []
    for plan in ledger.refresh().shards():
        shard = ShardLedger(client.desk, job, plan)
        shard.refresh()
        for extent in shard.fold.extents:
            found.extend(range(extent.first, extent.end))
    return sorted(found)


def claims(shell: Shell, job: str) -> list[tuple[int, str]]:
    """Shards by number with each VM that claimed them, in the order of their journals."""
    client = client_of(shell)
    ledger = JobLedger(client.desk, job)
    return [
        (plan.shard, entry.body.vm)
        for plan in ledger.refresh().shards()
        for entry, _ in ShardLedger(client.desk, job, plan).refresh()
        if isinstance(entry.body, Claim)
    ]
