"""What the SSH client, or sudo on the host, says when it fails: as an error of the cloud that these hosts are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.hosts import Completed

from .hosts import HostName

#: What the OpenSSH client exits with for trouble of its own.
SSH_FAILED = 255
_UNKNOWN_KEY = ("host key is known for", "Host key verification failed")
_OTHER_KEY = ("REMOTE HOST IDENTIFICATION HAS CHANGED",)
_REFUSED = ("Permission denied", "Too many authentication failures", "no mutual signature")
_KEY_FILE = ("UNPROTECTED PRIVATE KEY", "bad permissions")


class Trouble(Enum):
    """What keeps a host from being worked on."""

    other_key = "presents another host key than the one that is known for it"
    unknown_key = "is not in known_hosts, so that nothing proves that it is the host"
    refused = "refuses the login"
    key_file = "cannot be logged in to: others may read the private key"
    no_sudo = "does not let its user become root without a password"
    no_python = "has no /usr/bin/python3"
    unreachable = "does not answer"
    failed = "failed"


#: Those that trying again will not mend.
_LASTING = frozenset(Trouble) - {Trouble.unreachable, Trouble.failed}


class HostError(CloudError):
    """A host that cannot be worked on as it is; the others are not concerned."""

    def __init__(self, host: HostName, trouble: Trouble, said: str) -> None:
        lasting = trouble in _LASTING
        super().__init__(
            f"{host.text} {trouble.value}{f': {said}' if said and trouble not in _EXPLICIT else ''}",
            fault=Fault.not_offered if lasting else Fault.stockout,
            scope=Scope.zone,
            cloud_code=trouble.name,
            hint=_HINTS[trouble].format(host=host.text, name=host.host),
        )
        self.trouble = trouble


#: Those that need no word of the client's.
_EXPLICIT = frozenset({Trouble.other_key, Trouble.unknown_key, Trouble.no_sudo, Trouble.no_python, Trouble.key_file})
_HINTS: Mapping[Trouble, str] = {
    Trouble.other_key: "another machine answers there, or {host} was installed anew: find out which, and only then"
    " replace its line in known_hosts (`ssh-keygen -R {name}`)",
    Trouble.unknown_key: "log in to {host} once by `ssh`, compare the key that it shows, and accept it; or name the"
    " file with its key: [ssh] known_hosts",
    Trouble.refused: "see that `ssh -o BatchMode=yes {host} true` works; the key is [ssh] identity_file, or one of the"
    " SSH agent's or of ~/.ssh",
    Trouble.key_file: "make it yours alone: chmod 600",
    Trouble.no_sudo: "allow it on {host}: a line `USER ALL=(ALL) NOPASSWD:ALL` in a file of /etc/sudoers.d",
    Trouble.no_python: "install python3 on {host}",
    Trouble.unreachable: "see whether `ssh {host}` works from here",
    Trouble.failed: "see what {host} is at, then run it again",
}


def trouble_of(host: HostName, done: Completed) -> HostError | None:
    """Why a command did not run; None if it ran, whatever became of it."""
    said = done.stderr.decode("utf-8", "replace")
    last = _last_line(said)
    if done.exit_code == SSH_FAILED:
        return HostError(host, _of_ssh(said), last)
    if done.exit_code and last.startswith("sudo:"):
        missing = "command not found" in last or "No such file" in last
        return HostError(host, Trouble.no_python if missing else Trouble.no_sudo, last)
    if done.exit_code in (126, 127):
        return HostError(host, Trouble.no_sudo if "sudo" in said else Trouble.no_python, last)
    return None


def _of_ssh(said: str) -> Trouble:
    for trouble, words in (
        (Trouble.other_key, _OTHER_KEY),
        (Trouble.unknown_key, _UNKNOWN_KEY),
        (Trouble.key_file, _KEY_FILE),
        (Trouble.refused, _REFUSED),
    ):
        if any(word in said for word in words):
            return trouble
    return Trouble.unreachable


def _last_line(said: str) -> str:
    return ([line.strip() for line in said.splitlines() if line.strip()] or [""])[-1][:300]
