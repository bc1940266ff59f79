"""The agent as a program: `prepare` makes the VM's key and reports the machine, `run` serves, `enter` lets people in.

Runs on the VM under the system's Python, from an artefact that shares nothing with the user's environments.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vmrun.core.errors import VmrunError

from .config import AgentConfig, load


def main(argv: Sequence[str]) -> int:
    """`prepare CONFIG` prints JSON; `run CONFIG` returns 0 when the machine may go.

    `enter CONFIG JOB [COMMAND...]` becomes the command, or a shell, in the job.
    """
    if argv[:1] == ["enter"] and len(argv) >= 3:
        return _enter(argv[1], argv[2], argv[3:])
    if len(argv) != 2 or argv[0] not in ("prepare", "run"):
        sys.stderr.write("usage: agent prepare|run CONFIG, or agent enter CONFIG JOB [COMMAND...]\n")
        return 2
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s level=%(levelname)s module=%(name)s %(message)s"
    )
    try:
        config = load(argv[1])
        return _prepare(config) if argv[0] == "prepare" else _run(config)
    except VmrunError as error:
        logging.getLogger(__name__).error("event=stopped error=%s hint=%s", error.message, error.hint)
        return error.exit_code


def _enter(path: str, job: str, words: Sequence[str]) -> int:
    """For a person: what goes wrong is one line."""
    from .way_in import enter

    try:
        return enter(load(path), job, words)
    except VmrunError as error:
        sys.stderr.write(f"{error.message}\n  {error.hint}\n")
        return error.exit_code


def _prepare(config: AgentConfig) -> int:
    from vmrun.core.blocks import PYTHON
    from vmrun.crypto import ensure_private_key, public_hex

    from .daemon import boot_id

    key = ensure_private_key(Path(config.key_file))
    facts = {
        "public_key": public_hex(key),
        "boot_id": boot_id(),
        "python": PYTHON,
        "cpus": len(os.sched_getaffinity(0)),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _run(config: AgentConfig) -> int:
    from .daemon import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
