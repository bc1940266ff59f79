"""How a machine learns that its cloud will take it back: what it may ask from inside, as data.

A driver says it, the agent asks; neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sign:
    """One question to the metadata service, and the answer that announces the machine's end."""

    path: str
    #: A regular expression that such an answer begins with. Any other answer, or none, announces nothing.
    says: str
    #: In a few words, for people.
    why: str
    #: Whether the end is certain; otherwise it has only become likely.
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Notices:
    """A metadata service, and what to ask it every few seconds."""

    #: `http://host`, without a slash at its end.
    endpoint: str
    signs: tuple[Sign, ...]
    #: Of every question.
    headers: dict[str, str] = field(default_factory=dict)
    #: Where a session is begun, by PUT with these headers, and the header that then carries its token; "": none.
    session_path: str = ""
    session_headers: dict[str, str] = field(default_factory=dict)
    session_header: str = ""
    #: Seconds between questions.
    every: float = 5.0
