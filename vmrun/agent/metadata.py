"""Closes the cloud's metadata service to the job's user: whoever may ask it has the machine's own identity.

A rule of the kernel's routing forbids the user the way there, by user id, so that neither root nor the agent are
affected, and nothing has to be installed. Only the ports of the service are meant: on Google's machines the same
address answers names, on port 53.
"""

from __future__ import annotations

import logging
import pwd
import subprocess

log = logging.getLogger(__name__)

#: Where EC2, Google and IBM machines find it. Sources: "Instance Metadata Service" in the EC2 user guide; "About VM
#: metadata" in Google's Compute Engine documentation; "About instance metadata" in IBM's VPC documentation.
ADDRESSES = ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254")
PORTS = (80, 443)
#: By its number: small images have no /etc/protocols.
TCP = "6"
#: Of the rules, before all that a machine usually has but its own addresses; with it, adding one again is an error.
PREFERENCE = 4220
#: Seconds for one command.
TIMEOUT = 10.0


def rule(uid: int, address: str, port: int) -> list[str]:
    """The command that forbids a user the way to a port."""
    family, bits = ("-6", 128) if ":" in address else ("-4", 32)
    what = ["uidrange", f"{uid}-{uid}", "to", f"{address}/{bits}", "ipproto", TCP, "dport", str(port)]
    return ["ip", family, "rule", "add", "pref", str(PREFERENCE), *what, "prohibit"]


def close_metadata(user: str) -> bool:
    """Forbid `user` the way to the service; whether that is so now. Idempotent; a failure is logged, not raised."""
    uid = pwd.getpwnam(user).pw_uid
    closed = [_add(rule(uid, address, port)) for address in ADDRESSES for port in PORTS]
    return all(closed)


def _add(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("event=metadata-open reason=%r", error)
        return False
    # Where it is there already, or there is no IPv6 at all, the way is closed as well.
    if done.returncode and not any(word in done.stderr for word in ("File exists", "family not supported")):
        log.warning("event=metadata-open command=%r reason=%r", " ".join(command), done.stderr.strip())
        return False
    return True
