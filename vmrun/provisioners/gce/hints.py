"""The next step after each fault, in the words of Google Cloud. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vmrun.core.clouds import Fault

from .families import FAMILY_METRIC

CREDENTIALS = "run `gcloud auth application-default login`, or set gce.credentials_file to a service account's key file"
_POLICIES = {
    "constraints/compute.vmExternalIpAccess": (
        "the organisation forbids public addresses: set gce.public_ip = false and reach the VMs from inside "
        "or through gce.proxy_jump"
    ),
    "constraints/compute.requireOsLogin": (
        "the organisation forces OS Login, under which VMs do not take vmrun's own key: "
        "ask for an exception from it for this project"
    ),
    "constraints/compute.trustedImageProjects": "the organisation allows only certain images: set gce.image to one",
    "constraints/gcp.resourceLocations": "the organisation allows only certain regions: set gce.regions to those",
    "constraints/compute.requireShieldedVm": "the organisation demands Shielded VMs: set gce.image to such an image",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a hint can be made of; "" and 0 where unknown."""

    project: str = ""
    region: str = ""
    bucket: str = ""
    #: In lower case, without `_`.
    codes: frozenset[str] = frozenset()
    #: An organisation policy, as `constraints/NAME`.
    constraint: str = ""
    permission: str = ""
    #: An API, as `compute.googleapis.com`.
    service: str = ""
    status: int = 0
    #: Whether it is about a network or subnetwork.
    network: bool = False


def hint(fault: Fault, facts: Facts) -> str:
    """One sentence that names what to do."""
    if fault is Fault.permission:
        return _permission(facts)
    if fault is Fault.quota:
        return _quota(facts)
    if fault is Fault.config and facts.network:
        return "set gce.network and gce.subnetwork to ones that are there, or let `vmrun init gce` make a network"
    return _PLAIN.get(fault, _PLAIN[Fault.unknown]).format(project=facts.project or "PROJECT")


_PLAIN = {
    Fault.stockout: "try again later, or allow other zones, types or regions (gce.regions)",
    Fault.not_offered: "choose another zone or type; `vmrun offers --on gce` lists them",
    Fault.throttle: "wait a minute; if it lasts, raise the project's request quotas for the Compute Engine API",
    Fault.billing: "link a billing account: gcloud billing projects link {project} --billing-account=ACCOUNT",
    Fault.unavailable: "try again; https://status.cloud.google.com tells of outages",
    Fault.config: "check image, network, subnetwork and project in [gce]; `vmrun doctor` looks at each",
    Fault.unknown: "look the code up in the documentation of Compute Engine; `vmrun doctor` checks the project",
}


def _permission(facts: Facts) -> str:
    project = facts.project or "PROJECT"
    if facts.constraint:
        known = _POLICIES.get(facts.constraint)
        return known or f"ask for an exception from the organisation policy {facts.constraint} for {project}"
    if facts.codes & {"servicedisabled", "accessnotconfigured"}:
        return f"gcloud services enable {facts.service or 'compute.googleapis.com'} --project={project}"
    if facts.status == 401 or facts.codes & {"unauthenticated", "autherror", "required", "expired"}:
        return CREDENTIALS
    if facts.codes & {"accesstokenscopeinsufficient"}:
        return "the credentials need the scope https://www.googleapis.com/auth/cloud-platform"
    if facts.permission.startswith("iam.serviceAccounts.") or "serviceaccountaccessdenied" in facts.codes:
        return "grant roles/iam.serviceAccountUser on the account of gce.service_account, or leave that key out"
    if facts.permission:
        return f"grant {facts.permission} on project {project}; `vmrun doctor --on gce --policy` prints what is needed"
    return f"grant the missing right on project {project}; `vmrun doctor --on gce --policy` prints what is needed"


def _quota(facts: Facts) -> str:
    where = f" in {facts.region}" if facts.region else ""
    metric, _, family = facts.bucket.partition("/")
    name = f"{metric} of family {family}" if metric == FAMILY_METRIC and family else metric or "that is used up"
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={facts.project or 'PROJECT'}"
    return f"ask for more of the quota {name}{where} at {page}, or choose another region or family"
