"""Small disks for tests that fill them, and directories that are deeper than they should be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes, in memory, at `place`; the test is skipped where none can be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "vmrun-test", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=120)


@contextmanager
def frozen_disk(place: Path) -> Iterator[Path]:
    """A file system at `place` on which every write waits in the kernel, beyond any signal, until the block ends."""
    if not all(map(shutil.which, ("mkfs.ext4", "mount", "fsfreeze"))):
        pytest.skip("mkfs.ext4, mount and fsfreeze are needed to make a disk that does not answer")
    image = place.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, timeout=120)
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        pytest.skip(f"no image can be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["fsfreeze", "--freeze", str(place)], check=True, timeout=120)
        try:
            yield place
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(place)], check=True, timeout=120)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=120)


@contextmanager
def deep_directory(place: Path, depth: int = 1500) -> Iterator[Path]:
    """`place` with so many directories in each other, a file at the bottom: more than functions may call each other."""
    place.mkdir()
    at = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=at)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    finally:
        os.close(at)
    try:
        yield place
    finally:
        # Nobody who removes temporary directories after tests gets so deep.
        subprocess.run(["rm", "-rf", "--", str(place)], check=True, timeout=120)
