"""The command that brings a person to a VM, or into a job on it: OpenSSH's client; on this computer, none is needed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vmrun.core.clouds import Address
from vmrun.core.errors import UsageError
from vmrun.core.folds import VmFold
from vmrun.core.vm_ledger import VmLedger
from vmrun.machine import layout
from vmrun.watch.observe import find_job, readable, vm_ids

from .deck import Deck, Session

#: Characters of an id that must be given at least.
SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A VM that runs, and the job on it that was meant; "" for the machine itself."""

    vm: str
    fold: VmFold
    job: str


def login_argv(deck: Deck, text: str, words: Sequence[str], *, plain: bool = False) -> list[str]:
    """The command that logs in to the VM or the job that `text` names, and runs `words` there (none: a shell).

    It lands in the job if a job was named, or the VM is held for the debugging of one, and not with `plain`. Raises
    UsageError without a way in from here.
    """
    found = find(deck, text)
    job = "" if plain else found.job
    if found.fold.ready is not None and not found.fold.ready.host:
        return _here(deck, found, job, words)
    return _by_ssh(deck, found, job, words)


def find(deck: Deck, text: str) -> Found:
    """The running VM that `text` means: an id, the unique beginning of one, or a job that it has. Raises UsageError."""
    running = list(_running(deck))
    near = [each for each in running if each.vm == text or (len(text) >= SHORTEST and each.vm.startswith(text))]
    if len(near) == 1:
        hold = near[0].fold.hold
        return Found(near[0].vm, near[0].fold, hold.job if hold is not None else "")
    try:
        job = find_job(deck.desk, text)
    except UsageError:
        raise _nothing(text) from None
    having = [each for each in running if job in each.fold.jobs]
    if not having:
        raise _nothing(text)
    # Of several, one that is held for this very job; then one that has not taken its leave; the one that had it last.
    held = [each for each in having if each.fold.hold is not None and each.fold.hold.job == job]
    staying = [each for each in having if each.fold.drain is None]
    best = (held or staying or having)[-1]
    # On a machine that could not be made ready there is no job to enter.
    return Found(best.vm, best.fold, job if best.fold.hold is None else best.fold.hold.job)


def _running(deck: Deck) -> list[Found]:
    found = []
    for vm in vm_ids(deck.desk):
        fold = readable(VmLedger(deck.desk, vm))
        if fold is not None and (fold.ready is not None or fold.hold is not None) and not fold.ended:
            found.append(Found(vm, fold, ""))
    return found


def _nothing(text: str) -> UsageError:
    return UsageError(
        f"there is no running VM {text[:80]!r}, and none that has a job of that name",
        hint="`vmrun status` lists the VMs; --keep-on-failure keeps one for debugging",
    )


def _by_ssh(deck: Deck, found: Found, job: str, words: Sequence[str]) -> list[str]:
    from vmrun.transport.jump import read_jump
    from vmrun.transport.ssh import open_shell_argv

    ready, intent = found.fold.ready, found.fold.intent
    session = Session.of(deck, found.vm)
    if not session.exists():
        raise UsageError(
            f"this computer has no key for VM {found.vm}", hint="only the computer that made a VM can log in to it"
        )
    jump = read_jump(deck.proxy_jump(intent.on if intent is not None else ""))
    address = session.address() if ready is None else Address(ready.host, ready.port, ready.user)
    argv = open_shell_argv(address, session.key_file, session.known_hosts, jump)
    if not job:
        return [*argv, *remote_words(words)]
    assert ready is not None
    program = [*("sudo", "-n", layout.PYTHON, "-I"), f"{layout.agent_directory(ready.agent)}/main.py"]
    command = shlex.join([*program, "enter", layout.AGENT_CONFIG, job, *_as_argv(words)])
    # A shell wants a terminal over there, and a command none.
    return [*argv, command] if words else [argv[0], "-t", *argv[1:], command]


def _here(deck: Deck, found: Found, job: str, words: Sequence[str]) -> list[str]:
    """Into a job on a machine that is a directory on this computer."""
    intent = found.fold.intent
    config = deck.state_dir / "local" / "machines" / (intent.name if intent is not None else "") / "agent.json"
    if not job or not config.is_file():
        raise UsageError(
            f"VM {found.vm} is a process on {'this' if config.is_file() else 'another'} computer",
            hint="`vmrun ssh JOB` enters a job that runs, or is held, on this one" if config.is_file() else "go there",
        )
    return [sys.executable, "-P", "-m", "vmrun.agent", "enter", str(config), job, *_as_argv(words)]


def remote_words(words: Sequence[str]) -> list[str]:
    """The command for the shell over there, which splits it again: several words stay what they are, one is a text."""
    if len(words) == 1:
        return list(words)
    return [shlex.join(words)] if words else []


def _as_argv(words: Sequence[str]) -> list[str]:
    """The command as an argument list: several words as they are, one text for a shell."""
    return ["/bin/sh", "-c", words[0]] if len(words) == 1 else list(words)
