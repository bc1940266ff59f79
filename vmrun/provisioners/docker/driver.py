"""Machines on Docker Engine, as a cloud: containers that boot from user data and delete themselves at power-off."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.clouds import (
    TAG_OWNER,
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    Leftover,
    Need,
    Offer,
    instance_name,
)
from vmrun.provisioners.context import ProvisionerContext

from . import containers
from .api import Docker, failure, message
from .image import MachineImage

_GIB = 1 << 30
_TYPE = re.compile(r"docker-(\d{1,5})x(\d{1,6})")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}")
#: Seconds for a container to be gone after its removal began.
_REMOVAL = 30.0
#: Lines of a console that help.
_LOG_LINES = 100


def open_driver(context: ProvisionerContext) -> DockerProvisioner:
    """The driver of the engine that the `docker` command talks to. Nothing is asked of it yet."""
    docker = Docker()
    image = MachineImage(docker, context.clock, context.cache_dir / containers.ON, context.progress)
    price = context.settings.get("usd_per_hour")
    return DockerProvisioner(docker, image, context.clock, usd_per_hour=price if isinstance(price, float) else 0.0)


class DockerProvisioner:
    """The engine's machine, cut into machines of the size that is asked for. Costs nothing but what it is said to."""

    name = containers.ON
    capabilities = Capabilities(poweroff_deletes=True, mounts=True, shares_network=True)

    def __init__(
        self,
        docker: Docker,
        image: MachineImage,
        clock: Clock,
        *,
        publish: bool = not sys.platform.startswith("linux"),
        usd_per_hour: float = 0.0,
    ) -> None:
        """`publish`: reach SSH through a port of this machine, where containers' own addresses lead nowhere."""
        self._docker = docker
        self._image = image
        self._clock = clock
        self._publish = publish
        #: What a machine is said to cost.
        self._usd_per_hour = usd_per_hour

    def prepare(self) -> None:
        """Build the image ahead of the first machine, if it is not there yet: about a minute, once."""
        self._image.ensure()

    def offers(self, need: Need) -> Iterable[Offer]:
        """One offer of exactly the size asked for, or none if the engine's machine is smaller."""
        info = self._docker.info()
        cpus, memory = int(info["NCPU"]), int(info["MemTotal"])
        arch = str(info.get("Architecture", "")).replace("aarch64", "arm64")
        size = _size(need, cpus, memory)
        elsewhere = need.region not in ("", containers.REGION) or need.zone not in ("", containers.REGION)
        if size is None or elsewhere or need.arch not in ("", arch) or info.get("OSType", "linux") != "linux":
            return []
        return [
            Offer(
                on=self.name,
                instance_type=f"docker-{size[0]}x{max(1, size[1] // _GIB)}",
                region=containers.REGION,
                zone=containers.REGION,
                arch=arch,
                vcpus=size[0],
                cores=size[0],
                memory=size[1],
                usd_per_hour=self._usd_per_hour,
            )
        ]

    def create(self, spec: InstanceSpec) -> Instance:
        """Create and start the container named in `spec`, or take up where an earlier call with it stopped.

        The first call ever also builds the image. A container of that name that this spec did not make is left
        alone: CloudError (config).
        """
        image = self._image.ensure()
        found = self._find(spec.name)
        if found is None:
            found = self._create(spec, image)
        if found is not None and not _made_by(spec, found):
            raise CloudError(
                f"there is another container named {spec.name}",
                fault=Fault.config,
                hint=f"it was not made for this VM; see `docker inspect {spec.name}`",
            )
        if found is not None and found["State"]["Status"] == "created":
            # An earlier call broke off, or another one is at it right now; doing it twice is fine.
            self._start(spec)
            found = self._find(spec.name)
        if found is None:
            raise CloudError(f"the container {spec.name} ended at once", fault=Fault.unavailable, hint="docker events")
        return containers.instance(found)

    def get(self, id: str) -> Instance:
        """One container of vmrun. Raises InstanceNotFound, for those of others too."""
        found = self._find(id)
        if found is None or not containers.labels_of(found).get(TAG_OWNER):
            raise InstanceNotFound(f"Docker has no machine {id[:80]}", hint="it was deleted, or ended by itself")
        return containers.instance(found)

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every container with both the label and the name of this owner, in any state."""
        prefix = instance_name(owner, "")
        listed = self._docker.call(
            *("ps", "--all", "--no-trunc", "--quiet"),
            *("--filter", f"label={TAG_OWNER}={owner}", "--filter", f"name=^/?{re.escape(prefix)}"),
        )
        for found in self._docker.inspect("container", listed.split()):
            seen = containers.instance(found)
            if seen.name.startswith(prefix) and seen.tags.get(TAG_OWNER) == owner:
                yield seen

    def delete(self, id: str) -> None:
        """Remove one container of vmrun with its volumes, and see it gone; one that is gone is success."""
        give_up = self._clock.monotonic() + _REMOVAL
        while (found := self._find(id)) is not None:
            if not containers.labels_of(found).get(TAG_OWNER):
                raise CloudError(
                    f"the container {id[:80]} is not vmrun's", fault=Fault.config, hint="nothing was deleted"
                )
            done = self._docker.run("rm", "--force", "--volumes", str(found["Id"]))
            said = message(done)
            # A container that was powering off is being removed by the engine already.
            if done.exit_code != 0 and "No such container" not in said and "already in progress" not in said:
                raise failure("rm", said)
            if self._clock.monotonic() > give_up:
                raise CloudError(
                    f"the container {id[:80]} is still there after {_REMOVAL:.0f} s",
                    fault=Fault.unavailable,
                    hint="see whether Docker hangs: docker info",
                )
            if done.exit_code != 0:
                self._clock.sleep(0.1)

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Volumes with this owner's label; the driver makes none itself."""
        listed = self._docker.call("volume", "ls", "--quiet", "--filter", f"label={TAG_OWNER}={owner}")
        for name in listed.split():
            yield Leftover(on=self.name, kind="volume", id=name, name=name, region=containers.REGION)

    def discard(self, leftover: Leftover) -> None:
        """Remove a volume that no container uses; one that is gone is success."""
        done = self._docker.run("volume", "rm", leftover.id)
        said = message(done)
        if done.exit_code != 0 and not any(text in said for text in ("no such volume", "in use")):
            raise failure("volume rm", said)

    def boot_log(self, id: str) -> str:
        """What systemd and cloud-init wrote to the container's console."""
        done = self._docker.run("logs", "--tail", str(_LOG_LINES), id) if _NAME.fullmatch(id) else None
        return message(done) if done is not None and done.exit_code == 0 else ""

    def _find(self, name: str) -> dict[str, Any] | None:
        """The container with exactly this id or name; Docker itself takes the beginning of an id for it, too."""
        found = self._docker.inspect("container", [name]) if _NAME.fullmatch(name) else []
        return next((one for one in found if name in (one["Id"], one["Name"].lstrip("/"))), None)

    def _create(self, spec: InstanceSpec, image: str) -> dict[str, Any] | None:
        """Create, seed and start it. Only a machine that runs ends by itself, so this is not left half done."""
        arguments = containers.create_arguments(spec, image, publish=self._publish)
        done = self._docker.sequence([(arguments, b""), *_start_steps(spec)])
        # Another call with this spec may have been faster; whose container it is, `create` sees.
        if done.exit_code != 0 and "is already in use" not in message(done):
            raise failure("create", message(done))
        return self._find(spec.name)

    def _start(self, spec: InstanceSpec) -> None:
        done = self._docker.sequence(_start_steps(spec))
        if done.exit_code != 0:
            raise failure("start", message(done))


def _start_steps(spec: InstanceSpec) -> list[tuple[list[str], bytes]]:
    return [
        (["cp", "-", f"{spec.name}:{containers.SEED}"], containers.seed_tar(spec.vm, spec.name, spec.user_data)),
        (["start", spec.name], b""),
    ]


def _size(need: Need, cpus: int, memory: int) -> tuple[int, int] | None:
    """Processors and bytes for `need`, or None if this machine is too small or the type is not one of Docker's."""
    wanted = need.cpus or cpus, need.memory or memory
    if need.instance_type:
        named = _TYPE.fullmatch(need.instance_type)
        if named is None or int(named[1]) < need.cpus or int(named[2]) * _GIB < need.memory:
            return None
        wanted = int(named[1]), int(named[2]) * _GIB
    return wanted if 0 < wanted[0] <= cpus and 0 < wanted[1] <= memory else None


def _made_by(spec: InstanceSpec, found: Mapping[str, Any]) -> bool:
    """Whether an earlier call with this spec created the container."""
    return containers.labels(spec).items() <= containers.labels_of(found).items()
