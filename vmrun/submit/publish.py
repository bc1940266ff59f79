"""Writing a submission: payloads first, each under its hash, then the one entry by which the job exists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vmrun.core import codec, keys
from vmrun.core.errors import Corrupt, KeyExists, StoreUnavailable
from vmrun.core.ids import is_id, new_id
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.model import JobSpec, Payload
from vmrun.core.records import Final, Submit
from vmrun.core.storage import BlobStore

from .prepare import Submission


def put_payload(blobs: BlobStore, data: bytes) -> Payload:
    """Bytes as a payload, written unless they are there."""
    payload = Payload(codec.sha256(data), len(data))
    key, size = keys.payload(payload.sha256), _stored_size(blobs, payload)
    if size is None:
        # Whoever wrote them meanwhile wrote the same bytes; in doubt about one's own write, it is looked at again.
        with contextlib.suppress(KeyExists):
            try:
                blobs.create(key, data)
            except StoreUnavailable:
                if _stored_size(blobs, payload) is None:
                    raise
    elif size != payload.size:
        # Damaged: these bytes are the only ones that may be under their hash.
        blobs.replace(key, data)
    return payload


def put_payload_file(blobs: BlobStore, path: Path, sha256: str, size: int) -> Payload:
    """A file of any size as a payload, written unless it is there; nobody may write to the file from then on."""
    payload = Payload(sha256, size)
    if _stored_size(blobs, payload) != size:
        blobs.write_file(keys.payload(sha256), str(path))
    return payload


def put_payload_pieces(blobs: BlobStore, payload: Payload, pieces: Iterable[bytes]) -> bool:
    """A payload of any size, of which `pieces` can be walked again, written unless it is there; whether it was."""
    if _stored_size(blobs, payload) == payload.size:
        return False
    blobs.write(keys.payload(payload.sha256), pieces)
    return True


def put_all(blobs: BlobStore, submission: Submission) -> None:
    """All payloads that a submission names."""
    for _, data in submission.data:
        put_payload(blobs, data)
    for payload, path in submission.files:
        put_payload_file(blobs, path, payload.sha256, payload.size)
    for payload, pieces in submission.streams:
        put_payload_pieces(blobs, payload, pieces)


def whole_spec(submission: Submission) -> JobSpec:
    """The job with those of its options that are for whoever gets it its machine."""
    options = submission.options
    return replace(
        submission.spec,
        on=options.on,
        max_lifetime=options.max_lifetime,
        keep_warm=options.keep_warm,
        keep_on_failure=options.keep_on_failure,
        max_cost=options.max_cost,
        allow_unknown_price=options.allow_unknown_price,
        on_oom=options.on_oom,
    )


def _stored_size(blobs: BlobStore, payload: Payload) -> int | None:
    """Bytes of the object that is stored for the payload; None if there is none."""
    key = keys.payload(payload.sha256)
    found = next(iter(blobs.list(key)), None)
    return found.size if found is not None and found.key == key else None


def job_of(desk: Desk, idempotency_key: str = "") -> str:
    """The id of the job to make: a new one, or the one that is every submission's with the same key.

    So of two that look at the same time whether there is one, both do not make one. Raises Corrupt.
    """
    job = new_id(desk.clock, desk.rng)
    if not idempotency_key:
        return job
    key = keys.submission(idempotency_key)
    try:
        desk.store.create(key, job.encode())
    except KeyExists:
        # Whose client died before it wrote the job has left its id to the next one.
        job = desk.store.get(key).decode("ascii", "replace")
    if not is_id(job):
        raise Corrupt(f"{key} names no job", hint="delete it, or submit with another --idempotency-key")
    return job


def publish(desk: Desk, deployment: str, job: str, spec: JobSpec, idempotency_key: str = "") -> bool:
    """Make the job exist; False if a job of this id does already. A job without tasks is done at once."""
    with contextlib.suppress(KeyExists):
        desk.store.create(keys.job_index(job), b"")
    ledger = JobLedger(desk, job)
    made = ledger.submit(Submit(job, spec, deployment, idempotency_key))
    submit = ledger.fold.submit
    if submit is not None and submit.idempotency_key != idempotency_key:
        raise Corrupt(f"job {job} was submitted with another idempotency key", hint="submit with another one")
    # The job that stands there by now, which may be another submission's of the same key, and not this one's.
    spec = ledger.fold.spec
    if spec.kind != "open" and spec.tasks == 0:
        ledger.finish(Final("done", 0, 0))
    return made
