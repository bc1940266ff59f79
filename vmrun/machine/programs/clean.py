"""Takes away all that vmrun brought to a borrowed machine, which stays up. Argument: the VM that had it.

Nothing is done when another VM has the machine by now. It may be run again, and by several at once; what is left when
it is cut short is taken away by the next run, which the timer sees to: the timer goes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time

STATE = "/var/lib/vmrun"
MARKER = STATE + "/borrowed.json"
UNITS = "/etc/systemd/system"
AGENT, TIMER, DEADMAN = "vmrun-agent.service", "vmrun-deadman.timer", "vmrun-deadman.service"
#: What vmrun brings beside its state, in which the marker is.
PLACES = ("/run/vmrun", "/etc/sudoers.d/vmrun", "/opt/vmrun")
SCRIPTS = ("/usr/local/sbin/vmrun-deadman", "/usr/local/sbin/vmrun-clean")
#: The user who logged in, and the one who ran the jobs. Only those that vmrun made bear this comment.
USERS, COMMENT = ("vmjob", "vmrun"), "made by vmrun"
#: Where anybody may write.
OPEN = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")  # noqa: S108
#: Of the routing rules that close the metadata service to a user.
PREFERENCE = "4220"
IPC = (("shm", "-m"), ("sem", "-s"), ("msg", "-q"))
#: Seconds for an agent to end at most, for all processes of a user to be dead, and for another run to end.
FLUSH, DEATH, OTHERS = 3700.0, 30.0, 900.0


def call(*argv: str, timeout: float = 120.0) -> bool:
    """Whether a command succeeded; one that is not there did not."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=timeout,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def alone() -> int:
    """Wait until no other run is at it; the lock lives as long as this process and leaves no file."""
    place = os.open(UNITS, os.O_RDONLY)
    give_up = time.monotonic() + OTHERS
    while True:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return place
        except OSError:
            if time.monotonic() > give_up:
                sys.exit("another run has been at it for too long")
            time.sleep(0.2)  # noqa: TID251 - runs alone on the machine


def holder() -> str:
    """The VM that has the machine; "" for none."""
    try:
        with open(MARKER, encoding="utf-8") as file:
            return str(json.load(file)["vm"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def judged_for(vm: str) -> bool:
    """Whether the timer that is here is this VM's."""
    try:
        with open(SCRIPTS[0], encoding="utf-8") as file:
            return f"vmrun-clean {vm}\n" in file.read()
    except OSError:
        return False


def own_users() -> list[pwd.struct_passwd]:
    """The users that vmrun made."""
    return [entry for entry in pwd.getpwall() if entry.pw_name in USERS and entry.pw_gecos.startswith(COMMENT)]


def processes(uid: int) -> list[int]:
    """All that run as a user, by any of their ids."""
    found = []
    for path in glob.glob("/proc/[0-9]*/status"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
            if str(uid) in lines.get("Uid", "").split() and not lines.get("State", "").strip().startswith("Z"):
                found.append(int(path.split("/")[2]))
    return found


def end_processes(uid: int) -> None:
    """Kill them until there is none; they may be starting others meanwhile."""
    give_up = time.monotonic() + DEATH
    while True:
        left = processes(uid)
        if not left:
            return
        if time.monotonic() > give_up:
            sys.exit(f"processes {left[:10]} of user {uid} do not die")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)  # noqa: TID251 - runs alone on the machine


def remove_files(uid: int) -> None:
    """What a user left where anybody may write."""
    for root in OPEN:
        for folder, folders, files in os.walk(root, topdown=False):
            for name in files + folders:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    found = os.lstat(path)
                    if found.st_uid == uid:
                        (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)


def remove_ipc(uid: int) -> None:
    """Shared memory, semaphores and queues of a user, which no process keeps alive."""
    for kind, option in IPC:
        with contextlib.suppress(OSError), open("/proc/sysvipc/" + kind, encoding="ascii") as file:
            head = file.readline().split()
            for line in file:
                row = dict(zip(head, line.split()))  # noqa: B905 - Python 3.8
                if row.get("uid") == str(uid):
                    call("ipcrm", option, line.split()[1])


def remove_user(entry: pwd.struct_passwd) -> None:
    """A user and all that is theirs."""
    name, uid = entry.pw_name, entry.pw_uid
    call("loginctl", "terminate-user", name, timeout=20.0)
    end_processes(uid)
    call("systemctl", "stop", f"user@{uid}.service", f"user-runtime-dir@{uid}.service", timeout=60.0)
    call("crontab", "-r", "-u", name)
    for family in ("-4", "-6"):
        for _ in range(100):
            if not call("ip", family, "rule", "del", "pref", PREFERENCE, "uidrange", f"{uid}-{uid}"):
                break
    remove_ipc(uid)
    remove_files(uid)
    call("userdel", "--remove", name) or call("userdel", "--force", "--remove", name)
    if any(found.pw_name == name for found in own_users()):
        sys.exit(f"the user {name} cannot be removed")
    shutil.rmtree(entry.pw_dir, ignore_errors=True)


def remove_unit(unit: str) -> None:
    """Its file, and the links that start it at boot."""
    for path in [f"{UNITS}/{unit}", *glob.glob(f"{UNITS}/*.wants/{unit}")]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def empty(place: str, spared: str) -> None:
    """Remove all that is in a directory but one path."""
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if path == spared:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def end_agent() -> None:
    """The agent with all that it runs, and its unit."""
    call("systemctl", "stop", AGENT, timeout=FLUSH)
    call("systemctl", "kill", "--signal=KILL", AGENT)
    remove_unit(AGENT)


def clean() -> None:
    """The agent and all that runs, then who ran it, then files, the marker last."""
    end_agent()
    for entry in own_users():
        remove_user(entry)
    # A client that is late may have started it anew as long as it was let in.
    end_agent()
    for place in PLACES:
        with contextlib.suppress(FileNotFoundError):
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.rmtree(place)
            else:
                os.unlink(place)
    empty(STATE, MARKER)
    os.unlink(MARKER)


def is_the_judge() -> bool:
    """Whether the timer's service runs this process."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return any(line.rstrip("\n").endswith("/" + DEADMAN) for line in file)
    except OSError:
        return False


def disarm() -> None:
    """The timer, which would have this done again if it were not."""
    with contextlib.suppress(OSError):
        os.rmdir(STATE)
    # One that still judges would look for its script in vain, and its failure would be kept after all else is gone. The
    # timer stops as late as can be: without it nobody comes if this is cut short.
    judge = [] if is_the_judge() else [DEADMAN]
    for unit in (*judge, TIMER, *judge):
        call("systemctl", "stop", unit)
    for unit in (TIMER, DEADMAN):
        remove_unit(unit)
    for script in SCRIPTS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(script)
    call("systemctl", "daemon-reload")
    call("systemctl", "reset-failed", AGENT)
    call("systemctl", "reset-failed", TIMER, DEADMAN)


def main(vm: str) -> None:
    """Print whether the machine was this VM's to clean, and who has it otherwise."""
    lock = alone()
    found = holder()
    # Without a marker nothing but the timer can be this VM's; what else is here is its owner's.
    own = found == vm or (not found and judged_for(vm))
    if own:
        if os.path.lexists(MARKER):
            clean()
        disarm()
    sys.stdout.write(json.dumps({"cleaned": own, "holder": "" if found == vm else found}))
    sys.stdout.flush()
    os.close(lock)


if __name__ == "__main__":
    main(sys.argv[1])
