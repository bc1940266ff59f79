"""Saying what is waited for, on stderr, when work that is usually quick is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .session import Session

#: Seconds of silence that a person takes for work, and seconds between what is said after them.
FIRST, NEXT = 3.0, 10.0


@contextmanager
def patience(session: Session, doing: str, first: float = FIRST) -> Iterator[Callable[[str], None]]:
    """Work that is told step by step to what this gives, `doing` before the first step. Quick work says nothing."""
    steps = [doing]
    ended = threading.Event()
    began = session.clock.monotonic()

    def speak() -> None:
        pause = first
        while not ended.wait(pause):
            session.screen.note(f"after {session.clock.monotonic() - began:.0f} s still {steps[-1]}")
            pause = NEXT

    thread = threading.Thread(target=speak, name="vmrun-patience", daemon=True)
    thread.start()
    try:
        yield steps.append
    finally:
        ended.set()
        thread.join()
