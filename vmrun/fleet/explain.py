"""The last word of a search that found nothing: what was tried, why not, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmrun.catalog import CLOUDS
from vmrun.catalog.nearest import Where, nearest
from vmrun.core.clouds import Fault, Need
from vmrun.core.errors import CapacityError, Denied, UsageError, VmrunError
from vmrun.core.units import format_size

from .search import RULES, Tried

#: Next steps that are told at most.
_STEPS_MAX = 4
#: Places that a sentence names of one fault.
_PLACES_MAX = 4
_NOT_ALLOWED = (Fault.permission, Fault.billing)
#: The kinds whose next step helps most come first.
_ORDER = (
    Fault.config,
    Fault.permission,
    Fault.billing,
    Fault.unknown,
    Fault.name_taken,
    Fault.quota,
    Fault.unavailable,
    Fault.throttle,
    Fault.not_offered,
    Fault.stockout,
    Fault.preempted,
)


def nothing_fits(on: str, need: Need) -> CapacityError:
    """The error for a need that no offer meets."""
    wanted = [f"{need.cpus} CPUs"] if need.cpus else []
    wanted += [f"{format_size(need.memory)} of memory"] if need.memory else []
    wanted += [f"tasks of {format_size(need.task_memory)}"] if need.task_memory else []
    wanted += [f"{format_size(need.disk)} of disk"] if need.disk else []
    wanted += [text for text in (need.instance_type, need.arch) if text]
    place = need.zone or need.region
    return CapacityError(
        f"nothing on {on} fits {', '.join(wanted) or 'this job'}{f' in {place}' if place else ''}",
        hint=_way_out(on, need),
    )


def _way_out(on: str, need: Need) -> str:
    """What to do when nothing fits, as far as it can be told without asking a cloud."""
    if on not in (*CLOUDS, "auto"):
        return "ask for less, or choose another cloud with --on"
    clouds = (on,) if on in CLOUDS else CLOUDS
    close = nearest(Where(clouds), need)
    if not (need.region or need.zone):
        return f"{close}; `vmrun offers` lists what there is"
    tables = ", ".join(f"[{name}]" for name in clouds)
    return f"machines are rented only in `regions` of {tables} in vmrun.toml: add the one that you want; {close}"


def explain(on: str, need: Need, tried: Sequence[Tried], ended: str) -> VmrunError:
    """The error of a search on the cloud(s) `on`; its data hold a row for each try."""
    if not tried:
        return nothing_fits(on, need)
    error = _error(on, tried, ended)
    error.data["tried"] = [row(each) for each in tried]
    return error


def _error(on: str, tried: Sequence[Tried], ended: str) -> VmrunError:
    last, faults = tried[-1], {each.fault for each in tried}
    hint = "; ".join(list(dict.fromkeys(_steps(tried)))[:_STEPS_MAX])
    if last.fault is Fault.config and (ended or faults == {Fault.config}):
        return UsageError(last.message, hint=hint)
    if faults <= {*_NOT_ALLOWED, Fault.config}:
        reasons = "; ".join(dict.fromkeys(each.message for each in tried))
        return Denied(f"not allowed on {', '.join(dict.fromkeys(each.on for each in tried))}: {reasons}", hint=hint)
    if RULES[last.fault].stop:
        code = f" {last.code}" if last.code else ""
        return CapacityError(f"{last.on} answered with an error{code} of unknown kind: {last.message}", hint=hint)
    stopped = f" ({ended})" if ended else ""
    return CapacityError(f"no machine was to be had on {on}: {_summary(tried)}{stopped}", hint=hint)


def row(each: Tried) -> dict[str, object]:
    """One try as a JSON value."""
    offer = each.offer
    return {
        "on": each.on,
        "instance_type": offer.instance_type if offer else "",
        "region": offer.region if offer else "",
        "zone": offer.zone if offer else "",
        "spot": offer.spot if offer else None,
        "fault": each.fault.value,
        "code": each.code,
        "quota": each.bucket,
        "message": each.message,
    }


def _summary(tried: Iterable[Tried]) -> str:
    """Kinds of faults, and where they were met."""
    places: dict[str, dict[str, None]] = {}
    for each in tried:
        what = f"quota {each.bucket}" if each.fault is Fault.quota and each.bucket else each.fault.value
        places.setdefault(what, {})[_place(each)] = None
    parts = []
    for what, found in places.items():
        names = list(found)
        more = f" and {len(names) - _PLACES_MAX} more" if len(names) > _PLACES_MAX else ""
        parts.append(f"{what} in {', '.join(names[:_PLACES_MAX])}{more}")
    return "; ".join(parts)


def _place(each: Tried) -> str:
    if each.offer is None:
        return each.on
    return (each.offer.region if each.fault is Fault.quota else each.offer.zone) or each.offer.region or each.on


def _steps(tried: Sequence[Tried]) -> Iterable[str]:
    """What to do, most helpful first."""
    for fault in _ORDER:
        for each in tried:
            if each.fault is fault:
                yield each.hint or _step(each)


def _step(each: Tried) -> str:
    region = f" in {each.offer.region}" if each.offer is not None and each.offer.region else ""
    if each.fault is Fault.quota:
        return f"ask {each.on} for more of the quota{f' {each.bucket}' if each.bucket else ''}{region}"
    if each.fault in (*_NOT_ALLOWED, Fault.config, Fault.unknown):
        return f"`vmrun doctor --on {each.on}` checks the account and names what is missing"
    if each.fault in (Fault.unavailable, Fault.throttle):
        return f"see whether {each.on} can be reached from here, then run it again"
    return "try again in some minutes, or allow more: other regions in vmrun.toml, another --instance-type or --on"
