"""`python -m tests.clouds ec2`: a cloud on this machine, for a person to point vmrun or another program at."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Sequence

from .control import PREFIX, rule_of_words
from .docker_machines import MEMORY, DockerMachines
from .double import Double
from .machines import Machines, PaperMachines
from .opening import NAMES, open_double
from .trouble import Rule

_EPILOG = """\
a trouble: KIND [operation=NAME] [instance_type=T] [zone=Z] [region=R] [times=N] [skip=N] [seconds=S] [size=N]
  e.g. --trouble 'stockout zone=us-east-1a times=2' --trouble 'reply-lost operation=RunInstances'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the doubles that are named until Ctrl-C; then remove all their machines."""
    options = _parser().parse_args(arguments)
    try:
        rules = [rule_of_words(text) for text in options.trouble]
    except ValueError as error:
        print(f"--trouble: {error}", file=sys.stderr)
        return 2
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with contextlib.ExitStack() as stack:
        machines = _machines(options, stack)
        for name in options.cloud:
            double = open_double(name, machines, options.host, options.port)
            stack.callback(double.close)
            _introduce(name, double, rules)
        print("Ctrl-C ends it and removes its machines.", flush=True)
        over.wait()
        print("ending: removing machines", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clouds",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cloud", nargs="+", choices=NAMES, help="which clouds to play")
    parser.add_argument("--host", default="127.0.0.1", help="address of this machine to answer at")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free; another one only with one cloud")
    parser.add_argument("--machines", choices=("docker", "paper"), default="docker", help="whether machines boot")
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes that a machine has at most")
    parser.add_argument("--trouble", action="append", default=[], metavar="RULE", help="what goes wrong; repeatable")
    return parser


def _machines(options: argparse.Namespace, stack: contextlib.ExitStack) -> Machines:
    if options.machines == "paper":
        return PaperMachines()
    machines = DockerMachines(memory_limit=options.memory)
    stack.callback(machines.close)
    return machines


def _introduce(name: str, double: Double, rules: Sequence[Rule]) -> None:
    for rule in rules:
        double.script.add(rule)
    print(f"# {name} at {double.endpoint}; its hands: {double.endpoint}{PREFIX}")
    print(f"\n[{name}]")
    # Nobody needs to be asked for this computer's own address, which no double looks at.
    for key, value in {**double.settings(), "ssh_from": ["198.51.100.7/32"]}.items():
        # JSON's strings, numbers, booleans and lists are TOML's too.
        print(f"{key} = {json.dumps(value)}")
    print()
    for key, value in double.environment().items():
        print(f"export {key}={value}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
