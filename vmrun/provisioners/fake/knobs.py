"""How the fake cloud behaves."""

from __future__ import annotations

from dataclasses import dataclass

#: Least and most seconds; each time one of them is drawn.
Span = tuple[float, float]
NONE: Span = (0.0, 0.0)


@dataclass
class Knobs:
    """How the cloud behaves; the defaults are a cloud without delay or fault. May be turned at any time."""

    #: From the acceptance of a create call until the instance can be seen at all.
    appear: Span = NONE
    #: From there until it runs.
    boot: Span = NONE
    #: From an accepted delete or a power-off until the instance is gone or stopped.
    vanish: Span = NONE
    #: How long a gone instance is still listed, as gone.
    linger: Span = NONE
    #: How old the listing is that `instances` gives, and the view that `get` gives.
    list_lag: Span = NONE
    get_lag: Span = NONE
    #: Probability that an accepted create, or delete, is answered by an error.
    create_reply_lost: float = 0.0
    delete_reply_lost: float = 0.0
    #: Probability that a delete is accepted, and never happens.
    delete_lost: float = 0.0
    #: Probability that a call is refused for being one too many.
    throttled: float = 0.0
    #: The listing answers any owner with everything there is, as after a mistake in its filter.
    ignores_owner: bool = False
