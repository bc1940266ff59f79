"""vmrun: rent one very large VM for an hour, run a Python job on all its cores, give it back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import submit as submit
    from .client import Client as Client
    from .core.errors import VmrunError as VmrunError
    from .executor import Executor as Executor
    from .handle import JobHandle as JobHandle
    from .job import Job as Job
    from .job import job as job
    from .submit.request import SubmitRequest as SubmitRequest
    from .watch.results import TaskError as TaskError

__version__ = "0.1.0"

#: Public names, and where each lives. Loaded when first asked for, so that `import vmrun` costs nothing in a task.
_PUBLIC = {
    "Client": "client",
    "Executor": "executor",
    "Job": "job",
    "JobHandle": "handle",
    "SubmitRequest": "submit.request",
    "TaskError": "watch.results",
    "VmrunError": "core.errors",
    "job": "job",
    "submit": "api",
}

__all__ = ["Client", "Executor", "Job", "JobHandle", "SubmitRequest", "TaskError", "VmrunError", "job", "submit"]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'vmrun' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vmrun.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
