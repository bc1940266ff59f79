"""The machine of a job that has ended is given back after the job was told: people wait for results, not for that."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vmrun.core.errors import VmrunError

from .patience import patience
from .session import Session

log = logging.getLogger(__name__)


def then_give_back(session: Session, job: str, tell: Callable[[], int]) -> int:
    """Tell how the job ended, then see its machine off, as far as this program got it; the exit code.

    Whatever comes of telling, the machine is given back; unless the person leaves, who waits for nothing any more.
    """
    left = False
    try:
        return tell()
    except KeyboardInterrupt:
        left = True
        raise
    finally:
        if not left:
            _give_back(session, job)


def _give_back(session: Session, job: str) -> None:
    """No error comes of it, nor of Ctrl-C: what was asked for is done, and what is not given back ends by itself."""
    try:
        with patience(session, "giving back its machine"):
            session.client.settle(job)
    except KeyboardInterrupt:
        session.screen.note("left before the machine was seen to be gone; it ends by itself, see `vmrun status`")
    except VmrunError as error:
        log.warning("event=not-given-back job=%s error=%s", job, error.message)
        session.screen.note(f"its machine could not be given back from here, and ends by itself: {error.message}")
