"""What `vmrun doctor` finds of a project: one finding for each thing, and what could not be found out."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vmrun import catalog
from vmrun.core.clouds import CloudError, Fault, Need, Offer
from vmrun.core.errors import VmrunError
from vmrun.core.estates import Finding, Grade

from . import families, hints, network, policy, request
from .api import GoogleApi
from .config import DEFAULT_NETWORK, NETWORK_TAG, ON, GceConfig
from .machines import last

#: Permissions that one request may ask about.
_PERMISSIONS_MAX = 100
#: Quotas beside those of CPUs that a machine counts against.
_ADDRESSES = "IN_USE_ADDRESSES"
#: What is said to somebody who is known, and may not do just this.
_NOT_ALLOWED = ("forbidden", "IAM_PERMISSION_DENIED", "PERMISSION_DENIED")
_ANYWHERE = ("0.0.0.0/0", "::/0")


class Checks:
    """Looks at one project; creates nothing."""

    def __init__(self, api: GoogleApi, config: GceConfig, sources: Callable[[], tuple[str, ...]]) -> None:
        """`sources` finds out from which networks SSH must be reachable."""
        self._api = api
        self._config = config
        self._sources = sources

    def all(self, need: Need) -> Iterator[Finding]:
        """One finding each, as they come; those that rest on credentials only if there are any."""
        try:
            project = self._api.project
            yield Finding("credentials", Grade.good, f"for the project {project}")
            about = self._api.read("compute.projects.get")
        except VmrunError as error:
            yield _bad("credentials" if _is_stranger(error) else "project", error)
            if not isinstance(error, CloudError) or error.cloud_code not in _NOT_ALLOWED:
                return
            about = {}
        else:
            yield Finding("project", Grade.good, f"{project}, where the Compute Engine API is on")
            yield _os_login(about)
        yield from self._permissions()
        yield from self._quotas(need, about)
        yield self._image(need)
        yield from self._network()

    def _permissions(self) -> Iterator[Finding]:
        wanted = policy.permissions(self._config)
        granted: set[str] = set()
        try:
            for start in range(0, len(wanted), _PERMISSIONS_MAX):
                answer = self._api.read(
                    "cloudresourcemanager.projects.testIamPermissions",
                    resource=self._api.project,
                    body={"permissions": list(wanted[start : start + _PERMISSIONS_MAX])},
                )
                granted |= set(answer.get("permissions") or ())
        except CloudError as error:
            yield Finding("permissions", Grade.unclear, error.message, error.hint)
            return
        for each in wanted:
            yield _permission(each, granted=each in granted, project=self._api.project)

    def _quotas(self, need: Need, about: Mapping[str, Any]) -> Iterator[Finding]:
        regions = [region for region in self._config.regions if need.region in ("", region)]
        everywhere = {str(each["metric"]): each for each in about.get("quotas") or ()}
        largest = 0
        for region in regions:
            offers = catalog.offers(ON, need, [region], exclude=self._config.exclude)
            if not offers:
                yield Finding(f"quota {region}", Grade.warning, "nothing in the catalogue fits", "ask for less")
                continue
            largest = max(largest, offers[0].vcpus)
            try:
                found = self._api.read("compute.regions.get", region=region).get("quotas") or ()
            except CloudError as error:
                yield Finding(f"quota {region}", Grade.unclear, error.message, error.hint)
                continue
            yield from self._quota_of(offers[0], need.disk, {str(each["metric"]): each for each in found})
        if "CPUS_ALL_REGIONS" in everywhere and largest:
            yield self._room("CPUS_ALL_REGIONS", everywhere["CPUS_ALL_REGIONS"], largest, "")

    def _quota_of(self, offer: Offer, size: int, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
        """Head-room for the cheapest machine that fits, with a disk of `size` bytes, 0 for the default."""
        bucket = offer.bucket
        if offer.spot and not float((found.get(bucket) or {}).get("limit") or 0):
            # A project without a quota for spot machines counts them as all others.
            bucket = catalog.bucket(ON, offer.instance_type)
        disk = "HDB_TOTAL_GB" if families.disk_type(offer.instance_type).startswith("hyper") else "SSD_TOTAL_GB"
        wanted = {bucket: offer.vcpus, disk: math.ceil((size or self._config.disk) / (1 << 30))}
        if self._config.public_ip:
            wanted[_ADDRESSES] = 1
        for metric, amount in wanted.items():
            if metric in found:
                yield self._room(metric, found[metric], amount, offer.region)
            elif metric == bucket:
                facts = hints.Facts(project=self._api.project, region=offer.region, bucket=metric)
                told = f"{offer.instance_type} counts against {metric}, which this API does not tell"
                yield Finding(f"quota {offer.region} {metric}", Grade.unclear, told, hints.hint(Fault.quota, facts))

    def _room(self, metric: str, quota: Mapping[str, Any], amount: int, region: str) -> Finding:
        limit, usage = float(quota.get("limit") or 0), float(quota.get("usage") or 0)
        what = f"quota {region} {metric}".replace("  ", " ")
        told = f"{limit - usage:g} of {limit:g} are free, and {amount} are needed"
        if limit - usage >= amount:
            return Finding(what, Grade.good, told)
        facts = hints.Facts(project=self._api.project, region=region, bucket=metric)
        return Finding(what, Grade.bad, told, hints.hint(Fault.quota, facts))

    def _image(self, need: Need) -> Finding:
        path = request.image(self._config, need.arch or "x86_64")
        project, name = network.split(path)
        place: dict[str, Any] = {"project": project} if project else {}
        try:
            if "/family/" in path:
                image = self._api.read("compute.images.getFromFamily", family=name, **place)
            else:
                image = self._api.read("compute.images.get", image=name, **place)
        except CloudError as error:
            return _bad("image", error)
        if (image.get("deprecated") or {}).get("state") in ("OBSOLETE", "DELETED"):
            return Finding("image", Grade.bad, f"{image['name']} may not be used any more", "set gce.image to another")
        return Finding("image", Grade.good, str(image.get("name", name)))

    def _network(self) -> Iterator[Finding]:
        try:
            named = network.configured(self._api, self._config)
            found = network.find(self._api, named or DEFAULT_NETWORK)
            if found is None:
                where = f"there is no network {named or DEFAULT_NETWORK}"
                yield Finding("network", Grade.bad, where, "set gce.network, or let `vmrun init gce` make one")
                return
            yield from self._subnetworks(found)
        except CloudError as error:
            yield _bad("network", error)
            return
        if network.split(named)[0] not in ("", self._api.project):
            yield Finding("ssh", Grade.unclear, f"the rules of {named} are another project's")
            return
        yield self._ssh(found)

    def _subnetworks(self, found: Mapping[str, Any]) -> Iterator[Finding]:
        name = str(found.get("name"))
        if self._config.subnetwork:
            for region in self._config.regions:
                network.subnet(self._api, self._config, region)
            yield Finding("network", Grade.good, f"{name}, with {self._config.subnetwork} in each region")
            return
        have = {str(url).rpartition("/regions/")[2].partition("/")[0] for url in found.get("subnetworks") or ()}
        lacking = [region for region in self._config.regions if region not in have]
        if lacking:
            told = f"{name} has no subnetwork in {', '.join(lacking)}"
            yield Finding("network", Grade.bad, told, "make one there, or leave the region out of gce.regions")
        else:
            yield Finding("network", Grade.good, f"{name} has a subnetwork in each region")

    def _ssh(self, found: Mapping[str, Any]) -> Finding:
        """Whether some rule lets SSH in from where it must come, and none from everywhere."""
        try:
            wanted = self._sources()
            rules = [rule for page in self._api.pages("compute.firewalls.list") for rule in page.get("items") or ()]
        except VmrunError as error:
            return Finding("ssh", Grade.unclear, error.message, error.hint)
        open_to = {
            str(source): str(rule["name"])
            for rule in rules
            if last(rule.get("network")) == found.get("name") and _admits_ssh(rule)
            for source in rule.get("sourceRanges") or _ANYWHERE[:1]
        }
        shut = [each for each in wanted if not _within(each, open_to)]
        if shut:
            told = f"no firewall rule of {found.get('name')} lets SSH in from {', '.join(shut)}"
            return Finding("ssh", Grade.bad, told, "`vmrun init gce` makes one")
        wide = sorted(rule for source, rule in open_to.items() if source in _ANYWHERE)
        if wide:
            told = f"open to {', '.join(wanted)}, and to everybody by {', '.join(wide)}"
            return Finding("ssh", Grade.warning, told, f"gcloud compute firewall-rules delete {' '.join(wide)}")
        return Finding("ssh", Grade.good, f"open to {', '.join(wanted)}")


def _permission(permission: str, *, granted: bool, project: str) -> Finding:
    what = f"permission {permission}"
    if granted:
        return Finding(what, Grade.good, "granted")
    hint = hints.hint(Fault.permission, hints.Facts(project=project, permission=permission))
    if permission == "iam.serviceAccounts.actAs":
        return Finding(what, Grade.unclear, "not granted on the project; it may be on the account itself", hint)
    return Finding(what, Grade.warning if permission in policy.SELDOM else Grade.bad, "not granted", hint)


def _os_login(about: Mapping[str, Any]) -> Finding:
    items = (about.get("commonInstanceMetadata") or {}).get("items") or ()
    on = any(each.get("key") == "enable-oslogin" and str(each.get("value")).lower() == "true" for each in items)
    if not on:
        return Finding("os login", Grade.good, "off for the project, as machines of vmrun have it")
    return Finding(
        "os login",
        Grade.warning,
        "on for the project; machines of vmrun turn it off for themselves",
        "if creating fails for constraints/compute.requireOsLogin, ask for an exception from it for this project",
    )


def _admits_ssh(rule: Mapping[str, Any]) -> bool:
    if rule.get("disabled") or rule.get("direction", "INGRESS") != "INGRESS" or rule.get("sourceTags"):
        return False
    if rule.get("targetServiceAccounts") or (rule.get("targetTags") and NETWORK_TAG not in rule["targetTags"]):
        return False
    return any(_has_ssh(each) for each in rule.get("allowed") or ())


def _has_ssh(allowed: Mapping[str, Any]) -> bool:
    if str(allowed.get("IPProtocol")).lower() not in ("tcp", "6", "all"):
        return False
    spans = [str(each).partition("-") for each in allowed.get("ports") or ("0-65535",)]
    return any(int(low) <= 22 <= int(high or low) for low, _, high in spans)


def _within(source: str, open_to: Iterable[str]) -> bool:
    inner = ipaddress.ip_network(source, strict=False)
    outer = [ipaddress.ip_network(each, strict=False) for each in open_to]
    return any(
        one.version == inner.version and one.supernet_of(inner)  # type: ignore[arg-type]
        for one in outer
    )


def _is_stranger(error: VmrunError) -> bool:
    """Whether it is the credentials that are wrong."""
    return isinstance(error, CloudError) and error.cloud_code in ("UNAUTHENTICATED", "authError", "required")


def _bad(what: str, error: VmrunError) -> Finding:
    if isinstance(error, CloudError) and error.fault in (Fault.permission, Fault.billing) and what != "credentials":
        # Whatever was looked at, it is a matter of rights.
        what = f"permission ({what})"
    unclear = isinstance(error, CloudError) and error.fault in (Fault.unavailable, Fault.throttle)
    return Finding(what, Grade.unclear if unclear else Grade.bad, error.message, error.hint)
