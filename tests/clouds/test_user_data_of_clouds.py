"""The longest user data that each cloud gets, with the program by which a machine deletes itself, is in order too."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.clouds.cloud_config import LIMITS, check_user_data
from tests.clouds.docker_machines import DockerMachines
from tests.clouds.ibm.double import IbmDouble
from tests.clouds.machines import PaperMachines
from tests.clouds.opening import open_double
from tests.support.canaries import Canaries
from vmrun.core.clock import SystemClock
from vmrun.core.secret import Secret
from vmrun.machine.user_data import Seed, user_data
from vmrun.provisioners.context import ProvisionerContext
from vmrun.registry import load_provisioner
from vmrun.transport.keys import new_key_pair

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.mark.parametrize("cloud", sorted(LIMITS))
def test_the_longest_user_data_is_valid_short_and_without_secrets(
    cloud: str, docker_machines: DockerMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = open_double(cloud, PaperMachines())
    for name, value in double.environment().items():
        monkeypatch.setenv(name, value)
    settings, canaries = double.settings(), Canaries({})
    if cloud == "gce":
        settings["service_account"] = "vmrun-machine@project.iam.gserviceaccount.com"
        key = json.loads(Path(str(settings["credentials_file"])).read_text("utf-8"))["private_key"]
        canaries.add_text("API key", key.splitlines()[2])
    elif isinstance(double, IbmDouble):
        settings |= {"trusted_profile": double.trusted_profile, "api_key": Secret(double.iam.api_key)}
        canaries.add_text("API key", double.iam.api_key)
    else:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-an-aws-account")
        canaries.add_text("API key", "canary-of-an-aws-account")
    context = ProvisionerContext(tmp_path, tmp_path, SystemClock(), random.SystemRandom(), settings)
    able = load_provisioner(cloud, context).capabilities
    client, host = new_key_pair("client"), new_key_pair("host")
    canaries.add_text("client's SSH key", client.private.splitlines()[2])

    text = user_data(
        Seed(
            hard_deadline=SystemClock().now() + 3600,
            client_public_key=client.public,
            host_private_key=host.private,
            host_public_key=host.public,
            self_delete=able.self_delete,
        )
    )

    # Where a power-off does not delete the machine, a program does, and it is a part of what was checked.
    assert bool(able.self_delete) is not able.poweroff_deletes
    assert json.dumps(able.self_delete.rstrip("\n"))[1:-1] in text
    check_user_data(cloud, text, canaries, docker_machines)
    double.close()
