"""What a driver is given when it is opened; nothing of it is global."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmrun.core.clock import Clock, Rng
from vmrun.core.desk import Desk


@dataclass(frozen=True, slots=True)
class ProvisionerContext:
    """The surroundings of one driver; each keeps to the subfolder that bears its name."""

    #: What must survive: machines, records. Made by the driver at first use, 0700.
    state_dir: Path
    #: What may be deleted at any time.
    cache_dir: Path
    clock: Clock
    rng: Rng
    #: The driver's own table of the configuration, checked by the settings already.
    settings: Mapping[str, object] = field(default_factory=dict)
    #: URL of the deployment's store; "" where it is at an address of its own, so that no cloud knows its rights.
    store_url: str = ""
    #: The deployment's journals, opened at the first call: for drivers of machines that clients share.
    desk: Callable[[], Desk] | None = None
    #: Told, in a few words, what long work is at.
    progress: Callable[[str], None] = lambda _text: None
