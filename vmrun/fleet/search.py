"""Which offer to try next, and when to stop: decisions only, from what came of the offers that were tried.

A fault rules out the offers that it would meet again (`RULES`, and how far the cloud said that it reaches); of the
others the first one in rank is next. Nothing is called, slept or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmrun.core.clouds import CloudError, Fault, Offer, Scope

#: Offers that one order tries at most; spot ones of them, where on-demand ones are to be had after them.
TRIES_MAX, SPOT_TRIES_MAX = 20, 10
#: Seconds after which no further offer is tried.
SECONDS_MAX = 1800.0
#: Further sends of one request that got no answer, or came too often, and the seconds that they may take in all.
AGAIN_MAX, AGAIN_SECONDS = 6, 120.0
#: Seconds between such sends: exponential from the first to the second, jittered.
AGAIN_BASE, AGAIN_CAP = 1.0, 20.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What a kind of fault means for the request and for the other offers."""

    #: Further sends of the same request, with the same intent and token.
    again: int = 0
    #: How far it reaches at least, whatever the cloud says.
    least: Scope = Scope.offer
    #: No other offer would help.
    stop: bool = False
    #: Whether the instance may exist although the call failed.
    doubt: bool = False
    #: The same offer may be had with another intent, and so another name: it is tried once more.
    anew: bool = False
    #: Seconds for which other searches should know of it too.
    remembered: float = 0.0


#: A cloud that throttles or does not answer is left only after its patience is used up, and then as a whole: its
#: other zones are behind the same doors.
RULES: dict[Fault, Rule] = {
    Fault.throttle: Rule(again=AGAIN_MAX, least=Scope.cloud),
    Fault.unavailable: Rule(again=AGAIN_MAX, least=Scope.cloud, doubt=True),
    Fault.stockout: Rule(remembered=180.0),
    Fault.preempted: Rule(remembered=180.0),
    Fault.not_offered: Rule(),
    Fault.quota: Rule(least=Scope.bucket, remembered=600.0),
    Fault.permission: Rule(least=Scope.cloud),
    Fault.billing: Rule(least=Scope.cloud),
    Fault.name_taken: Rule(anew=True),
    Fault.config: Rule(stop=True),
    Fault.unknown: Rule(again=1, stop=True, doubt=True),
}
_REACH = tuple(Scope)


@dataclass(frozen=True, slots=True)
class RuledOut:
    """The offers of one market that a fault speaks of; "" stands for any."""

    on: str
    region: str
    zone: str
    instance_type: str
    bucket: str
    #: None for both markets.
    spot: bool | None
    fault: Fault
    #: Seconds since the epoch.
    at: float = 0.0
    #: Until when it is worth remembering; `at` if it is not.
    until: float = 0.0

    def covers(self, offer: Offer) -> bool:
        """Whether it speaks of this offer."""
        return (
            self.on == offer.on
            and self.region in ("", offer.region)
            and self.zone in ("", offer.zone)
            and self.instance_type in ("", offer.instance_type)
            and self.bucket in ("", offer.bucket)
            and self.spot in (None, offer.spot)
        )


@dataclass(frozen=True, slots=True)
class Tried:
    """An offer that was tried, or a cloud that could not be asked for any, and why it was not to be had."""

    on: str
    fault: Fault
    message: str
    #: None when the cloud failed before it made an offer.
    offer: Offer | None = None
    scope: Scope = Scope.offer
    #: The cloud's own name of the error.
    code: str = ""
    #: The quota's name at the cloud.
    bucket: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: CloudError, on: str, offer: Offer | None = None) -> Tried:
        """What an error says of an offer."""
        bucket = error.bucket or (offer.bucket if offer is not None and error.fault is Fault.quota else "")
        return cls(on, error.fault, error.message, offer, error.scope, error.cloud_code, bucket, error.hint)


def reach(error: CloudError) -> Scope:
    """How far a fault reaches: as far as the cloud says, and as far as its kind does at least."""
    return max(error.scope, RULES[error.fault].least, key=_REACH.index)


def ruled_out(offer: Offer, error: CloudError, now: float) -> list[RuledOut]:
    """What need not be tried after `offer` met `error`; `now` in seconds since the epoch."""
    scope = reach(error)
    # Which quota it was is known by the cloud's name for it; the offer's own is ruled out in any case.
    buckets = dict.fromkeys((offer.bucket, error.bucket or offer.bucket)) if scope is Scope.bucket else ("",)
    return [
        RuledOut(
            on=offer.on,
            region="" if scope is Scope.cloud else offer.region,
            zone=offer.zone if scope in (Scope.offer, Scope.zone) else "",
            instance_type=offer.instance_type if scope is Scope.offer else "",
            bucket=bucket,
            spot=None if scope is Scope.cloud else offer.spot,
            fault=error.fault,
            at=now,
            until=now + RULES[error.fault].remembered,
        )
        for bucket in buckets
    ]


def again(fault: Fault, sends: int, seconds: float) -> bool:
    """Whether a request that failed is to be sent again as it is, after so many sends in so many seconds."""
    return sends <= RULES[fault].again and seconds < AGAIN_SECONDS


def known_of(offer: Offer, remembered: Iterable[RuledOut]) -> RuledOut | None:
    """Why another search found this offer unavailable, if one did."""
    return next((each for each in remembered if each.covers(offer)), None)


def in_turn(offers: Iterable[Offer], remembered: Sequence[RuledOut]) -> list[Offer]:
    """Ranked offers in the order in which a search tries them: what is known to be unavailable last."""
    return sorted(offers, key=lambda offer: known_of(offer, remembered) is not None)


class Search:
    """One order's way through the offers, which come in rank."""

    def __init__(
        self, offers: Sequence[Offer], remembered: Iterable[RuledOut] = (), out: list[RuledOut] | None = None
    ) -> None:
        """`out` is for the searches of one fleet: each adds what it rules out, and tries nothing that is in it."""
        self._remembered = list(remembered)
        self._offers = in_turn(offers, self._remembered)
        self._out = out if out is not None else []
        self._anew: set[Offer] = set()
        #: What came of each offer so far.
        self.tried: list[Tried] = []
        #: Why the search ended before its offers did; "" if it did not.
        self.ended = ""

    def next(self, seconds: float) -> Offer | None:
        """The offer to try now, `seconds` after the search began; None when it is over.

        What another search found unavailable minutes ago comes last: only when nothing else is left.
        """
        if self.ended:
            return None
        left = [offer for offer in self._offers if not any(out.covers(offer) for out in self._out)]
        if sum(1 for each in self.tried if each.offer is not None and each.offer.spot) >= SPOT_TRIES_MAX:
            # A big cloud has hundreds of spot offers; who takes on-demand too must get there.
            left = [offer for offer in left if not offer.spot] or left
        if left and len(self.tried) >= TRIES_MAX:
            self.ended = f"stopped after {TRIES_MAX} tries; {len(left)} offers were not tried"
        elif left and seconds > SECONDS_MAX:
            self.ended = f"stopped after {SECONDS_MAX / 60:.0f} minutes; {len(left)} offers were not tried"
        if not left or self.ended:
            return None
        self._offers.remove(left[0])
        return left[0]

    def failed(self, offer: Offer, error: CloudError, now: float) -> list[RuledOut]:
        """Take in what came of `offer`; what others should remember of it. `now` in seconds since the epoch."""
        self.tried.append(Tried.of(error, offer.on, offer))
        if RULES[error.fault].anew and offer not in self._anew:
            self._anew.add(offer)
            self._offers.insert(0, offer)
            return []
        out = ruled_out(offer, error, now)
        self._out += out
        if RULES[error.fault].stop:
            self.ended = f"stopped, because no other offer would help: {error.fault.value}"
        return [each for each in out if each.until > each.at]

    def stop(self, why: str) -> None:
        """Try nothing more."""
        self.ended = why

    @property
    def warned(self) -> bool:
        """Whether offers were ruled out, by this search or by another one of its fleet."""
        return bool(self._out)

    def skipped(self) -> list[tuple[Offer, RuledOut]]:
        """Offers not tried yet that another search found unavailable, and why."""
        return [(offer, known) for offer in self._offers if (known := known_of(offer, self._remembered))]
