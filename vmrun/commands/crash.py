"""What to say when vmrun itself fails: one message, and a file with the traceback for whoever looks into it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from vmrun import __version__
from vmrun.core.clock import Clock
from vmrun.core.errors import VmrunError

#: Files kept; older ones are removed when a new one is written.
KEPT_MAX = 20
_PREFIX = "crash-"


def report(error: Exception, environ: Mapping[str, str], clock: Clock) -> VmrunError:
    """`error` as one that can be shown; the traceback goes to a file, or to stderr with VMRUN_DEBUG=1."""
    text = f"vmrun {__version__}, Python {sys.version.split()[0]}\n{''.join(traceback.format_exception(error))}"
    message = f"vmrun failed unexpectedly: {type(error).__name__}: {str(error)[:500]}"
    hint = "this is a defect of vmrun, please report it"
    if environ.get("VMRUN_DEBUG"):
        return VmrunError(f"{message}\n{text}", hint=hint)
    for folder in _folders(environ):
        with contextlib.suppress(OSError):
            path = _write(folder, text, clock)
            return VmrunError(message, hint=f"{hint}; the traceback is in {path}")
    return VmrunError(message, hint=f"{hint}; VMRUN_DEBUG=1 shows the traceback")


def _folders(environ: Mapping[str, str]) -> list[Path]:
    from vmrun.settings import state_dir

    return [state_dir(environ) / "crashes", Path(tempfile.gettempdir())]


def _write(folder: Path, text: str, clock: Clock) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{_PREFIX}{moment}-{os.getpid()}.txt"
    # For this user only: a message may quote what the user's own code or data say.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    if folder.name == "crashes":
        for old in sorted(folder.glob(f"{_PREFIX}*.txt"))[:-KEPT_MAX]:
            old.unlink(missing_ok=True)
    return path
