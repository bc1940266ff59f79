"""The files of a local machine, and how they are read and written.

    <state>/machines/<name>/     one machine, 0700
    <state>/ended/<name>.json    why a machine that is no more was ended; the newest few are kept

Loaded by the guardian, so it imports little.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat

#: What the machine is: written before the directory gets its name, never changed.
INSTANCE = "instance.json"
#: The user data, byte for byte: the guardian's configuration.
USER_DATA = "user-data.json"
#: Seconds since the epoch after which the machine must not exist; may be shortened, never extended.
HARD_DEADLINE = "hard_deadline"
#: Seconds since the epoch until when the machine may live unless renewed.
LEASE = "lease"
#: The agent's command, a JSON list of strings: written last, whole or not at all; the guardian then starts it.
AGENT_ARGV = "agent.argv"
#: What the agent prints, bounded.
AGENT_LOG = "agent.log"
#: Held by the guardian for its life: at most one guardian per machine.
GUARDIAN_LOCK = "guardian.lock"
#: The guardian's process, with its start time.
GUARDIAN = "guardian.json"
GUARDIAN_LOG = "guardian.log"
#: Why the machine is being ended.
WHY = "why"

#: Environment of everything that runs on a machine: its name, and its directory.
MARK_NAME, MARK_DIRECTORY = "VMRUN_MACHINE", "VMRUN_MACHINE_DIRECTORY"

#: Seconds that a directory takes at most that is hard to remove.
REMOVE_TIMEOUT = 300

MACHINES, ENDED = "machines", "ended"
#: Directories that are no machine yet, or no more; a crash may leave them behind.
NEW_PREFIX, GONE_PREFIX = ".new-", ".gone-"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_DEBRIS = re.compile(r"\.(?:new|gone)-([a-z0-9][a-z0-9-]{0,99})-[a-z0-9_]{1,20}")
#: Control files are tiny; a larger one is not ours.
_LARGEST = 1 << 20
#: Records of ended machines that are kept.
_ENDED_KEPT = 200


def is_name(text: str) -> bool:
    """Whether `text` can be a machine's name, and so a path component."""
    return _NAME.fullmatch(text) is not None


def debris_of(text: str) -> str:
    """The machine's name that a half-made or half-removed directory belongs to; empty for any other directory."""
    match = _DEBRIS.fullmatch(text)
    return match.group(1) if match else ""


def read_text(path: str) -> str | None:
    """A control file's content; None when it is missing, unreadable, not regular, too large or not text."""
    try:
        # Not blocking, so that a named pipe in the file's place cannot hold up the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = os.read(descriptor, _LARGEST + 1)
        return data.decode() if len(data) <= _LARGEST else None
    except (OSError, UnicodeDecodeError):
        return None
    finally:
        os.close(descriptor)


def read_json(path: str) -> dict[str, object] | None:
    """A control file's JSON object; None when there is none to be had."""
    text = read_text(path)
    try:
        value = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_text(path: str, text: str) -> None:
    """Write a control file (0600), whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.rename(temporary, path)


def take_lock(directory: str) -> int | None:
    """A descriptor that holds the guardian's lock, or None while somebody else does. Raises OSError."""
    descriptor = os.open(f"{directory}/{GUARDIAN_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(directory: str) -> bool:
    """Whether somebody holds the guardian's lock. Raises OSError, but for a directory that is not there."""
    try:
        descriptor = os.open(f"{directory}/{GUARDIAN_LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def record_end(state: str, name: str, why: str, now: float) -> None:
    """Leave a short record of a machine that ends, and forget the oldest ones. Raises OSError."""
    folder = f"{state}/{ENDED}"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    write_text(f"{folder}/{name}.json", json.dumps({"name": name, "why": why, "ended_at": round(now, 3)}))
    with os.scandir(folder) as entries:
        records = sorted((entry.stat().st_mtime, entry.path) for entry in entries if entry.name.endswith(".json"))
    for _, path in records[:-_ENDED_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def remove_machine(directory: str) -> None:
    """Take a directory out of the listing in one step, then remove it; a crash in between leaves debris."""
    parent, name = os.path.split(directory)
    for attempt in range(10):
        target = f"{parent}/{GONE_PREFIX}{name}-{os.getpid()}_{attempt}"
        try:
            os.rename(directory, target)
        except FileNotFoundError:
            return
        except OSError:
            continue  # debris of an earlier process with this number
        remove_tree(target)
        return


def remove_tree(directory: str) -> None:
    """Remove a directory and all in it, also what user code made unwritable; what resists stays as debris."""
    with contextlib.suppress(OSError):
        os.chmod(directory, 0o700)
    with contextlib.suppress(RecursionError):
        for path, folders, _ in os.walk(directory):
            for folder in (f"{path}/{name}" for name in folders):
                with contextlib.suppress(OSError):
                    if not os.path.islink(folder):
                        os.chmod(folder, 0o700)
        shutil.rmtree(directory, ignore_errors=True)
        return
    import subprocess  # here, as it is seldom needed and the guardian is to start fast

    # Python goes no deeper into directories than into calls of functions; this program does.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["rm", "-rf", "--", directory], capture_output=True, check=False, timeout=REMOVE_TIMEOUT)
