"""Getting a job that outgrew its machine the next larger one: within its money, its lifetime and what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vmrun.core.errors import BudgetError, CapacityError, JobFailed, VmrunError
from vmrun.core.folds import JobFold
from vmrun.core.growth import LIFE_MIN, grown_spec, verdict
from vmrun.core.ledger import JobLedger
from vmrun.core.model import JobSpec, JobState
from vmrun.core.records import Final
from vmrun.core.units import format_duration
from vmrun.watch.observe import JobObserver

from .deck import Deck
from .retire import WATCH, give_back

#: Seconds for which whoever brought up the machine that was too small is left alone to get the next one.
PATIENCE = 30.0


def next_spec(fold: JobFold, now: float) -> JobSpec:
    """The job as its next machine is to be asked for. Raises JobFailed if its lifetime leaves none."""
    spec = grown_spec(fold.spec, fold.outgrown, now)
    if fold.outgrown and spec.max_lifetime < LIFE_MIN:
        raise JobFailed(
            f"its machines have had {format_duration(fold.spec.max_lifetime - spec.max_lifetime)} of the "
            f"{format_duration(fold.spec.max_lifetime)} that they may live (--max-lifetime)",
            hint="raise --max-lifetime, or begin with more --memory",
        )
    return spec


@contextmanager
def last_word(ledger: JobLedger, job: str) -> Iterator[None]:
    """If no larger machine can be had for a job that outgrew one, it has failed: say so in its journal, and raise.

    A machine that is not to be had just now may be later, and ends nothing.
    """
    try:
        yield
    except (BudgetError, CapacityError, JobFailed) as error:
        fold = ledger.fold
        if not fold.outgrown or fold.final is not None or error.data.get("tried"):
            raise
        told = f"{verdict(fold.outgrown[-1])}; it cannot move to a larger machine: {error.message}"
        hint = error.hint or f"`vmrun result {job}` has what had finished"
        done, failed = _counts(ledger)
        ledger.finish(Final("failed", done, failed, told, hint, error.code if isinstance(error, BudgetError) else ""))
        raise _said(error, told, hint) from error


def give_up(ledger: JobLedger, error: CapacityError) -> bool:
    """End a job that outgrew a machine, and for which no search found a larger one; whether it is over.

    It failed as its tasks did that ran out of memory. False for a job that outgrew none.
    """
    fold = ledger.refresh()
    if not fold.outgrown:
        return False
    told = f"{verdict(fold.outgrown[-1])}; no larger machine was to be had: {error.message}"
    hint = f"`vmrun result {ledger.job}` has what had finished; submit it again later, or where there is more: "
    hint += "other regions in vmrun.toml, another --on"
    done, failed = _counts(ledger)
    ledger.finish(Final("failed", done, failed, told, hint))
    return ledger.fold.final is not None


def relocate(deck: Deck, job: str, small: Sequence[str], bring_up: Callable[[], object]) -> None:
    """Have `bring_up` get the job a larger machine, and give back those that were too `small`.

    Raises what getting one raises, unless that ended the job: its journal says so then.
    """
    watch = WATCH
    try:
        # Somebody else may have been faster, if this computer slept.
        if JobObserver(deck.desk, job).look().state is JobState.pending:
            bring_up()
    except KeyboardInterrupt:
        # A person who leaves does not wait until they are seen to be gone.
        watch = 0.0
        raise
    except VmrunError as error:
        if JobLedger(deck.desk, job).refresh().final is None:
            error.hint = f"{error.hint}; `vmrun wait {job}` tries again".removeprefix("; ")
            raise
    finally:
        for vm in small:
            give_back(deck, vm, job, "outgrew it", watch=watch)


def _said(error: VmrunError, message: str, hint: str) -> VmrunError:
    kind = BudgetError if isinstance(error, BudgetError) else JobFailed
    return kind(message, hint=hint)


def _counts(ledger: JobLedger) -> tuple[int, int]:
    """Tasks that succeeded, and that failed for good."""
    done = failed = 0
    for plan in ledger.fold.shards():
        fold = ledger.shard(plan).catch_up()
        done += len(fold.done) - len(fold.failed)
        failed += len(fold.failed)
    return done, failed
