"""vmrun: rent one very large VM for an hour, run a Python job on all its cores, give it back."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import submit as submit
    from .client import Client as Client
    from .core.errors import VmrunError as VmrunError
    from .core.task_views import JobStats as JobStats
    from .core.task_views import TaskRecord as TaskRecord
    from .executor import Executor as Executor
    from .handle import JobHandle as JobHandle
    from .hybrid import HybridExecutor as HybridExecutor
    from .job import Job as Job
    from .job import job as job
    from .saving import checkpoint as checkpoint
    from .saving import restored as restored
    from .sharing import shared as shared
    from .submit.request import SubmitRequest as SubmitRequest
    from .watch.results import TaskError as TaskError

__version__ = "0.1.0"

#: Public names, and where each lives. Loaded when first asked for, so that `import vmrun` costs nothing in a task.
_PUBLIC = {
    "Client": "client",
    "Executor": "executor",
    "HybridExecutor": "hybrid",
    "Job": "job",
    "JobHandle": "handle",
    "JobStats": "core.task_views",
    "SubmitRequest": "submit.request",
    "TaskError": "watch.results",
    "TaskRecord": "core.task_views",
    "VmrunError": "core.errors",
    "checkpoint": "saving",
    "job": "job",
    "restored": "saving",
    "shared": "sharing",
    "submit": "api",
}

__all__ = [
    "Client",
    "Executor",
    "HybridExecutor",
    "Job",
    "JobHandle",
    "JobStats",
    "SubmitRequest",
    "TaskError",
    "TaskRecord",
    "VmrunError",
    "checkpoint",
    "job",
    "restored",
    "shared",
    "submit",
]


class _Door(types.ModuleType):
    """The package as a module whose public names stay what they are.

    Importing the submodules `vmrun.job` and `vmrun.submit` would otherwise put them in the place of the function and
    the decorator of the same names.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Functions that name `vmrun` are pickled with it; pickle only knows plain modules.
        return importlib.import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Door


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'vmrun' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vmrun.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
