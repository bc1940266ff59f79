"""The reduce's input: all results of a job's tasks, in order, in one file that a worker reads."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from vmrun.core.ledger import ShardLedger
from vmrun.core.model import ShardPlan
from vmrun.core.outcomes import OutcomeReader, in_order

from .workshop import Workshop

_LENGTH = struct.Struct("<Q")


def gather_results(shop: Workshop, job: str, plans: Sequence[ShardPlan]) -> str:
    """Write the settled result blocks of `plans`, in order of tasks; the path of the file."""
    path = os.path.join(shop.config.work_dir, f"{job}.results")
    with open(path, "wb") as file:
        for plan in plans:
            ledger = ShardLedger(shop.desk, job, plan)
            ledger.refresh()
            reader = OutcomeReader(shop.blobs, job, ledger.prefix)
            for extent in in_order(ledger.fold):
                data = reader.results(extent).slice(extent.first, extent.end - extent.first).encode()
                file.write(_LENGTH.pack(len(data)))
                file.write(data)
            shop.pulse.sign(doing="gathering results for the reduce")
    os.chmod(path, 0o644)
    return path
