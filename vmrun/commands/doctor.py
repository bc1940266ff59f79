"""`vmrun doctor`: whether jobs can run, and what to mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrun.core.clouds import Market, Need
from vmrun.core.errors import ConfigError, Denied, VmrunError
from vmrun.core.estates import Finding, Grade
from vmrun.registry import AUTO, provisioner_names
from vmrun.rendering import documents
from vmrun.rendering.findings import finding_document, finding_lines
from vmrun.rendering.text import count, visible

from .options import Json, OnDemand, Spot, SpotWithFallback, market_of
from .request import check_described, check_option
from .session import Session, session_of

if TYPE_CHECKING:
    from vmrun.account import Checked

EXAMPLES = (
    ("vmrun doctor", "this computer, the store, and every driver that is in use"),
    ("vmrun doctor --on ec2 --cpus 128 --memory 1TB", "one cloud, and whether the quota is enough for such a machine"),
    ("vmrun doctor --on gce --policy", "the least rights that vmrun needs there"),
)
#: What is found wrong with these is a matter of rights.
_RIGHTS = ("credentials", "permission")


def _completions(incomplete: str) -> list[str]:
    return [name for name in (*provisioner_names(), AUTO) if name.startswith(incomplete)]


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    *,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Where jobs are to run; auto for all configured clouds. [default: all that is in use]",
            autocompletion=_completions,
        ),
    ] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", help="vCPUs that a job will ask for.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory that a job will ask for.")] = None,
    disk: Annotated[str | None, typer.Option(metavar="SIZE", help="Disk that a job will ask for.")] = None,
    arch: Annotated[str | None, typer.Option(metavar="ARCH", help="x86_64, arm64, or any.")] = None,
    instance_type: Annotated[str | None, typer.Option(metavar="TYPE", help="This type of machine.")] = None,
    region: Annotated[str | None, typer.Option(metavar="NAME", help="This region.")] = None,
    spot: Spot = False,
    on_demand: OnDemand = False,
    spot_with_fallback: SpotWithFallback = False,
    policy: Annotated[
        bool, typer.Option("--policy", help="Print the least rights that vmrun needs, and check nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Check all that a job depends on, and say what to mend: configuration, store, and the account at each cloud.

    Of a cloud: credentials, each permission, the quota for the machine that is described, image, and network. Nothing
    is made or changed. Exits with 0 when jobs can run, 9 when credentials or permissions are missing, 2 when anything
    else is wrong; warnings are none of these.
    """
    del json
    session = session_of(ctx)
    asked: dict[str, Any] = {"cpus": cpus, "memory": memory, "disk": disk, "arch": arch}
    asked |= {"instance_type": instance_type, "region": region}
    said = check_described(asked)
    market = market_of(spot=spot, on_demand=on_demand, spot_with_fallback=spot_with_fallback)
    need = Need(**said, market=Market(market or Market.on_demand.value))
    if on is not None:
        check_option("on", on)
    if policy:
        return _policy(session, on)
    return _show(session, _checks(session, on, need))


def _policy(session: Session, on: str | None) -> int:
    policies = session.client.account.policies(on)
    if session.as_json:
        session.screen.document(documents.document(policies=policies))
        return 0
    for name, text in policies.items():
        session.screen.lines([*([f"# {name}"] if len(policies) > 1 else []), text.rstrip("\n")])
    return 0


def _checks(session: Session, on: str | None, need: Need) -> Iterator[tuple[str, Finding]]:
    """(area, finding). A configuration that cannot be read is a finding too, and then the only one."""
    try:
        client = session.client
    except ConfigError as error:
        yield "here", Finding("configuration", Grade.bad, error.message, error.hint)
        return
    checks: Iterable[Checked] = client.account.check(on, need)
    for checked in checks:
        yield checked.area, checked.finding


def _show(session: Session, checks: Iterable[tuple[str, Finding]]) -> int:
    screen, area_before = session.screen, ""
    found: list[tuple[str, Finding]] = []
    for area, finding in checks:
        found.append((area, finding))
        if screen.as_json:
            continue
        head = [] if area == area_before else [screen.style.paint(visible(area), "bold")]
        screen.lines([*head, *finding_lines(finding, screen.style)])
        area_before = area
    error = _verdict(found)
    listed = [finding_document(area, finding) for area, finding in found]
    if screen.as_json and error is None:
        screen.document(documents.document(findings=listed))
    elif screen.as_json and error is not None:
        screen.error(error, findings=listed)
    else:
        screen.note(_summary([finding.grade for _, finding in found]))
    return 0 if error is None else error.exit_code


def _verdict(found: Iterable[tuple[str, Finding]]) -> VmrunError | None:
    bad = [(area, finding) for area, finding in found if finding.grade is Grade.bad]
    if not bad:
        return None
    area, first = next(((area, each) for area, each in bad if each.what.startswith(_RIGHTS)), bad[0])
    kind = Denied if first.what.startswith(_RIGHTS) else ConfigError
    return kind(f"{count(len(bad), 'check')} failed; {area}: {first.what}: {first.message}", hint=first.hint)


def _summary(grades: list[Grade]) -> str:
    seen = Counter(grades)
    parts = [count(len(grades), "check")]
    parts += [f"{seen[grade]} {grade.value}" for grade in (Grade.bad, Grade.warning, Grade.unclear) if seen[grade]]
    return ", ".join(parts if len(parts) > 1 else [*parts, "all good"])
