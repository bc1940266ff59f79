"""A control group for a job's processes: limits that the kernel holds, should a task be faster than the warden's looks.

Only root can have one, and not everywhere; without, the warden is alone. Both versions of the kernel's interface are
spoken. What is in the group is known to be the job's, whatever it did to its environment and its parents.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import signal

from vmrun.core.clock import Clock

from .runner.usage import GROUPS as ROOT
from .runner.usage import Machine

log = logging.getLogger(__name__)

#: Names of the groups of a job, and of the one that the agent moves into where groups with members may have no others.
PREFIX, _OWN = "vmrun-job-", "vmrun-agent"
#: Processes and threads; the warden ends whoever has half as many.
CROWD_MAX = 64 * 1024
_PROCS = "cgroup.procs"
#: Attempts at emptying a group, and seconds between.
_TRIES, _PAUSE = 200, 0.01
#: Seconds for which an empty group may be one that is not filled yet.
_YOUNG = 60.0


class Group:
    """The directories of one group: in version 1 one per controller, none where there can be no group."""

    def __init__(self, folders: list[str]) -> None:
        self._folders = folders

    def add(self, pid: int) -> None:
        """Put a process in, and with it all that it will start."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                _write(f"{folder}/{_PROCS}", str(pid))

    def members(self) -> set[int]:
        """The processes in it."""
        return {pid for folder in self._folders for pid in _members(folder)}

    def end(self, clock: Clock) -> None:
        """Kill all that is in it, and remove it."""
        for _ in range(_TRIES):
            members = self.members()
            if not members:
                break
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            clock.sleep(_PAUSE)
        for folder in self._folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def make_group(name: str, memory: int, now: float, *, root: str = ROOT) -> Group:
    """A group in which all processes together may take `memory` bytes (0: without limits, and then none is made).

    `now`: seconds since the epoch.
    """
    own = _own_groups()
    folders: list[str] = []
    if os.geteuid() != 0 or not memory:
        return Group(folders)
    for controller in ("memory", "pids"):
        try:
            folders.append(_make(root, own, controller, f"{PREFIX}{name}", memory))
            _sweep(os.path.dirname(folders[-1]), now)
        except (OSError, KeyError) as error:
            log.info("event=no-group controller=%s reason=%r", controller, error)
    return Group(sorted(set(folders)))


def find_group(name: str, *, root: str = ROOT) -> Group:
    """The group that an agent before this one made, as far as it is still there."""
    own = _own_groups()
    parents = {f"{root}/{names}{path}" for names, path in own.items() if names} | {_parent(root, own.get("", ""))}
    return Group([folder for parent in parents if os.path.isdir(folder := f"{parent.rstrip('/')}/{PREFIX}{name}")])


def _own_groups() -> dict[str, str]:
    """The group of this process by controller; "": in version 2."""
    found = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path.rstrip("/")))
    return found


def _make(root: str, own: dict[str, str], controller: str, name: str, memory: int) -> str:
    if controller in own:
        folder = f"{root}/{controller}{own[controller]}/{name}"
    else:
        folder = f"{_delegate(root, own[''], controller)}/{name}"
    os.makedirs(folder, exist_ok=True)
    try:
        if controller == "pids":
            # The rest is for the agent, which shares what bounds this one: the machine, a container, a unit of systemd.
            _write(f"{folder}/pids.max", str(min(CROWD_MAX, Machine(root).crowd_max() * 3 // 4)))
        elif controller in own:
            _write(f"{folder}/memory.limit_in_bytes", str(memory))
        else:
            _write(f"{folder}/memory.max", str(memory))
    except OSError:
        os.rmdir(folder)
        raise
    return folder


def _sweep(parent: str, now: float) -> None:
    """Remove empty groups that agents left which were killed, and had no successor."""
    for path in glob.glob(f"{glob.escape(parent)}/{PREFIX}*"):
        # A young one may be of an agent that is about to fill it. One with processes cannot be removed.
        with contextlib.suppress(OSError):
            if now - os.stat(path).st_mtime > _YOUNG:
                os.rmdir(path)


def _parent(root: str, path: str) -> str:
    """Where version 2 has room for groups beside this process's own."""
    return f"{root}{path.removesuffix(f'/{_OWN}')}"


def _delegate(root: str, path: str, controller: str) -> str:
    """The group of this process, made one that has others below it instead of processes of its own."""
    parent = _parent(root, path)
    if controller not in _read(f"{parent}/cgroup.controllers").split():
        raise FileNotFoundError(f"{parent} has no {controller}")
    if controller in _read(f"{parent}/cgroup.subtree_control").split():
        return parent
    if _members(parent) - {os.getpid()}:
        raise PermissionError(f"{parent} is not this process's alone")
    if path and _members(parent):
        os.makedirs(f"{parent}/{_OWN}", exist_ok=True)
        _write(f"{parent}/{_OWN}/{_PROCS}", str(os.getpid()))
    _write(f"{parent}/cgroup.subtree_control", f"+{controller}")
    return parent


def _members(folder: str) -> set[int]:
    return set(map(int, _read(f"{folder}/{_PROCS}").split()))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
