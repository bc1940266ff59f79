"""The reduce's input: all results of a job's tasks, in order, in one file that a worker reads."""

from __future__ import annotations

import os
import struct

from vmrun.core.blocks import BlockError, ResultBlock
from vmrun.core.errors import Corrupt
from vmrun.core.ledger import JobLedger
from vmrun.core.outcomes import OutcomeReader, alone, in_order

from .workshop import Workshop

_LENGTH = struct.Struct("<Q")
#: What the agent says that it does.
DOING = "gathering results for the reduce"


def gather_results(shop: Workshop, job: JobLedger, directory: str) -> str:
    """Write the settled result blocks of the job's tasks, in their order, below `directory`; the path of the file.

    Raises Corrupt when what is stored is not what was committed.
    """
    path = os.path.join(directory, "results")
    with open(path, "wb") as file:
        for plan in job.fold.shards():
            if plan.reduce:
                continue
            ledger = job.shard(plan)
            reader = OutcomeReader(shop.blobs, job.job, ledger.prefix)
            for extent in in_order(ledger.catch_up()):
                if alone(extent.block):
                    file.write(_LENGTH.pack(extent.block.size))
                    for piece in reader.pieces(extent):
                        file.write(piece)
                        shop.pulse.sign(doing=DOING)
                    continue
                try:
                    block = ResultBlock.decode(reader.block(extent)).slice(extent.first, extent.end - extent.first)
                except BlockError as error:
                    raise Corrupt(
                        f"the results of tasks {extent.first}-{extent.end - 1} are damaged: {error}"
                    ) from error
                data = block.encode()
                file.write(_LENGTH.pack(len(data)))
                file.write(data)
                shop.pulse.sign(doing=DOING)
    os.chmod(path, 0o644)
    return path
