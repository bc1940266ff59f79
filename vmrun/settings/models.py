"""The keys of the configuration: their types, limits, defaults and meaning, one class per table of the file.

With its siblings `fields` and `clouds` the only modules of the settings that need pydantic, so it is imported when
settings are loaded and not before.
"""

from __future__ import annotations

from pydantic import Field

from vmrun.core.clouds import Market
from vmrun.core.secret import Secret
from vmrun.job import REPLACED_MAX, VMS_MAX

from .clouds import Ec2Section, GceSection, IbmSection, SshSection
from .fields import (
    DOLLARS,
    Arch,
    DriverSection,
    Duration,
    FilePath,
    Hidden,
    Money,
    Oom,
    Period,
    Python,
    Section,
    Size,
    Text,
    Texts,
    VmSection,
)


class Defaults(Section):
    """What `vmrun submit` and `@vmrun.job` ask for where they do not say otherwise."""

    on: Text = Field(
        "local",
        min_length=1,
        description="Where jobs run: local, docker, ssh, ec2, gce, ibm, or auto for the cheapest cloud.",
    )
    cpus: int = Field(0, ge=0, le=100_000, description="vCPUs that a machine must have; 0: any number.")
    memory: Size = Field(0, description="Memory that must be usable, such as 64GB; 0: any.")
    disk: Size = Field(0, description="Disk for the machine, such as 200GB; 0: the driver's default.")
    arch: Arch = Field(
        "", description='Processor: "x86_64", "arm64", or "any"; "": that of the job\'s program, or of this computer.'
    )
    vms: int = Field(1, ge=1, le=VMS_MAX, description="Machines that share a job over inputs.")
    replace_lost: int = Field(
        0, ge=0, le=REPLACED_MAX, description="How many machines that a job loses are replaced by others."
    )
    workers: int = Field(0, ge=0, le=100_000, description="Worker processes per machine; 0: one per core.")
    threads_per_task: int = Field(
        0, ge=0, le=100_000, description="Cores for each task; 0: one, or more if there are fewer workers than cores."
    )
    task_memory: Size = Field(0, description="The most memory that one task takes, such as 8GB; 0: not said.")
    fresh: bool = Field(default=False, description="Whether each task gets a new process.")
    retries: int = Field(0, ge=0, le=100, description="Further attempts at a task that failed.")
    task_timeout: Duration = Field(0.0, description="Longest time for one attempt at a task; 0s: no limit.")
    market: Market = Field(Market.on_demand, strict=False, description='"on-demand", "spot", or "spot-with-fallback".')
    max_lifetime: Period = Field(86400.0, description="Hard limit to a machine's life; nothing extends it.")
    keep_warm: Duration = Field(0.0, description="How long a machine waits for the next job before it is given back.")
    keep_on_failure: Duration = Field(
        0.0, description="How long a machine stays for debugging after its job failed there; 0s: not at all."
    )
    max_cost: Money = Field(0.0, json_schema_extra=DOLLARS, description="Dollars that a job may cost; 0: no limit.")
    allow_unknown_price: bool = Field(
        default=False, description="Whether a limit in dollars lets machines be rented whose price is not known."
    )
    on_oom: Oom = Field(
        "fail",
        description='What becomes of a task that runs out of memory: "fail", or "grow": again on a larger machine.',
    )
    python: Python = Field("", description='Python version of jobs, such as "3.12"; "": the one that submits.')


class StoreSection(Section):
    """Object storage: the one place where jobs, results and output are kept."""

    url: Text = Field(
        "",
        description='file:///path, a path, or s3://bucket/prefix; "": a directory under the user\'s data directory.',
    )
    endpoint: Text = Field("", description="Address of an S3-compatible server, such as https://minio.example:9000.")
    region: Text = Field("", description="Region of the bucket.")
    access_key_id: Hidden = Field(Secret(""), description='Access key; "": from the environment or the instance.')
    secret_access_key: Hidden = Field(Secret(""), description="Secret that belongs to the access key.")
    session_token: Hidden = Field(Secret(""), description="Session token of temporary credentials.")
    ca_file: FilePath = Field("", description="PEM file with the authorities to trust instead of the system's.")
    fsync: bool = Field(default=True, description="Whether a directory store survives a power cut; false is faster.")


class LocalSection(DriverSection):
    """Machines that are processes on this one. They may be watched closely, as that costs nothing."""

    boot_grace: Period | None = Field(60.0, le=86400, description="As in [vm].")
    lease: Period | None = Field(120.0, description="As in [vm].")
    heartbeat: Period | None = Field(1.0, description="As in [vm].")
    deadman_poll: Period | None = Field(1.0, ge=0.01, le=5, description="As in [vm], at most 5s.")
    usd_per_hour: Money = Field(
        0.0, json_schema_extra=DOLLARS, description="What this computer is said to cost: for trying out budgets."
    )


class DockerSection(DriverSection):
    """Machines that are containers on this one, booted like VMs."""

    image: Text = Field("", description='Image to boot; "": the one that `vmrun init docker` builds.')
    cpus: int = Field(0, ge=0, le=100_000, description="vCPUs of each container; 0: all of this machine's.")
    memory: Size = Field(0, description="Memory of each container, such as 4GB; 0: all of this machine's.")
    store_endpoint: Text = Field("", description='Address of the store as containers see it; "": the one in [store].')
    boot_grace: Period | None = Field(300.0, le=86400, description="As in [vm].")
    usd_per_hour: Money = Field(
        0.0, json_schema_extra=DOLLARS, description="What a container is said to cost: for trying out budgets."
    )


class BudgetSection(Section):
    """What all jobs of this deployment together may cost, in US dollars and by UTC; judged at each submit."""

    usd_per_day: Money = Field(0.0, json_schema_extra=DOLLARS, description="Dollars a day; 0: no limit.")
    usd_per_month: Money = Field(0.0, json_schema_extra=DOLLARS, description="Dollars a month; 0: no limit.")

    @property
    def holds(self) -> bool:
        """Whether there is any limit."""
        return bool(self.usd_per_day or self.usd_per_month)


class EnvironmentSection(Section):
    """Where the packages of jobs come from."""

    index_url: Text = Field("", repr=False, description='Package index; "": the one of the environment, or PyPI.')
    extra_index_urls: Texts = Field((), repr=False, description="Further indexes.")
    ca_file: FilePath = Field("", description="PEM file with the authorities to trust for package downloads.")


#: The tables of the file, in the order in which they are documented.
SECTIONS: dict[str, type[Section]] = {
    "defaults": Defaults,
    "store": StoreSection,
    "vm": VmSection,
    "budget": BudgetSection,
    "local": LocalSection,
    "docker": DockerSection,
    "ssh": SshSection,
    "ec2": Ec2Section,
    "gce": GceSection,
    "ibm": IbmSection,
    "environment": EnvironmentSection,
}
#: Keys whose value is the path of a file.
FILE_PATHS = (
    ("store", "ca_file"),
    ("environment", "ca_file"),
    ("ssh", "identity_file"),
    ("ssh", "known_hosts"),
    ("gce", "credentials_file"),
)
