"""The agent's life: wait to be let in, run the jobs it is given, stay warm as long as asked, drain."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
from pathlib import Path

from vmrun.core.clock import Clock, SystemClock, system_rng
from vmrun.core.errors import Corrupt, SchemaError, StoreError, StoreUnavailable, Unreachable, VmrunError
from vmrun.core.ids import new_id
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.notices import Sign
from vmrun.core.records import Final
from vmrun.core.signing import Keyring
from vmrun.core.storage import BlobStore
from vmrun.crypto import Ed25519Scheme, Ed25519Signer, load_private_key
from vmrun.store.opening import open_store
from vmrun.store.options import StoreOptions
from vmrun.store.retrying import RetryingStore

from . import holding
from .config import AgentConfig
from .metadata import close_metadata
from .notices import Listener
from .pulse import Pulse
from .runner.launch import remove
from .sharing import SharedFiles
from .spent import end_if_last
from .sweep import end_predecessors
from .work import JobRun
from .workshop import OVERSPENT, Owners, Workshop

log = logging.getLogger(__name__)

#: Attempts of a VM that gave itself up to say so: each that fails means that it was given a further job meanwhile.
LEAVES_MAX = 10
#: Why a VM takes its leave that is to wait for jobs no longer.
_NO_WORK = "no work"
#: Seconds for the command that ends the machine.
POWER_OFF_TIMEOUT = 30.0
#: Seconds that a store may stay silent before a read or replace fails.
STORE_BUDGET = 60.0
#: Seconds between attempts while it does not answer; the lease, which goes with the heartbeat, bounds them.
STORE_PAUSE = 2.0


class Terminated(BaseException):
    """SIGTERM: flush and end. No handler of errors on the way up may take it for one of its own."""


def run(config: AgentConfig) -> int:
    """Serve until drained or condemned; 0 means that the machine is not needed any more."""
    signal.signal(signal.SIGTERM, _on_term)
    shop = open_workshop(config)
    _clean(config, shop.desk.clock)
    if config.job_user:
        close_metadata(config.job_user)
    shop.pulse.start()
    listener = _listen(shop)
    ended = False
    try:
        _wait_until_ready(shop)
        _serve(shop)
        ended = True
    except Terminated:
        log.info("event=terminated")
    finally:
        if listener is not None:
            listener.stop()
        shop.pulse.stop()
    if ended:
        _end_machine(config)
    return 0


def _listen(shop: Workshop) -> Listener | None:
    """Listen for the notice that the cloud takes this machine back, where there is one."""
    notices = shop.config.notices
    if notices is None:
        return None

    def heard(sign: Sign) -> None:
        # What is given up flushes what is finished, lets others have the rest, and ends: well within any notice.
        why = f"its cloud takes it back ({sign.why})"
        if sign.certain:
            shop.pulse.give_up(why)
        else:
            shop.pulse.warn(why)

    listener = Listener(notices, heard)
    listener.start()
    return listener


def _end_machine(config: AgentConfig) -> None:
    """Have the machine end now. If that fails, the lease, which nobody renews any more, ends it."""
    if not config.power_off:
        return
    try:
        done = subprocess.run(config.power_off, capture_output=True, check=False, timeout=POWER_OFF_TIMEOUT)
        log.info("event=power-off exit_code=%d", done.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("event=power-off-failed error=%s", error)


def open_workshop(config: AgentConfig) -> Workshop:
    """The agent's tools, from its configuration."""
    clock, rng = SystemClock(), system_rng()
    private = json.loads(Path(config.secrets_file).read_bytes()) if config.secrets_file else {}
    options = StoreOptions.from_data(config.store_options, private.get("store"))
    variables = {**config.index.get("variables", {}), **private.get("index", {})}
    config = dataclasses.replace(config, index={**config.index, "variables": variables})
    blobs: BlobStore = RetryingStore(open_store(config.store_url, options), clock, rng, STORE_BUDGET)
    keyring = Keyring(Ed25519Scheme(), {"client": bytes.fromhex(config.client_key)})
    signer = Ed25519Signer(f"vm:{config.vm}", load_private_key(Path(config.key_file)))
    desk = Desk(blobs, clock, rng, keyring, signer, config.deployment)
    pulse = Pulse(desk, config, boot_id())
    stream = f"{config.vm}.{new_id(clock, rng)}"
    shared = SharedFiles(os.path.join(config.work_dir, "shared"), blobs)
    return Workshop(config, desk, blobs, pulse, Owners(desk, config.dead_after), stream, shared)


def boot_id() -> str:
    """What changes at every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def _on_term(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _clean(config: AgentConfig, clock: Clock) -> None:
    """End and remove what an earlier run of the agent left: no task may run twice at once."""
    end_predecessors(config.work_dir, clock)
    if holding.held_job(config.work_dir):
        return  # somebody may be looking at what lies there
    remove(config.work_dir)
    os.makedirs(config.work_dir, mode=0o711, exist_ok=True)


def _wait_until_ready(shop: Workshop) -> None:
    clock = shop.desk.clock
    deadline = clock.monotonic() + shop.config.boot_grace
    while not _ready(shop):
        if why := shop.pulse.condemned():
            raise Unreachable(f"this VM is to end before it was let in: {why}")
        if clock.monotonic() >= deadline:
            raise Unreachable("the client did not let this VM in within its boot grace")
        clock.sleep(shop.config.poll_min)


def _ready(shop: Workshop) -> bool:
    try:
        return shop.pulse.ready()
    except StoreUnavailable as error:
        log.warning("event=store-unavailable error=%s", error.message)
        return False


def _serve(shop: Workshop) -> None:
    clock, served, pause = shop.desk.clock, 0, shop.config.poll_min
    #: The job that failed here last and asked for a hold, until it is decided.
    failed = ""
    while not shop.pulse.condemned():
        try:
            if failed:
                holding.begin(shop, failed, served)
                failed = ""
            jobs = shop.pulse.jobs()
            if served < len(jobs) and shop.pulse.held() is None:
                to_hold = _run_job(shop, jobs[served])
                if shop.pulse.given_up():
                    continue
                failed = jobs[served] if to_hold else ""
                served += 1
                shop.pulse.finished(served)
                pause = shop.config.poll_min
                continue
            if _leaves(shop, len(jobs)):
                return
        except StoreUnavailable as error:
            # A job that was interrupted by it is taken up again; what it had committed stays.
            log.warning("event=store-unavailable error=%s", error.message)
            pause = STORE_PAUSE
        except (Corrupt, SchemaError) as error:
            # Nothing that stands there is obeyed, and no further job can come: the VM is of no use to anybody.
            log.error("event=journal-refused error=%s", error.message)
            return
        clock.sleep(pause)
        pause = min(shop.config.poll_max, pause * 1.5)
    log.info("event=condemned why=%s", shop.pulse.condemned())
    if shop.pulse.given_up():
        with contextlib.suppress(StoreError):
            _take_leave(shop, shop.pulse.given_up(), served)


def _take_leave(shop: Workshop, why: str, served: int) -> None:
    """Say, at work or at rest, that this VM gave itself up after `served` jobs. Raises StoreError.

    So that nobody gives it another job; whoever it had one from gets another VM.
    """
    for _ in range(LEAVES_MAX):
        jobs = shop.pulse.jobs()
        if shop.pulse.drain(why, len(jobs)):
            break
    if why.startswith(OVERSPENT) and served < len(jobs):
        end_if_last(shop, jobs[served], why)


def _leaves(shop: Workshop, jobs: int) -> bool:
    """Whether this VM, which has none of its `jobs` jobs to do any more, takes its leave now."""
    hold = shop.pulse.held()
    if hold is not None:
        shop.pulse.finished(jobs)
        shop.pulse.sign(**holding.signs(hold))
    else:
        shop.pulse.sign(job="", busy="", doing="", running=0, queued=0, **_end(shop))
    # Read before it is judged by: whoever wants it to wait for longer meanwhile is not passed over.
    stay_until = shop.pulse.stay_until()
    if not (why := _no_longer_needed(shop)):
        return False
    if not shop.pulse.drain(why, jobs, stay_until if why == _NO_WORK else None):
        return False
    log.info("event=drained jobs=%d why=%s", jobs, why)
    return True


def _no_longer_needed(shop: Workshop) -> str:
    """Why this VM, which has no work, is not to wait for any; "" if it is."""
    if (hold := shop.pulse.held()) is not None:
        return holding.over(hold, shop.desk.clock.now())
    if why := shop.pulse.overspent():
        return f"{OVERSPENT}: {why}"
    return _NO_WORK if shop.pulse.waits() <= 0 else ""


def _end(shop: Workshop) -> dict[str, object]:
    at, (hard, because) = shop.desk.clock.now() + max(0.0, shop.pulse.waits()), shop.pulse.ends_at()
    if at > hard:
        return {"ends_at": round(hard), "ends_because": because}
    return {"ends_at": round(at), "ends_because": shop.pulse.waits_for()}


def _run_job(shop: Workshop, job: str) -> bool:
    """Run it to its end; whether it failed here and asked that the machine stays for debugging then."""
    log.info("event=job-started job=%s", job)
    at, because = shop.pulse.ends_at()
    shop.pulse.sign(job=job, busy=f"job {job}", done=0, ends_at=round(at), ends_because=because)
    run = JobRun(shop, job)
    try:
        run.run()
    except StoreError as error:
        # Damaged or denied: this job cannot go on here, and saying so must not hide the reason.
        log.error("event=job-lost job=%s error=%s", job, error.message)
        _give_up(shop, job, error)
        return False
    log.info("event=job-ended job=%s", job)
    return run.to_hold


def _give_up(shop: Workshop, job: str, error: VmrunError) -> None:
    if not isinstance(error, Corrupt | SchemaError):
        raise error
    try:
        JobLedger(shop.desk, job).finish(Final("failed", 0, 0, error.message, error.hint))
    except StoreError as second:
        log.error("event=final-not-written job=%s error=%s", job, second.message)
