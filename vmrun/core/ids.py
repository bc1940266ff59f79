"""Identifiers: 26 characters of `[a-z0-9]`, ordered by time of birth, never used twice.

They are the only part of a name that reaches a key, a path, a shell or a cloud; what users write (job names)
is data and never does.
"""

from __future__ import annotations

import re

from .clock import Clock, Rng
from .errors import UsageError

#: Crockford's base 32, lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_TIME_BITS, _RANDOM_BITS = 50, 80
#: Characters of a deployment's id, which is shorter because it is part of the name of all that a cloud holds.
DEPLOYMENT_CHARACTERS = 8


def new_id(clock: Clock, rng: Rng) -> str:
    """A fresh id: milliseconds since the epoch, then 80 random bits.

    The time part makes listings read in order; nothing that could do harm rests on it.
    """
    value = (int(clock.now() * 1000) << _RANDOM_BITS) | rng.getrandbits(_RANDOM_BITS)
    value &= (1 << (_TIME_BITS + _RANDOM_BITS)) - 1
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_deployment_id(clock: Clock, rng: Rng) -> str:
    """A fresh id of a deployment: random, of `DEPLOYMENT_CHARACTERS` characters."""
    # The last characters of an id are random bits.
    return new_id(clock, rng)[-DEPLOYMENT_CHARACTERS:]


def born(id: str) -> float:
    """Seconds since the epoch at which the id was made, on the clock of whoever made it."""
    value = 0
    for letter in check_id(id, "VM or job"):
        value = value << 5 | _ALPHABET.index(letter)
    return (value >> _RANDOM_BITS) / 1000


def first_id(at: float) -> str:
    """The lowest of all ids that are made at `at`, seconds since the epoch, or later: where a listing may begin."""
    value = max(0, int(at * 1000)) << _RANDOM_BITS
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return _ID.fullmatch(text) is not None


def check_id(text: str, what: str) -> str:
    """`text` itself, if it has the form of an id; else UsageError, before it gets near a key or a path."""
    if not is_id(text):
        raise UsageError(
            f"{text[:80]!r} is not the id of a {what}",
            hint="ids are 26 characters a-z and 0-9; `vmrun status` lists them",
        )
    return text
