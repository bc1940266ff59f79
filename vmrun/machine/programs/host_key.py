"""Replaces the SSH host key in two steps. Arguments: `prepare` or `activate`, the path of the private key.

`prepare` makes the next key once, here, and prints its public half; `activate` puts it in force. A client that missed
the reply of `activate` finds either key at work, and knows both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def call(*argv: str) -> str:
    """One command: why it failed, or nothing."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60
    )
    return "" if done.returncode == 0 else f"{argv[0]}: {done.stdout.decode(errors='replace').strip()[:500]}"


def reload_server() -> None:
    """The server under either of its names takes the key that is there now; open sessions go on."""
    failures = [call("systemctl", "try-reload-or-restart", unit) for unit in ("ssh.service", "sshd.service")]
    if all(failures):
        sys.exit("; ".join(failures))


def public(path: str) -> str:
    """Kind and key, without the comment."""
    with open(path + ".pub", encoding="ascii") as file:
        return " ".join(file.read().split()[:2])


def prepare(path: str) -> str:
    """The public half of the next key."""
    following = path + ".next"
    if not os.path.exists(following):
        fresh = f"{path}.{os.getpid()}"
        failure = call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", fresh)
        if failure:
            sys.exit(failure)
        os.replace(fresh + ".pub", following + ".pub")
        os.replace(fresh, following)
    return public(following)


def activate(path: str) -> str:
    """The public half of the key in force."""
    following = path + ".next"
    if os.path.exists(following):
        # The private half goes last: it is what says that there is something to do.
        with open(following + ".pub", "rb") as source, open(path + ".pub.new", "wb") as copy:
            copy.write(source.read())
        os.chmod(path + ".pub.new", 0o644)
        os.replace(path + ".pub.new", path + ".pub")
        os.replace(following, path)
        os.unlink(following + ".pub")
    reload_server()
    return public(path)


def main(step: str, path: str) -> None:
    """Print the public half."""
    os.umask(0o077)
    sys.stdout.write(json.dumps({"public": {"prepare": prepare, "activate": activate}[step](path)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
