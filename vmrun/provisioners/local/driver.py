"""Machines on this computer: each a private directory and a guardian process that ends it in time.

`layout` has the files, `guardian` the program. This driver only makes directories, starts guardians, and looks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from vmrun.core.clock import Clock
from vmrun.core.clouds import (
    Address,
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Leftover,
    Need,
    Offer,
    Scope,
    instance_name,
)
from vmrun.core.errors import ConfigError
from vmrun.provisioners.context import ProvisionerContext

from . import config, hardware, layout, processes, service

#: Seconds within which a guardian must have taken over its machine.
_START_SECONDS = 20.0
#: Seconds beyond the agent's grace after which a guardian that was told to end its machine is not waited for.
_DELETE_SECONDS = service.KILL_SECONDS + 5.0
#: Seconds between two looks at what is being waited for.
_PAUSE = 0.01
#: Seconds after which a directory that is being made or removed is taken for debris.
_DEBRIS_SECONDS = 60.0
#: The guardian sees the standard library and this very vmrun, whatever the environment says: it starts fast, and
#: nothing of this is handed down to the agent.
_GUARDIAN = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from vmrun.provisioners.local.guardian import main; sys.exit(main(sys.argv[2:]))"
)


def open_driver(context: ProvisionerContext) -> LocalProvisioner:
    """The driver for this deployment. Raises ConfigError where there is no Linux."""
    if not os.path.exists("/proc/self/stat"):
        raise ConfigError(
            f"machines on this computer need Linux, and this is {sys.platform}",
            hint="use --on docker, or a cloud",
        )
    usd_per_hour = context.settings.get("usd_per_hour")
    return LocalProvisioner(
        context.state_dir / hardware.LOCAL,
        context.clock,
        usd_per_hour=usd_per_hour if isinstance(usd_per_hour, float) else 0.0,
    )


class LocalProvisioner:
    """The driver of this computer. Machines are found again by every process that uses the same state directory."""

    name = hardware.LOCAL
    capabilities = Capabilities(transport="process", poweroff_deletes=True, mounts=True, shares_network=True)

    def __init__(
        self, state_dir: Path, clock: Clock, python: str = sys.executable, *, usd_per_hour: float = 0.0
    ) -> None:
        self._state = Path(os.path.abspath(state_dir))
        self._machines = self._state / layout.MACHINES
        self._clock = clock
        self._python = python
        #: What this computer is said to cost.
        self._usd_per_hour = usd_per_hour

    def directory(self, id: str) -> Path:
        """Where a machine lives: the working directory of its agent. Raises InstanceNotFound."""
        directory = self._machines / id
        if not layout.is_name(id) or not directory.is_dir():
            raise InstanceNotFound(f"no local machine {id[:100]!r}", hint="`vmrun status` lists the machines there are")
        return directory

    def offers(self, need: Need) -> Iterable[Offer]:
        """One offer, if this computer is enough."""
        offer = dataclasses.replace(hardware.this_computer(), usd_per_hour=self._usd_per_hour)
        with _as_cloud_error():
            disk = hardware.free_disk(self._machines)
        return [offer] if hardware.fits(offer, need, disk) else []

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def create(self, spec: InstanceSpec) -> Instance:
        """Make the machine's directory and start its guardian, whichever of both is missing.

        A machine that was ended stays ended: its name is not given a second life.
        """
        settings = _checked(spec)
        directory = self._machines / spec.name
        with _as_cloud_error():
            if not directory.is_dir():
                if (self._state / layout.ENDED / f"{spec.name}.json").exists():
                    return _instance(spec.name, InstanceState.gone, _describe(spec, self._clock.now()))
                self._make(spec, settings)
            record = layout.read_json(f"{directory}/{layout.INSTANCE}")
            if record is not None and not _is_of(record, spec):
                raise CloudError(
                    f"the local machine {spec.name} exists and was made for something else",
                    fault=Fault.config,
                    hint="a retry with other parameters needs another VM id; `vmrun reap` removes what is left over",
                )
            self._ensure_guardian(directory)
            return self._look(spec.name) or _instance(spec.name, InstanceState.gone, record or {})

    def get(self, id: str) -> Instance:
        """One machine. Raises InstanceNotFound."""
        with _as_cloud_error():
            found = self._look(id) if layout.is_name(id) else None
        if found is None:
            raise InstanceNotFound(f"no local machine {id[:100]!r}", hint="`vmrun status` lists the machines there are")
        return found

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every machine of this owner by name or record; one without a living guardian is `stopped`."""
        with _as_cloud_error():
            found = [self._look(name) for name in self._names() if self._is_owned(name, owner)]
        return iter([machine for machine in found if machine is not None])

    def delete(self, id: str) -> None:
        """End a machine and wait until nothing of it is left; also removes debris that `leftovers` names.

        Bounded by the agent's grace and a few seconds. Raises CloudError if something resists.
        """
        path = self._machines / id
        with _as_cloud_error():
            if layout.debris_of(id):
                layout.remove_tree(str(path))
            elif layout.is_name(id) and path.is_dir():
                self._end(str(path))
            else:
                return
            if path.is_dir():
                raise CloudError(
                    f"the local machine {id} could not be removed",
                    fault=Fault.unavailable,
                    hint=f"see what holds {path}, and delete it by hand",
                )

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Directories that a crash left half-made or half-removed."""
        mine = instance_name(owner, "")
        with _as_cloud_error():
            debris = {name: layout.debris_of(name) for name in self._names() if self._is_old(name)}
        return iter(
            [
                Leftover(on=self.name, kind="directory", id=name, name=machine)
                for name, machine in debris.items()
                if machine.startswith(mine)
            ]
        )

    def discard(self, leftover: Leftover) -> None:
        """Remove debris; what has become a machine meanwhile stays."""
        if layout.debris_of(leftover.id):
            self.delete(leftover.id)

    def boot_log(self, id: str) -> str:
        """None: a process has no console."""
        del id
        return ""

    def _is_owned(self, name: str, owner: str) -> bool:
        if not layout.is_name(name):
            return False
        record = layout.read_json(f"{self._machines / name}/{layout.INSTANCE}") or {}
        return name.startswith(instance_name(owner, "")) or record.get("owner") == owner

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._machines) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def _is_old(self, name: str) -> bool:
        try:
            return self._clock.now() - (self._machines / name).stat().st_mtime > _DEBRIS_SECONDS
        except FileNotFoundError:
            return False

    def _look(self, name: str) -> Instance | None:
        """A machine as it is now; None when it is not there."""
        directory = self._machines / name
        guardian = layout.read_json(f"{directory}/{layout.GUARDIAN}")
        if processes.from_record(guardian) is not None:
            state = InstanceState.running
        elif guardian is None and layout.is_locked(str(directory)):
            state = InstanceState.pending
        else:
            state = InstanceState.stopped
        record = layout.read_json(f"{directory}/{layout.INSTANCE}")
        return _instance(name, state, record or {}) if directory.is_dir() else None

    def _make(self, spec: InstanceSpec, settings: config.GuardianConfig) -> None:
        """Make the machine's directory, complete or not at all; one that another process made first stands."""
        now = self._clock.now()
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._machines.mkdir(mode=0o700, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f"{layout.NEW_PREFIX}{spec.name}-", dir=self._machines)
        layout.write_text(f"{draft}/{layout.INSTANCE}", json.dumps(_describe(spec, now)))
        layout.write_text(f"{draft}/{layout.USER_DATA}", spec.user_data)
        hard_deadline = min(spec.hard_deadline, settings.hard_deadline)
        layout.write_text(f"{draft}/{layout.HARD_DEADLINE}", f"{max(0.0, hard_deadline):.3f}\n")
        layout.write_text(f"{draft}/{layout.LEASE}", f"{now + settings.boot_grace:.3f}\n")
        try:
            os.rename(draft, self._machines / spec.name)
        except OSError:
            layout.remove_tree(draft)
            if not (self._machines / spec.name).is_dir():
                raise

    def _ensure_guardian(self, directory: Path) -> None:
        """Start the machine's guardian, unless one was started ever: a machine that stopped is not started again."""
        deadline = self._clock.monotonic() + _START_SECONDS
        while directory.is_dir() and not (directory / layout.GUARDIAN).exists():
            lock = layout.take_lock(str(directory))
            if lock is not None:
                try:
                    if not (directory / layout.GUARDIAN).exists():
                        self._start_guardian(directory, lock)
                finally:
                    os.close(lock)
                return
            if self._clock.monotonic() >= deadline:
                raise CloudError(
                    f"the guardian of {directory.name} is being started by another process, which does not get on",
                    fault=Fault.unavailable,
                    hint="submit again; `vmrun reap` removes the machine when its boot grace is over",
                )
            self._clock.sleep(_PAUSE)

    def _start_guardian(self, directory: Path, lock: int) -> None:
        """Start the guardian, which inherits the lock, and wait until it has taken over."""
        root = str(Path(__file__).resolve().parents[3])
        argv = [self._python, "-I", "-S", "-c", _GUARDIAN, root, str(directory), str(lock)]
        with open(directory / layout.GUARDIAN_LOG, "ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, **_marks(str(directory))},
                pass_fds=[lock],
                start_new_session=True,
            )
        try:
            code = process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != 0 and directory.is_dir():
            raise CloudError(
                f"the guardian of {directory.name} did not start (exit code {code})",
                fault=Fault.unavailable,
                hint=f"see {directory / layout.GUARDIAN_LOG}",
            )

    def _end(self, directory: str) -> None:
        """Have the guardian end its machine; do it here if there is none, or if it does not get on."""
        deadline = self._clock.monotonic() + _flush_grace(directory) + _DELETE_SECONDS
        told: processes.Process | None = None
        while self._clock.monotonic() < deadline:
            guardian = processes.from_record(layout.read_json(f"{directory}/{layout.GUARDIAN}")) or told
            if guardian is not None and processes.find(guardian.pid) != guardian:
                break
            if guardian is None and not layout.is_locked(directory):
                break
            if guardian is not None and told is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(guardian.pid, signal.SIGTERM)
                told = guardian
            self._clock.sleep(_PAUSE)
        if os.path.isdir(directory):
            self._end_by_force(directory)

    def _end_by_force(self, directory: str) -> None:
        """Kill all that runs on a machine, its guardian first, and remove it."""
        with contextlib.suppress(OSError):
            layout.record_end(str(self._state), os.path.basename(directory), "deleted", self._clock.now())
        # Nobody may start a guardian in a directory that is about to go.
        lock = layout.take_lock(directory)
        try:
            processes.kill_all(lambda: _inhabitants(directory), self._clock, service.KILL_SECONDS)
            layout.remove_machine(directory)
        finally:
            if lock is not None:
                os.close(lock)


@contextlib.contextmanager
def _as_cloud_error() -> Iterator[None]:
    """What this computer's file system refuses, as an error of a cloud."""
    try:
        yield
    except PermissionError as error:
        raise CloudError(
            f"the state directory of local machines cannot be used: {error}",
            fault=Fault.permission,
            hint="give this user the right to read and write it, or set another state directory",
        ) from error
    except OSError as error:
        raise CloudError(
            f"this computer could not do it: {error}",
            # Its answer is definite, and asking again in a minute gets the same one.
            fault=Fault.not_offered,
            scope=Scope.cloud,
            hint="see whether its disk is full, or its limit of processes or files is reached",
        ) from error


def _checked(spec: InstanceSpec) -> config.GuardianConfig:
    """The guardian's configuration of a spec that can be carried out; else CloudError."""
    if not layout.is_name(spec.name):
        problem = f"{spec.name[:100]!r} cannot be the name of a local machine"
    else:
        try:
            return config.parse(spec.user_data)
        except ValueError as error:
            problem = f"the user data of {spec.name} is not that of a local machine: {error}"
    raise CloudError(problem, fault=Fault.config, scope=Scope.cloud, hint="this is a defect of vmrun; please report it")


def _describe(spec: InstanceSpec, now: float) -> dict[str, object]:
    """What is written down of a machine when it is made."""
    return {
        "name": spec.name,
        "vm": spec.vm,
        "owner": spec.owner,
        "tags": spec.tags,
        "user_data": spec.user_data,
        "created_at": round(now, 3),
    }


def _is_of(record: dict[str, object], spec: InstanceSpec) -> bool:
    """Whether a machine was made by a create call with this spec."""
    wanted = _describe(spec, 0.0)
    return all(record.get(field) == wanted[field] for field in ("vm", "owner", "user_data"))


def _instance(name: str, state: InstanceState, record: dict[str, object]) -> Instance:
    tags, created_at = record.get("tags"), record.get("created_at")
    return Instance(
        id=name,
        name=name,
        on=hardware.LOCAL,
        state=state,
        region=hardware.LOCAL,
        zone=hardware.LOCAL,
        instance_type=hardware.LOCAL,
        address=Address(host=""),
        tags={str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {},
        created_at=created_at if isinstance(created_at, float) else 0.0,
    )


def _marks(directory: str) -> dict[str, str]:
    return {layout.MARK_NAME: os.path.basename(directory), layout.MARK_DIRECTORY: directory}


def _flush_grace(directory: str) -> float:
    try:
        return config.parse(layout.read_text(f"{directory}/{layout.USER_DATA}") or "").flush_grace
    except ValueError:
        return 0.0


def _inhabitants(directory: str) -> list[processes.Process]:
    """Every process of a machine: the guardian, what descends from it, and what bears the machine's marks."""
    guardian = processes.from_record(layout.read_json(f"{directory}/{layout.GUARDIAN}"))
    tree = [guardian, *processes.descendants(guardian.pid)] if guardian else []
    return [one for one in {*tree, *processes.marked(_marks(directory))} if one.pid != os.getpid()]
