"""Results as a worker keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmrun.agent.runner.byvalue import ByValue
from vmrun.agent.runner.keeper import LARGE, Keeper
from vmrun.agent.runner.shared import Shared


def keep_large(folder: Path, value: Any, task: int = 0) -> Path:
    """The file that a worker makes of a large result."""
    shared = Shared()
    shared.restart(task, 1)
    keeper = Keeper(shared, ByValue("", "j", "m"), str(folder), [0], lambda _: None)
    assert keeper.keep(0, value) == LARGE
    shared.started[0], shared.seconds[0] = 1.5, 0.5
    path, size = keeper.large(0, {"attempt": 1})
    assert Path(path).stat().st_size == size
    return Path(path)
