"""What an agent is told when it is started; nothing of it is secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrun.core import codec
from vmrun.core.errors import ConfigError, Corrupt
from vmrun.core.notices import Notices


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent's configuration, as JSON in a file that only it may read."""

    vm: str
    deployment: str
    #: The client's public key, in hexadecimal: the only one that may submit, assign and cancel.
    client_key: str
    store_url: str
    store_options: dict[str, Any]
    #: File with the store's credentials; "" if it needs none.
    secrets_file: str
    #: File with the agent's own private key; made by `prepare`, on the machine.
    key_file: str
    #: The dead-man timer reads it: seconds since the epoch until which the machine may live.
    lease_file: str
    hard_deadline: float
    #: Directory for the job's files; emptied at start.
    work_dir: str
    #: Directory in which environments are kept.
    environments: str
    #: Directory to append to the job's module path: holds vmrun, and cloudpickle where the job has none.
    app_path: str
    #: Interpreter for jobs without an environment of their own.
    python: str
    #: Path of the uv program; "" if there is none.
    uv: str = ""
    #: Unix user that runs the user's code; "" for the agent's own.
    job_user: str = ""
    #: Seconds by which each renewal extends the lease.
    lease: float = 1800.0
    heartbeat: float = 15.0
    #: Seconds after which another VM whose heartbeat did not change counts as dead.
    dead_after: float = 120.0
    #: Seconds between looks at the journals: at work, and at rest.
    poll_min: float = 0.2
    poll_max: float = 2.0
    boot_grace: float = 900.0
    #: Certificates for package downloads; "" for the system's.
    ca_file: str = ""
    #: Command that ends the machine once the agent has drained; empty where the agent's clean exit does.
    power_off: tuple[str, ...] = ()
    #: Whether the module path of the submitting process means something on this machine.
    same_machine: bool = False
    index: dict[str, Any] = field(default_factory=dict)
    #: How the cloud announces that it takes this machine back; None where it does not, or need not.
    notices: Notices | None = None


def load(path: str) -> AgentConfig:
    """The configuration in `path`. Raises ConfigError."""
    try:
        return codec.from_data(AgentConfig, codec.parse(Path(path).read_bytes()))
    except (OSError, Corrupt) as error:
        raise ConfigError(f"{path}: {error}", hint="the agent is started by vmrun, not by hand") from error
