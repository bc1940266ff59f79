"""Machines on Docker Engine under a double: they boot from user data, and a power-off leaves them there, stopped."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import time
import uuid
from collections.abc import Callable

from tests.docker.machines import CACHE
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import CloudError, Offer
from vmrun.provisioners.docker import containers
from vmrun.provisioners.docker.api import Docker, failure, message
from vmrun.provisioners.docker.image import MachineImage

from .machines import Power

#: Of no driver: the docker driver must not take these machines for its own.
LABEL = "vmrun-double"
#: Bytes that a machine gets at most, so that several fit on a laptop.
MEMORY = 3 << 29
#: Seconds that a machine gets to power off before its power is cut, and for a removal to be over.
_GRACE, _REMOVAL = 2, 60.0
_CONSOLE_LINES = "200"
_BUNDLE = "etc/ssl/double.crt"
_CLOUD_INIT = "/var/log/cloud-init-output.log"
_STATES = {
    "running": Power.on,
    "restarting": Power.on,
    "created": Power.off,
    "exited": Power.off,
    "paused": Power.off,
    "dead": Power.off,
    "removing": Power.absent,
}


class DockerMachines:
    """The machines of one run; `close` removes them all."""

    def __init__(
        self, *, memory_limit: int = MEMORY, progress: Callable[[str], None] = print, run: str | None = None
    ) -> None:
        """`run` is that of an earlier process whose machines are to be taken over; `memory_limit` in bytes."""
        self.run = run or uuid.uuid4().hex[:12]
        self._docker = Docker()
        self._image = MachineImage(self._docker, SystemClock(), CACHE, progress)
        self._memory_limit = memory_limit
        self._size: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Build the image now, if it is not there: minutes at worst, and the first boot need not wait for it."""
        self._image.ensure()

    def image(self) -> str:
        """The image that machines boot, as `docker` takes it."""
        return self._image.ensure()

    def container(self, name: str) -> str:
        """The container that is this machine: as `docker` takes it."""
        plain = re.sub(r"[^a-zA-Z0-9_.-]", "-", name)[-60:]
        mark = "" if plain == name else f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return f"vmrun-double-{self.run}-{plain}{mark}"

    def boot(self, name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        """Raises CloudError when the engine refuses."""
        container = self.container(name)
        if self.power(name) is Power.absent:
            offer = self._offer(vcpus, memory)
            create = ["create", "--name", container, "--label", f"{LABEL}={self.run}"]
            create += [*containers.machine_arguments(name, offer), self.image()]
            seed = ["cp", "-", f"{container}:{containers.SEED}"]
            steps = [(create, b""), (seed, containers.seed_tar(name, name, user_data))]
            if trust := _trust_tar():
                steps.append((["cp", "-", f"{container}:/"], trust))
            done = self._docker.sequence([*steps, (["start", container], b"")])
            # Another thread may have been faster.
            if done.exit_code != 0 and "is already in use" not in message(done):
                raise failure("create", message(done))
        return self.address(name)

    def address(self, name: str) -> str:
        for found in self._docker.inspect("container", [self.container(name)]):
            if address := containers.instance(found).address:
                return address.host
        return ""

    def power(self, name: str) -> Power:
        for found in self._docker.inspect("container", [self.container(name)]):
            return _STATES.get(str(found["State"]["Status"]), Power.off)
        return Power.absent

    def stop(self, name: str) -> None:
        self._docker.run("stop", "--time", str(_GRACE), self.container(name))

    def start(self, name: str) -> None:
        if self.power(name) is Power.off:
            self._docker.call("start", self.container(name))

    def destroy(self, name: str) -> None:
        self._remove(self.container(name))

    def console(self, name: str) -> str:
        """What cloud-init said, too: a machine without a terminal shows none of it."""
        container = self.container(name)
        logs = self._docker.run("logs", "--tail", _CONSOLE_LINES, container)
        said = (logs.stdout + logs.stderr).decode("utf-8", "replace") if logs.exit_code == 0 else ""
        copied = self._docker.run("cp", f"{container}:{_CLOUD_INIT}", "-")
        if copied.exit_code == 0:
            with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:
                for member in tar:
                    if file := tar.extractfile(member):
                        said += file.read().decode("utf-8", "replace")
        return said

    def command(self, name: str, *argv: str) -> str:
        """Run a command as root inside, past SSH; its output. For tests that have a machine do something by itself."""
        return self._docker.call("exec", self.container(name), *argv)

    def power_itself_off(self, name: str) -> None:
        """Have it power itself off from inside; returns as soon as that was begun.

        Who waited for the command's end might hear of the container's instead.
        """
        self._docker.call("exec", "--detach", self.container(name), "systemctl", "poweroff")

    def close(self) -> None:
        """Remove every machine of this run."""
        listed = self._docker.call("ps", "--all", "--quiet", "--filter", f"label={LABEL}={self.run}")
        for container in listed.split():
            self._remove(container)

    def _offer(self, vcpus: int, memory: int) -> Offer:
        if self._size is None:
            info = self._docker.info()
            self._size = int(info["NCPU"]), int(info["MemTotal"])
        cpus, bytes_ = self._size
        bounded = min(memory or bytes_, bytes_, self._memory_limit)
        return Offer("double", "double", "", "", "", min(vcpus or cpus, cpus), 0, bounded, None)

    def _remove(self, container: str) -> None:
        give_up = time.monotonic() + _REMOVAL
        while True:
            done = self._docker.run("rm", "--force", "--volumes", container)
            if self._docker.inspect("container", [container]) == []:
                return
            if time.monotonic() > give_up:
                raise CloudError(f"{container} is still there after {_REMOVAL:.0f} s: {message(done)}")
            SystemClock().sleep(0.1)


def _trust_tar() -> bytes:
    """Files by which a machine trusts whom this computer was told to trust; none where it was told nothing.

    A rented machine has a way of its own to the network. This one goes through this computer's, where there may be a
    proxy with certificates of its own.
    """
    bundle = os.environ.get("SSL_CERT_FILE", "")
    if not os.path.isfile(bundle):
        return b""
    with open(bundle, "rb") as file:
        certificates = file.read()
    setting = f"[Manager]\nDefaultEnvironment=SSL_CERT_FILE=/{_BUNDLE}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in ((_BUNDLE, certificates), ("etc/systemd/system.conf.d/50-trust.conf", setting)):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
