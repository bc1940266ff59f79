"""`vmrun.submit`: a submission from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .client import Client
from .handle import JobHandle
from .submit.checked import checked_request
from .submit.request import SubmitRequest


def submit(
    target: str | Callable[..., Any],
    over: Iterable[Any] | None = None,
    *,
    reducer: Callable[..., Any] | None = None,
    shared: object = None,
    client: Client | None = None,
    detach: bool = False,
    **options: Any,
) -> JobHandle:
    """Submit `job.py`, `job.py::name`, a function (once, or over inputs), or a `vmrun.job`; its handle.

    `options` are those of `@vmrun.job` (`on`, `cpus`, `memory="1TB"`, `task_timeout="5m"`, …), and of SubmitRequest:
    `python`, `with_packages`, `requirements`, `shared_file`, `idempotency_key`, `argv`. `shared` is an object that is
    loaded once per VM and that tasks get from `vmrun.shared()`; None for nothing. Raises UsageError for what cannot be
    submitted as it is, and what getting a machine raises.
    """
    checked = checked_request(options, "vmrun.submit")
    request = SubmitRequest(target=target, over=over, reducer=reducer, shared=shared, **checked)
    return (client or Client()).submit(request, detach=detach)
