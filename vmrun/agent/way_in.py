"""A person's way into a job on its machine: its directory, its variables, its interpreter, and whose rights it has.

The agent writes it down for each job that it begins; `vmrun ssh` runs the agent's program `enter`, which follows it.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from vmrun.core.errors import UsageError
from vmrun.core.ids import check_id

from .config import AgentConfig
from .runner import launch
from .runner.functions import replace_link

#: Below a job's directory: how to enter it (0600, as a job's variables may be secret), what a person is told there,
#: what is first in PATH, from where programs import vmrun, and what stands for $VMRUN_OUTPUT.
WAY_IN, WELCOME = "way-in.json", "welcome.txt"
BIN, TOOLS, OUTPUT = "bin", "tools", "output"
#: Of a person's terminal these are passed on.
_TERMINAL = ("TERM", "COLORTERM", "COLUMNS", "LINES")


@dataclass(frozen=True, slots=True)
class WayIn:
    """How one job is entered. Paths are absolute."""

    #: The job's own directory.
    directory: str
    #: Its files; "" if it has none.
    code: str
    #: Its interpreter.
    python: str
    #: Holds vmrun.
    app_path: str
    #: Variables of its tasks.
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, job: str) -> None:
        """Keep it in the job's directory. Raises OSError."""
        replace_link(os.path.join(self.directory, TOOLS, "vmrun"), os.path.join(self.app_path, "vmrun"))
        path = os.path.join(self.directory, WAY_IN)
        text = json.dumps({**asdict(self), "env": {"VMRUN_JOB": job, **self.env}})
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.new", path)

    @property
    def place(self) -> str:
        """Where a session begins."""
        return self.code or self.directory

    def variables(self, user: str) -> dict[str, str]:
        """The whole environment of a session: that of a task, and PATH so that the job's programs come first."""
        env = launch.environment(self.env, user, "")
        del env[launch.MARK]
        env |= {name: os.environ[name] for name in _TERMINAL if name in os.environ}
        own, tools = env.get("PYTHONPATH", ""), os.path.join(self.directory, TOOLS)
        env["PYTHONPATH"] = f"{own}{os.pathsep}{tools}" if own else tools
        folder = os.path.dirname(self.python)
        env["PATH"] = os.pathsep.join([folder, os.path.join(self.directory, BIN), env["PATH"]])
        if os.path.exists(os.path.join(os.path.dirname(folder), "pyvenv.cfg")):
            env["VIRTUAL_ENV"] = os.path.dirname(folder)
        env["VMRUN_OUTPUT"] = os.path.join(self.directory, OUTPUT)
        return env


def read_way_in(work_dir: str, job: str) -> WayIn:
    """The way into a job. Raises UsageError if it is not on this machine."""
    path = Path(work_dir, check_id(job, "job"), WAY_IN)
    try:
        data = json.loads(path.read_bytes())
        return WayIn(**{each.name: data[each.name] for each in fields(WayIn)})
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"job {job} is not on this machine (any more)", hint="`vmrun status JOB` tells where it is, or how it ended"
        ) from error


def enter(config: AgentConfig, job: str, words: Sequence[str]) -> int:
    """Become the command `words`, or a shell, in the job: as its user, in its directory, with its variables.

    Raises UsageError when the job is not here, or the program cannot be started.
    """
    way = read_way_in(config.work_dir, job)
    output = os.path.join(way.directory, OUTPUT)
    os.makedirs(output, exist_ok=True)
    env = way.variables(config.job_user)
    if not words:
        _welcome(way.directory)
    if config.job_user and os.geteuid() == 0:
        entry = pwd.getpwnam(config.job_user)
        os.chown(output, entry.pw_uid, entry.pw_gid)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    os.chdir(way.place)
    argv = list(words) or [_shell()]
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606 -- an argv, and no shell
    except OSError as error:
        raise UsageError(
            f"{argv[0][:80]!r} cannot be started there: {error.strerror}", hint="give a program that is on the machine"
        ) from error


def _welcome(directory: str) -> None:
    try:
        sys.stderr.write(Path(directory, WELCOME).read_text("utf-8"))
        sys.stderr.flush()
    except OSError:
        return  # only a job that failed has one


def _shell() -> str:
    return next((path for path in ("/bin/bash", "/usr/bin/bash") if os.access(path, os.X_OK)), "/bin/sh")
