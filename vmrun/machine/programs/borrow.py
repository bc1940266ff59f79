"""Makes a machine that has an owner ready for one VM, as cloud-init would a fresh one. The document is standard input.

The timer is armed before anything else; from then on the machine cleans itself. What the owner has is never touched:
what stands in the way ends this program, and nothing is done. The same document again changes nothing.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from typing import Any

STATE = "/var/lib/vmrun"
MARKER = STATE + "/borrowed.json"
UNITS = "/etc/systemd/system"
TIMER = "vmrun-deadman.timer"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
COMMENT = "made by vmrun"
#: Places that vmrun uses, and whoever it finds there.
PLACES = (STATE, "/opt/vmrun", "/etc/sudoers.d/vmrun")
TOOLS = ("systemctl", "useradd", "userdel", "sudo")
#: Seconds for a run of the cleaning to end.
OTHERS = 300.0


def call(*argv: str) -> None:
    """One command; its failure ends this program."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120
    )
    if done.returncode != 0:
        sys.exit(f"{argv[0]}: {done.stdout.decode(errors='replace').strip()[:500]}")


def alone() -> None:
    """Wait until no cleaning is at work; the lock lives as long as this process."""
    place = os.open(UNITS, os.O_RDONLY)
    give_up = time.monotonic() + OTHERS
    while True:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > give_up:
                sys.exit("the cleaning after the last VM has been at work for too long")
            time.sleep(0.2)  # noqa: TID251 - runs alone on the machine
        else:
            return


def marker() -> dict[str, Any]:
    """Whom the machine is borrowed by."""
    try:
        with open(MARKER, encoding="utf-8") as file:
            found = json.load(file)
            return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def put(path: str, text: str, mode: int) -> None:
    """A file, whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def user(name: str) -> pwd.struct_passwd | None:
    """A user of the machine."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def obstacle(document: dict[str, Any]) -> str:
    """Why a machine that nobody has cannot be borrowed; "" if it can."""
    if not os.path.isdir("/run/systemd/system"):
        return "it does not run systemd"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if not os.path.exists(HOST_KEY):
        return f"there is no {HOST_KEY}: its SSH server needs an ed25519 key"
    taken = [name for name in document["users"] if user(name) is not None]
    if taken:
        return f"there is a user {taken[0]} that vmrun did not make"
    if not may_log_in(document):
        return "its SSH server lets in named users or groups only, and no user vmrun: allow it in sshd_config"
    found = [place for place in PLACES if os.path.lexists(place)]
    return f"{found[0]} is there, and vmrun did not make it or is not done with removing it" if found else ""


def may_log_in(document: dict[str, Any]) -> bool:
    """Whether the SSH server would let in the user that is to come, and a group of the same name."""
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin")
    names = [name for name, about in document["users"].items() if about.get("key")]
    if sshd is None or not names:
        return True
    done = subprocess.run([sshd, "-T"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    rules = [line.split() for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("allow")]
    for kind in ("allowusers", "allowgroups"):
        patterns = [rule[1].split("@")[0] for rule in rules if rule[0] == kind and len(rule) > 1]
        if patterns and not any(fnmatch.fnmatchcase(names[0], pattern) for pattern in patterns):
            return False
    return True


def arm(document: dict[str, Any]) -> None:
    """The marker, the times, the scripts, and the timer runs. A lease that is there stays as it is."""
    keep = os.path.exists(STATE + "/lease")
    if not os.path.exists(MARKER):
        put(MARKER, json.dumps({**document["marker"], "at": int(time.time())}), 0o644)  # noqa: TID251
    put(STATE + "/hard_deadline", f"{document['hard_deadline']}\n", 0o644)
    if not keep:
        # Counted from now, on this machine's clock.
        put(STATE + "/lease", f"{int(time.time()) + document['boot_grace']}\n", 0o644)  # noqa: TID251
    for path, mode, text in document["files"]:
        put(path, text, int(mode, 8))
    call("systemctl", "daemon-reload")
    call("systemctl", "enable", TIMER)
    call("systemctl", "start", TIMER)


def admit(name: str, shell: str, key: str) -> None:
    """Make a user; with a key, one that may log in by it and become root."""
    if user(name) is None:
        # No password fits "*", and unlike "!" it does not lock the user out of SSH.
        call("useradd", "--create-home", "--password", "*", "--shell", shell, "--comment", COMMENT, name)
    entry = user(name)
    if not key or entry is None:
        return
    folder = entry.pw_dir + "/.ssh"
    put(folder + "/authorized_keys", key + "\n", 0o600)
    for path in (folder, folder + "/authorized_keys"):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    os.chmod(folder, 0o700)
    put("/etc/sudoers.d/" + name, f"{name} ALL=(ALL) NOPASSWD:ALL\n", 0o440)


def main() -> None:
    """Print the machine's host key; or who has the machine, or what is in the way."""
    os.umask(0o022)
    document = json.load(sys.stdin)
    alone()
    found = marker()
    if found and found.get("vm") != document["marker"]["vm"]:
        sys.stdout.write(json.dumps({"holder": found, "now": int(time.time())}))  # noqa: TID251
        return
    reason = "" if found else obstacle(document)
    if reason:
        sys.stdout.write(json.dumps({"refused": reason}))
        return
    arm(document)
    for name, about in document["users"].items():
        admit(name, about["shell"], about.get("key", ""))
    for place in document["directories"]:
        os.makedirs(place, exist_ok=True)
    with open(HOST_KEY, encoding="ascii") as file:
        sys.stdout.write(json.dumps({"host_key": " ".join(file.read().split()[:2])}))


if __name__ == "__main__":
    main()
