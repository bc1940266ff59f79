"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print a JSON document on stdout instead of text.")]
JobId = Annotated[str, typer.Argument(help="Id of the job, a unique part of it, or its name.")]
Cpus = Annotated[int | None, typer.Option(metavar="N", help="vCPUs that each VM must have.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Memory that must be usable, as 512GB.")]
Disk = Annotated[str | None, typer.Option(metavar="SIZE", help="Disk of each VM, as 200GB.")]
Arch = Annotated[str | None, typer.Option(metavar="ARCH", help="x86_64, arm64, or any.")]
InstanceType = Annotated[str | None, typer.Option(metavar="TYPE", help="This type of machine only.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="This region only.")]
Zone = Annotated[str | None, typer.Option(metavar="NAME", help="This zone only.")]
Spot = Annotated[
    bool, typer.Option("--spot", help="Spot prices only: cheaper, and the cloud may take the machine back.")
]
OnDemand = Annotated[
    bool, typer.Option("--on-demand", help="On-demand prices only: what holds where nothing else is said.")
]
SpotWithFallback = Annotated[
    bool, typer.Option("--spot-with-fallback", help="Spot first, on-demand where no spot machine is to be had.")
]


def market_of(*, spot: bool, on_demand: bool, spot_with_fallback: bool) -> str | None:
    """The market that the three flags name; None if none was given. Raises UsageError for more than one."""
    flags = {"spot": spot, "on-demand": on_demand, "spot-with-fallback": spot_with_fallback}
    given = [name for name, said in flags.items() if said]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in given)} do not go together",
            hint="--spot-with-fallback is spot first, then on-demand",
        )
    return given[0] if given else None
