"""The tables of drivers that rent machines in a cloud, or work on machines that the user has."""

from __future__ import annotations

from pydantic import Field

from vmrun.core.secret import Secret

from .fields import DriverSection, FilePath, Hidden, Size, Text, Texts


class CloudSection(DriverSection):
    """What all clouds have in common."""

    endpoint: Text = Field("", description="Address of the cloud's API; \"\": the cloud's own.")
    store_endpoint: Text = Field("", description='Address of the store as the machines see it; "": the one in [store].')
    disk: Size = Field(100 * 10**9, ge=10 * 10**9, description="Boot disk of each machine, unless a job asks for more.")
    public_ip: bool = Field(
        default=True, description="Whether machines get a public address; false: they are reached from inside."
    )
    proxy_jump: Text = Field("", description='Host to go through, as in SSH: user@host:port; "": none.')
    ssh_from: Texts = Field(
        (), description="Networks that may reach SSH, such as 198.51.100.7/32; none: the caller's own address."
    )
    exclude: Texts = Field((), description='Types never to rent, with "*" for any text, such as "t4g.*".')


class Ec2Section(CloudSection):
    """Machines on Amazon EC2."""

    regions: Texts = Field(("us-east-1",), min_length=1, description="Regions to rent in.")
    profile: Text = Field("", description='Profile of the AWS configuration; "": as the AWS tools choose.')
    metadata_endpoint: Text = Field(
        "", description='Address of the metadata service as the machines see it; "": the cloud\'s own.'
    )
    vpc: Text = Field("", description='Id or Name of the VPC; "": the default one, or the one of `vmrun init ec2`.')
    subnets: Texts = Field((), description="Ids or Names of subnets; none: all of the VPC.")
    security_group: Text = Field("", description='Id or name of the group; "": the one of `vmrun init ec2`.')
    image: Text = Field("", description='AMI id, image name, or "ssm:PATH" of a parameter; "": Ubuntu 24.04.')
    image_owners: Texts = Field(
        ("099720109477", "amazon", "self"), description="Accounts whose images may be booted (the first is Canonical)."
    )
    instance_profile: Text = Field(
        "", description='IAM instance profile that lets machines reach the store; "": short-lived credentials are sent.'
    )
    store_role: Text = Field(
        "", description='ARN of a role to take for the credentials that machines get; "": the caller\'s own rights.'
    )


class GceSection(CloudSection):
    """Machines on Google Compute Engine."""

    metadata_endpoint: Text = Field(
        "", description='Address of the metadata service as the machines see it; "": the cloud\'s own.'
    )
    project: Text = Field("", description='Project id; "": the one of the credentials.')
    regions: Texts = Field(("us-central1",), min_length=1, description="Regions to rent in.")
    credentials_file: FilePath = Field("", description='Key file of a service account; "": default credentials.')
    network: Text = Field("", description='VPC network; "": "default", or the one of `vmrun init gce`.')
    subnetwork: Text = Field("", description='Subnetwork, of the same name in each region; "": the network\'s own.')
    image: Text = Field("", description='Image or image family, projects/P/global/images/…; "": Ubuntu 24.04 LTS.')
    service_account: Text = Field(
        "", description='Account that the machines act as, for the store and to delete themselves; "": none.'
    )


class IbmSection(CloudSection):
    """Machines on IBM Cloud VPC Gen2."""

    regions: Texts = Field(("us-south",), min_length=1, description="Regions to rent in.")
    api_key: Hidden = Field(Secret(""), description='IAM API key; "": IBMCLOUD_API_KEY of the environment.')
    iam_endpoint: Text = Field("", description='Address of IAM; "": https://iam.cloud.ibm.com.')
    resource_group: Text = Field("", description='Id or name of the resource group; "": the account\'s default.')
    vpc: Text = Field("", description='Id or name of the VPC; "": the one of `vmrun init ibm`.')
    subnets: Texts = Field((), description="Ids or names of subnets; none: all of the VPC.")
    security_group: Text = Field("", description='Id or name of the group; "": the one of `vmrun init ibm`.')
    image: Text = Field("", description='Id or name of the image; "": the newest Ubuntu 24.04.')
    trusted_profile: Text = Field(
        "", description='Id of the trusted profile by which machines delete themselves; "": they only power off.'
    )


class SshSection(DriverSection):
    """Machines that the user has: leased for a job, cleaned after it, never deleted."""

    hosts: Texts = Field((), description="Hosts, as user@host or user@host:port; the user may become root by sudo.")
    identity_file: FilePath = Field("", description='Private key; "": those of the SSH agent and ~/.ssh.')
    known_hosts: FilePath = Field("", description='File with the hosts\' keys; "": ~/.ssh/known_hosts.')
    proxy_jump: Text = Field("", description='Host to go through, as in SSH: user@host:port; "": none.')
    store_endpoint: Text = Field("", description='Address of the store as the hosts see it; "": the one in [store].')
