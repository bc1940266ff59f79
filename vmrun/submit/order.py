"""From a job to the machine that is asked for it."""

from __future__ import annotations

import os
from dataclasses import replace

from vmrun.core.model import JobSpec
from vmrun.environment.uv import index_variables, private_index_variables
from vmrun.fleet.order import Order, Timings
from vmrun.settings import Settings

from .prepare import package_variables


def order_of(job: str, spec: JobSpec, settings: Settings, timings: Timings) -> Order:
    """The order for a machine of the job, of all its money."""
    order = Order(
        job=job,
        on=spec.on,
        need=spec.need,
        python="" if spec.kind == "command" else spec.python,
        keep_warm=spec.keep_warm,
        max_lifetime=spec.max_lifetime,
        keep_on_failure=spec.keep_on_failure,
        max_cost=spec.max_cost,
        allow_unknown_price=spec.allow_unknown_price,
        budgeted=settings.budget.holds,
        timings=timings,
        needs_packages=spec.environment is not None,
        environment=spec.environment_name,
    )
    return with_packages(order, settings)


def with_packages(order: Order, settings: Settings) -> Order:
    """The order with what tells its machine from where it gets packages."""
    variables = package_variables(settings, os.environ)
    return replace(
        order,
        index={"variables": index_variables(variables)},
        private_index=private_index_variables(variables),
        ca_file=settings.environment.ca_file or os.environ.get("SSL_CERT_FILE", ""),
    )
