"""How the agent starts a runner: its directories, its environment, its first lines. Imported by the agent only."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Mapping

#: Below the engine's directory: what the job's user may write to, and where the agent keeps what it took from there.
RUN, TAKEN = "run", "taken"
#: Below `RUN`: large results, files of tasks, files being written, what programs import from, what tasks saved.
SAVED = "saved"
PARTS = ("spool", "files", "output", "path", SAVED)
LOG = "runner.log"
#: Holds the engine's mark, for an agent that comes after the one that made it.
MARK_FILE = "mark"
#: Of the agent's own environment user code gets these, and nothing else: it may hold credentials.
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "VMRUN_TEST_RUN",
)
#: Seconds that a directory takes at most that is hard to remove.
REMOVE_TIMEOUT = 300
#: By how much the runner is less nice than its workers, where that is allowed.
FAVOUR = 10
#: Names the engine that a process belongs to.
MARK = "VMRUN_ENGINE"
#: vmrun comes from `app_path` whatever else is installed; the job's own packages come before all else that is there.
_BOOT = """
import importlib.util, sys
place = sys.argv[1]
sys.path[:] = [path for path in sys.path if path]
spec = importlib.util.spec_from_file_location(
    "vmrun", place + "/vmrun/__init__.py", submodule_search_locations=[place + "/vmrun"]
)
sys.modules["vmrun"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
if place not in sys.path:
    sys.path.append(place)
from vmrun.agent.runner.loop import main
sys.exit(main(sys.argv[2:]))
"""


def make_directories(directory: str, user: str, mark: str) -> None:
    """An empty engine directory, with a part that `user` ("": this process's) may write to."""
    remove(directory)
    os.makedirs(directory, mode=0o711)
    with open(os.path.join(directory, MARK_FILE), "w", encoding="ascii") as file:
        file.write(mark)
    os.mkdir(os.path.join(directory, TAKEN), mode=0o700)
    run = os.path.join(directory, RUN)
    for path in (run, *(os.path.join(run, part) for part in PARTS)):
        os.mkdir(path, mode=0o700)
        if user:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)


def take(directory: str, part: str, path: str, number: int) -> str:
    """Move what the runner says it has left at `path`, in `part`, out of reach of the job's user; its new path.

    The runner is the job's user and not trusted: neither the path nor what is there. Raises OSError, ValueError.
    """
    target = os.path.join(directory, TAKEN, str(number))
    # Not by its path: the user may have put a link to some other directory in the place of `part`.
    folder = os.open(os.path.join(directory, RUN, part), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.rename(os.path.basename(path), target, src_dir_fd=folder)
    finally:
        os.close(folder)
    state = os.lstat(target)
    wanted = stat.S_ISDIR if part == "files" else stat.S_ISREG
    if not wanted(state.st_mode) or (part != "files" and state.st_nlink != 1):
        raise ValueError(f"{part} of the engine hold something else than they should")
    return target


def remove(directory: str) -> None:
    """Remove a directory, whatever user code has made of it: one that it may not enter, or a thousand in each other."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if not os.path.lexists(directory):
        return
    # Root enters all of it, and must change no rights: processes of the job may put a link anywhere meanwhile.
    if os.geteuid() != 0:
        with contextlib.suppress(RecursionError):
            for folder, _, _ in os.walk(directory):
                with contextlib.suppress(OSError):
                    os.chmod(folder, stat.S_IRWXU)
            shutil.rmtree(directory, ignore_errors=True)
    if os.path.lexists(directory):
        # Python goes no deeper into directories than into calls of functions; this program does.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["rm", "-rf", "--", directory], capture_output=True, check=False, timeout=REMOVE_TIMEOUT)


def environment(given: Mapping[str, str], user: str, mark: str) -> dict[str, str]:
    """The runner's and its workers' whole environment."""
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    env.update((name, value) for name, value in os.environ.items() if name.startswith("LC_"))
    env.setdefault("PATH", os.defpath)
    if user:
        entry = pwd.getpwnam(user)
        env.update(HOME=entry.pw_dir, USER=user, LOGNAME=user, SHELL=entry.pw_shell or "/bin/sh")
        env.pop("TMPDIR", None)
    if not any(name == "LANG" or name.startswith("LC_") for name in env):
        env["LANG"] = "C.UTF-8"
    return {**env, **given, MARK: mark}


def start(paths: tuple[str, str, str], user: str, env: dict[str, str], fd: int) -> subprocess.Popen[bytes]:
    """Start the runner on descriptor `fd`; `paths` are interpreter, application, directory. Raises OSError."""
    python, app_path, directory = paths
    log = os.open(os.path.join(directory, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [python, "-s", "-c", _BOOT, app_path, str(fd)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=os.path.join(directory, RUN),
            env=env,
            pass_fds=[fd],
            # A Ctrl-C in the agent's terminal is the agent's business.
            start_new_session=True,
            user=user or None,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    finally:
        os.close(log)


def favour(pid: int, niceness: int) -> None:
    """Have the kernel let the runner in at once when all cores are busy with tasks: it keeps them busy, with little.

    `niceness` is that of this process. Only who may do that does it, such as an agent that is root; others are served
    a little later.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, max(-20, niceness - FAVOUR))
    # Where the kernel groups by session, it is the group that is weighed.
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
        file.write(str(-FAVOUR))


def last_words(directory: str, limit: int = 2000) -> str:
    """The end of what the runner wrote about itself."""
    try:
        with open(os.path.join(directory, LOG), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
