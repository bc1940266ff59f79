"""Stand-in agents: real archives with a `main.py`, started by the real unit."""

from __future__ import annotations

import hashlib
import io
import tarfile

from tests.docker.machines import Booted
from vmrun.machine import commands, layout, units

#: Says that it runs, obeys SIGTERM after `flush` seconds, and ends with `code` when told to by a file.
PROGRAM = """
import json, os, signal, sys, time
assert sys.argv[1:2] == ["run"], sys.argv
settings = json.load(open(sys.argv[2]))
place = settings["place"]
def note(what):
    with open(os.path.join(place, what), "a") as file:
        file.write("%d\\n" % os.getpid())
def stop(*_):
    note("told")
    time.sleep(settings.get("flush", 0))
    note("flushed")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("started")
while True:
    time.sleep(0.05)
    if os.path.exists(os.path.join(place, "end")):
        os.unlink(os.path.join(place, "end"))
        sys.exit(settings.get("code", 0))
"""


def archive(program: str = PROGRAM, **extra: str) -> tuple[str, bytes]:
    """SHA-256 and bytes of an agent's tar; `extra` has more files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in {"main.py": program, "app/agent.py": "", "lib/dependency.py": "", **extra}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(text.encode()), 0o600, 1000
            tar.addfile(member, io.BytesIO(text.encode()))
    content = buffer.getvalue()
    return hashlib.sha256(content).hexdigest(), content


def push(booted: Booted, sha256: str, content: bytes) -> None:
    """Bring an archive to the machine and unpack it."""
    booted.host.put(layout.agent_archive(sha256), [content])
    commands.succeeded(booted.host.run(commands.install_agent(sha256)), "install the agent")


def start(booted: Booted, settings: str, *, flush_grace: float = 60.0) -> str:
    """Push, configure and start the stand-in; its SHA-256."""
    sha256, content = archive()
    push(booted, sha256, content)
    booted.host.put(layout.AGENT_CONFIG, [settings.encode()])
    unit = units.agent_service(sha256, flush_grace=flush_grace).encode()
    commands.succeeded(booted.host.run(commands.start_agent(), input=unit), "start the agent")
    return sha256
