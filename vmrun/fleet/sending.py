"""Sending one request to a cloud until it is answered, as often as its faults allow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.clouds import CloudError

from .search import AGAIN_BASE, AGAIN_CAP, RULES, again

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Sending:
    """One request: the same call every time, so that the cloud can tell that it is the same."""

    def __init__(self, clock: Clock, rng: Rng) -> None:
        self._clock = clock
        self._rng = rng
        #: Whether what was asked for may have happened although no call said so.
        self.doubted = False
        #: When the last call ended, on the monotonic clock.
        self.last = 0.0

    def send(self, call: Callable[[], Answer]) -> Answer:
        """What the call gives. Raises the CloudError that ended it, whose kind says what to do next."""
        clock = self._clock
        began, sends = clock.monotonic(), 0
        while True:
            try:
                return call()
            except CloudError as error:
                sends += 1
                self.last = clock.monotonic()
                self.doubted = self.doubted or RULES[error.fault].doubt
                if not again(error.fault, sends, self.last - began):
                    raise
                pause = backoff(sends - 1, self._rng, base=AGAIN_BASE, cap=AGAIN_CAP)
                log.info("event=sent-again fault=%s sends=%d pause=%.1f", error.fault.value, sends, pause)
                clock.sleep(pause)
