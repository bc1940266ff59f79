"""The matrix as data: which net can act on a VM whose client died in which phase, within what, and which cannot."""

from __future__ import annotations

from dataclasses import dataclass

#: Where a client may die, in the order in which it comes by.
PHASES = ("intent", "created", "ssh", "ready", "environment", "running", "downloading", "warm")
#: Phases in which an agent is at work.
SERVED = ("environment", "running", "downloading", "warm")
UNSERVED = tuple(phase for phase in PHASES if phase not in SERVED)
NETS = ("agent", "timer", "cloud", "reaper", "hand")
#: Where machines boot, and the doubles of clouds.
WORLDS = ("docker", "ec2", "gce", "ibm")

#: What a power-off from inside makes of a machine that may not delete itself, in the books' own words; "" for nothing.
POWERED_OFF = {"docker": "", "ec2": "", "gce": "TERMINATED", "ibm": "stopped"}
#: What the cells are shown with: a machine that boots and the client of the command line, or a machine of paper and a
#: client that is a forked process; "" for nothing to show.
BOOTED, PAPER = "booted", "paper"
_CLOUDS_ON_PAPER = {"docker": "", "ec2": PAPER, "gce": PAPER, "ibm": PAPER}
SHOWN_WITH = {
    "agent": dict.fromkeys(WORLDS, BOOTED),
    "timer": dict.fromkeys(WORLDS, BOOTED),
    "cloud": _CLOUDS_ON_PAPER,
    "reaper": {**_CLOUDS_ON_PAPER, "docker": BOOTED},
    "hand": {**_CLOUDS_ON_PAPER, "docker": BOOTED},
}

_EARLY = "no agent runs yet"
_NO_LIMIT = "it ends no machine by a clock of its own"


@dataclass(frozen=True)
class Cell:
    """What one net does about a VM whose client died in one phase."""

    #: The bound, in the words of the settings; "" where it cannot.
    within: str
    #: Why it cannot.
    because: str = ""

    @property
    def acts(self) -> bool:
        return bool(self.within)


def cell(world: str, net: str, phase: str) -> Cell:
    """What holds there, by the design; the tests of this folder show it."""
    if net == "agent":
        return Cell(_DRAINED[phase]) if phase in SERVED else Cell("", _EARLY)
    if net == "timer":
        return Cell("lease") if phase in SERVED else Cell("boot_grace")
    if net == "cloud":
        return Cell("max_lifetime") if world == "gce" else Cell("", _NO_LIMIT)
    if net == "reaper":
        return Cell(_REAPED[phase])
    return Cell("one command")


def shown(net: str, how: str) -> tuple[str, ...]:
    """The worlds in which the net is shown so, in each phase in which it acts."""
    return tuple(world for world, with_ in SHOWN_WITH[net].items() if with_ == how)


_DRAINED = {
    "environment": "the end of the job",
    "running": "the end of the job",
    "downloading": "at once",
    "warm": "keep_warm",
}
_REAPED = {
    "intent": "boot_grace",
    "created": "boot_grace",
    "ssh": "boot_grace",
    "ready": "dead_after and its contest",
    "environment": "dead_after and its contest",
    "running": "dead_after and its contest",
    "downloading": "one pass",
    "warm": "dead_after and its contest",
}
