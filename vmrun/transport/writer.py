"""Runs on a machine, as `python3 -I -c`: writes standard input to a file, whole or not at all.

Arguments: path, mode in octal. Input: blocks, each after its length (4 bytes, big endian), an empty block, and the
SHA-256 of all. A connection that breaks off therefore never leaves half a file under the name.
"""

from __future__ import annotations

import hashlib
import os
import sys


def exactly(size: int) -> bytes:
    """That many bytes of input, or the end of this program."""
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        sys.exit("the upload broke off")
    return data


def receive(descriptor: int) -> None:
    """All blocks into the file, checked."""
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "wb") as file:
        while True:
            size = int.from_bytes(exactly(4), "big")
            if not size:
                break
            block = exactly(size)
            digest.update(block)
            file.write(block)
        if exactly(32) != digest.digest():
            sys.exit("the upload was altered")
        file.flush()
        os.fsync(file.fileno())


def main(path: str, mode: int) -> None:
    """Write beside the name, then rename."""
    os.umask(0o077)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.part"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        receive(descriptor)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2], 8))
