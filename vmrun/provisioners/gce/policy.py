"""The rights that vmrun needs in a project, as the present configuration has it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .config import GceConfig

_ALWAYS = (
    "compute.addresses.delete",
    "compute.addresses.list",
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.firewalls.list",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setTags",
    "compute.machineTypes.list",
    "compute.networks.get",
    "compute.projects.get",
    "compute.regions.get",
    "compute.subnetworks.get",
    "compute.subnetworks.use",
    "compute.zoneOperations.get",
)
#: What only `vmrun init gce` needs.
FOUNDING = (
    "compute.firewalls.create",
    "compute.firewalls.delete",
    "compute.firewalls.get",
    "compute.firewalls.update",
    "compute.globalOperations.get",
    "compute.networks.create",
    "compute.networks.delete",
    "compute.networks.updatePolicy",
    "compute.subnetworks.create",
    "compute.subnetworks.delete",
)
#: Those without which `vmrun doctor`, or tidying up after an accident, sees less; jobs run without them.
SELDOM = frozenset(
    (
        "compute.addresses.delete",
        "compute.addresses.list",
        "compute.disks.delete",
        "compute.disks.list",
        "compute.firewalls.list",
        "compute.instances.getSerialPortOutput",
        "compute.networks.get",
        "compute.projects.get",
        "compute.regions.get",
        "compute.subnetworks.get",
    )
)


def permissions(config: GceConfig) -> tuple[str, ...]:
    """What submitting, watching, reaping and checking need, sorted."""
    wanted = set(_ALWAYS)
    if config.public_ip:
        wanted.add("compute.subnetworks.useExternalIp")
    if config.image:
        wanted |= {"compute.images.get", "compute.images.getFromFamily", "compute.images.useReadOnly"}
    if config.service_account:
        wanted |= {"compute.instances.setServiceAccount", "iam.serviceAccounts.actAs"}
    return tuple(sorted(wanted))


def document(config: GceConfig, project: str) -> str:
    """The custom role in YAML, with the commands that make and grant it; a second role where machines have one."""
    granted = [each for each in permissions(config) if each != "iam.serviceAccounts.actAs"]
    lines = [
        "# For whoever submits jobs. Save it as vmrun.yaml, then:",
        f"#   gcloud iam roles create vmrun --project={project} --file=vmrun.yaml",
        f"#   gcloud projects add-iam-policy-binding {project} --member=user:YOU --role=projects/{project}/roles/vmrun",
        *_role("vmrun", "Rent machines, watch them and give them back", granted),
        "# Once, for `vmrun init gce` and its --dismantle, also:",
        *[f"# - {each}" for each in FOUNDING],
    ]
    if config.service_account:
        lines += _of_machines(config.service_account, project)
    return "\n".join(lines) + "\n"


def _of_machines(account: str, project: str) -> list[str]:
    member = f"--member=serviceAccount:{account}"
    condition = (
        'resource.type == "compute.googleapis.com/Instance" && '
        'resource.name.extract("/instances/{name}").startsWith("vmrun-")'
    )
    return [
        "---",
        "# For the account of the machines, so that they can delete themselves. Save it as vmrun-machine.yaml, then:",
        f"#   gcloud iam roles create vmrunMachine --project={project} --file=vmrun-machine.yaml",
        f"#   gcloud projects add-iam-policy-binding {project} {member} \\",
        f"#     --role=projects/{project}/roles/vmrunMachine \\",
        f"#     --condition='title=vmrun,expression={condition}'",
        "# and that they reach a store in a bucket of Cloud Storage:",
        f"#   gcloud storage buckets add-iam-policy-binding gs://BUCKET {member} --role=roles/storage.objectUser",
        "# Whoever submits jobs must be allowed to hand that account to a machine:",
        f"#   gcloud iam service-accounts add-iam-policy-binding {account} \\",
        "#     --member=user:YOU --role=roles/iam.serviceAccountUser",
        *_role("vmrunMachine", "A machine of vmrun deletes itself", ["compute.instances.delete"]),
    ]


def _role(title: str, description: str, granted: Iterable[str]) -> list[str]:
    return [
        f"title: {title}",
        f"description: {description}",
        "stage: GA",
        "includedPermissions:",
        *[f"- {each}" for each in granted],
    ]
