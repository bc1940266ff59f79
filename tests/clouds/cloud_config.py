"""What must hold of user data, whichever cloud it is for."""

from __future__ import annotations

import json
import subprocess

from tests.clouds.docker_machines import DockerMachines
from tests.support.canaries import Canaries

#: Bytes that each cloud takes, before base64.
LIMITS = {"ec2": 16 * 1024, "gce": 256 * 1024, "ibm": 64 * 1024}


def check_user_data(cloud: str, text: str, canaries: Canaries, machines: DockerMachines) -> None:
    """It is valid to the machines' own cloud-init, short enough, and its one secret is a host key for one session."""
    assert len(text.encode()) < LIMITS[cloud]
    said = schema_says(machines, text)
    assert said.returncode == 0, said.stdout + said.stderr
    wrong = schema_says(machines, text.replace('"disable_root": true', '"disable_root": "perhaps"'))
    assert wrong.returncode != 0, "cloud-init takes anything"
    canaries.check("the user data", text)
    assert text.count("PRIVATE KEY") == 2  # where the host key begins and where it ends
    assert "BEGIN OPENSSH PRIVATE KEY" in json.loads(text.partition("\n")[2])["ssh_keys"]["ed25519_private"]


def schema_says(machines: DockerMachines, text: str) -> subprocess.CompletedProcess[str]:
    """`cloud-init schema`, as the image of the machines has it."""
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", machines.image()]
    command += ["sh", "-c", "cat > /tmp/user-data && cloud-init schema --config-file /tmp/user-data"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
