"""The least rights that vmrun needs at IBM, as the commands by which an administrator gives them. Pure."""

from __future__ import annotations

import shlex

from .config import IbmConfig

#: Resource types of VPC Infrastructure that vmrun makes and deletes for every machine.
_MADE = ("instance", "floating-ip", "volume", "virtual-network-interface")
#: Those that are only used, unless `vmrun init ibm` shall make them.
_USED = ("vpc", "subnet", "security-group", "image")
#: The same in the names that IAM has for them.
_ATTRIBUTES = {
    "instance": "instanceId",
    "floating-ip": "floatingIpId",
    "volume": "volumeId",
    "virtual-network-interface": "virtualNetworkInterfaceId",
    "vpc": "vpcId",
    "subnet": "subnetId",
    "security-group": "securityGroupId",
    "image": "imageId",
}


def commands(config: IbmConfig) -> str:
    """A script of `ibmcloud` commands: rights of the caller in one resource group, and a machine's own."""
    group = config.resource_group or "Default"
    profile = "vmrun-machines"
    lines = [
        "# Rights of vmrun on IBM Cloud, for an administrator of the account to give.",
        "# SERVICE_ID: the service id whose API key vmrun has (for a person: iam user-policy-create EMAIL instead).",
        "SERVICE_ID=vmrun",
        f"GROUP={shlex.quote(group)}",
        "ibmcloud iam service-id-create $SERVICE_ID --description 'rents machines' || true",
        "",
        "# What vmrun makes and deletes for each machine.",
        *(_service_policy("Editor", kind) for kind in _MADE),
        "# What it only uses (Editor instead of Operator on vpc, subnet and security-group for `vmrun init ibm`).",
        *(_service_policy("Operator", kind) for kind in _USED[:3]),
        "ibmcloud iam service-policy-create $SERVICE_ID --roles Viewer --service-name is --attributes 'imageId=*'",
        "ibmcloud iam service-policy-create $SERVICE_ID --roles Viewer --resource-type resource-group \\",
        '  --resource "$GROUP"',
        "",
        "# A trusted profile by which a machine deletes itself, when nobody else can any more. Then, in vmrun.toml:",
        "#   [ibm]",
        "#   trusted_profile = the ID that the first command prints",
        f"ibmcloud iam trusted-profile-create {profile} --description 'machines of vmrun delete themselves'",
        f"ibmcloud iam trusted-profile-policy-create {profile} --roles Editor --service-name is \\",
        "  --resource-group-name \"$GROUP\" --attributes 'instanceId=*'",
        f"ibmcloud iam trusted-profile-policy-create {profile} --roles Editor --service-name is \\",
        "  --resource-group-name \"$GROUP\" --attributes 'floatingIpId=*'",
        "# vmrun links each machine to it in the create call, and needs the right to:",
        "ibmcloud iam service-policy-create $SERVICE_ID --roles Operator --service-name iam-identity \\",
        f"  --attributes 'resourceType=profile,resource={config.trusted_profile or 'PROFILE_ID'}'",
        "",
        "# The key itself; it is shown once.",
        "ibmcloud iam service-api-key-create vmrun $SERVICE_ID",
    ]
    return "\n".join(lines) + "\n"


def _service_policy(role: str, kind: str) -> str:
    return (
        f"ibmcloud iam service-policy-create $SERVICE_ID --roles {role} --service-name is "
        f"--resource-group-name \"$GROUP\" --attributes '{_ATTRIBUTES[kind]}=*'"
    )
