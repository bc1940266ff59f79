"""Where everything lies in the store: the only place where keys are spelled."""

from __future__ import annotations

import hashlib
import re

#: Journal entries are numbered with this many digits, so that they list in order.
DIGITS = 6
#: Characters of a host's own name in its keys.
_HOST_MAX = 60

DEPLOYMENT = "deployment.json"
PAYLOADS = "payloads/"
JOBS_INDEX = "index/jobs/"
VMS_INDEX = "index/vms/"
VMS = "vms/"
HOSTS_INDEX = "index/hosts/"
POOLS_INDEX = "index/pools/"
SUBMISSIONS = "index/submissions/"


def entry(prefix: str, n: int) -> str:
    """Entry `n` of the journal under `prefix` (which ends in `/`)."""
    return f"{prefix}{n:0{DIGITS}d}"


def payload(sha256: str) -> str:
    """A content-addressed input, shared by all jobs that use the same bytes."""
    return f"{PAYLOADS}{sha256}"


def job_journal(job: str) -> str:
    """Prefix of a job's journal: SUBMIT, TASKS, CLOSE, CANCEL, FINAL."""
    return f"jobs/{job}/journal/"


def shard_journals(job: str) -> str:
    """Prefix of the journals of all shards of a job."""
    return f"jobs/{job}/shards/"


def shard_journal(job: str, shard: int) -> str:
    """Prefix of a shard's journal: CLAIM, RESULTS, RELEASE."""
    return f"jobs/{job}/shards/{shard:0{DIGITS}d}/"


def segment(job: str, sha256: str) -> str:
    """Outcomes of tasks too large to stand in the entry that names them."""
    return f"jobs/{job}/segments/{sha256}"


def output_file(job: str, sha256: str) -> str:
    """A file that a task wrote under `$VMRUN_OUTPUT`."""
    return f"jobs/{job}/files/{sha256}"


def state(job: str, task: int, sha256: str) -> str:
    """What a task saved of itself while it ran; gone when it is superseded."""
    return f"jobs/{job}/states/{task}-{sha256}"


def task_output(job: str, stream: str = "") -> str:
    """Prefix of captured stdout and stderr; `stream` is one writer's own sequence (`<vm id>.<epoch>`)."""
    return f"jobs/{job}/output/{stream}/" if stream else f"jobs/{job}/output/"


def job_index(job: str) -> str:
    """An empty object per job, so that jobs can be listed without their contents."""
    return f"{JOBS_INDEX}{job}"


def submission(idempotency_key: str) -> str:
    """An object per idempotency key that names the job of all submissions with it."""
    return f"{SUBMISSIONS}{hashlib.sha256(idempotency_key.encode()).hexdigest()}"


def vm_index(vm: str) -> str:
    """An empty object per VM that is not known to be gone."""
    return f"{VMS_INDEX}{vm}"


def vm_journal(vm: str) -> str:
    """Prefix of a VM's journal: INTENT to GONE."""
    return f"{VMS}{vm}/"


def heartbeat(vm: str) -> str:
    """The one object that is overwritten; its only writer is the VM's agent."""
    return f"heartbeats/{vm}"


def host_id(host: str, port: int) -> str:
    """How a borrowed host is called in keys: legible, and another for every host and port."""
    place = f"{host.lower()}:{port}"
    plain = re.sub(r"[^a-z0-9.-]", "-", host.lower())[:_HOST_MAX]
    return f"{plain.strip('.-') or 'host'}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def host_index(host: str) -> str:
    """An empty object per host that was ever borrowed."""
    return f"{HOSTS_INDEX}{host}"


def host_journal(host: str) -> str:
    """Prefix of a borrowed host's journal: BORROW, RETURN."""
    return f"hosts/{host}/"


def pool_index(pool: str) -> str:
    """An empty object per pool that is wanted, or has VMs still."""
    return f"{POOLS_INDEX}{pool}"


def pool_journal(pool: str) -> str:
    """Prefix of a pool's journal: POOL, again and again."""
    return f"pools/{pool}/"
