"""Writing a submission: payloads first, each under its hash, then the one entry by which the job exists."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vmrun.core import codec, keys
from vmrun.core.errors import KeyExists, StoreUnavailable
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.model import JobSpec, Payload
from vmrun.core.records import Final, Submit
from vmrun.core.storage import BlobStore
from vmrun.store.files import FilePieces


def has_payload(blobs: BlobStore, sha256: str) -> bool:
    """Whether these bytes are in the store already."""
    key = keys.payload(sha256)
    found = next(iter(blobs.list(key)), None)
    return found is not None and found.key == key


def put_payload(blobs: BlobStore, data: bytes) -> Payload:
    """Bytes as a payload, written unless they are there."""
    payload = Payload(codec.sha256(data), len(data))
    if not has_payload(blobs, payload.sha256):
        # Whoever wrote them meanwhile wrote the same bytes; in doubt about one's own write, it is looked at again.
        with contextlib.suppress(KeyExists):
            try:
                blobs.create(keys.payload(payload.sha256), data)
            except StoreUnavailable:
                if not has_payload(blobs, payload.sha256):
                    raise
    return payload


def put_payload_file(blobs: BlobStore, path: Path, sha256: str, size: int) -> Payload:
    """A file of any size as a payload, written unless it is there."""
    if not has_payload(blobs, sha256):
        blobs.write(keys.payload(sha256), FilePieces(path))
    return Payload(sha256, size)


def publish(desk: Desk, deployment: str, job: str, spec: JobSpec, idempotency_key: str = "") -> bool:
    """Make the job exist; False if a job of this id does already. A job without tasks is done at once."""
    with contextlib.suppress(KeyExists):
        desk.store.create(keys.job_index(job), b"")
    ledger = JobLedger(desk, job)
    made = ledger.submit(Submit(job, spec, deployment, idempotency_key))
    if spec.kind != "open" and spec.tasks == 0:
        ledger.finish(Final("done", 0, 0))
    return made
