"""The command line's outermost layer: arguments in, exit code out. Nothing in here knows what a verb does.

Light at import: what a call does not need is not loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Never

from .core.errors import UsageError, VmrunError

if TYPE_CHECKING:
    import typer

    from .client import Client
    from .commands.session import Session
    from .core.clock import Clock
    from .render import Screen

#: As a shell reports a program that wrote into a pipe whose reader is gone.
EXIT_OUTPUT_CLOSED = 141
EXIT_INTERRUPTED = 130
EXIT_UNEXPECTED = 1
_COMPLETION = "_VMRUN_COMPLETE"


def main() -> Never:
    """Entry point of the `vmrun` program."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = EXIT_INTERRUPTED
    sys.exit(code)


def run(argv: Sequence[str], *, connect: Callable[[], Client] | None = None, clock: Clock | None = None) -> int:
    """Run one command line; its exit code. `connect` opens the deployment (default: what the configuration says)."""
    from .core.clock import SystemClock
    from .render import OutputClosed, show_version, standard_screen

    clock = clock or SystemClock()
    before, program = split_program(argv)
    screen = standard_screen(as_json="--json" in before, clock=clock)
    try:
        if "--version" in before and set(before) <= {"--version", "--json"}:
            show_version(screen)
            return 0
        code = _dispatch(before, program, screen, connect, clock)
        screen.flush()
        return code
    except OutputClosed:
        screen.abandon()
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        screen.note()
        return EXIT_INTERRUPTED
    except VmrunError as error:
        return _fail(screen, error)
    except Exception as error:  # noqa: BLE001 -- the process boundary: nothing is above but the interpreter
        if isinstance(error, BrokenPipeError) and screen.abandoned:  # while typer wrote a help text
            screen.abandon()
            return EXIT_OUTPUT_CLOSED
        return _fail(screen, _unexpected(error, clock))


def _fail(screen: Screen, error: VmrunError) -> int:
    from .render import CannotWrite, OutputClosed

    try:
        if isinstance(error, CannotWrite):
            screen.as_json = False
            screen.abandon()
        screen.error(error)
    except (OutputClosed, CannotWrite):
        screen.abandon()
    return error.exit_code


def split_program(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """The arguments before the first `--`, and what stands after it (None if there is no `--`)."""
    if "--" not in argv:
        return list(argv), None
    at = list(argv).index("--")
    return list(argv[:at]), tuple(argv[at + 1 :])


def _dispatch(
    argv: list[str],
    program: tuple[str, ...] | None,
    screen: Screen,
    connect: Callable[[], Client] | None,
    clock: Clock,
) -> int:
    import typer

    from .commands import VERBS
    from .commands.app import build
    from .commands.session import Session
    from .commands.session import connect as connect_here

    command = build()
    if _COMPLETION in os.environ:
        command.main(argv, prog_name="vmrun")  # answers the shell and exits
    verb = next((word for word in argv if word in VERBS), "")
    if program is not None and verb and not VERBS[verb].takes_program:
        raise UsageError(
            f"`vmrun {verb}` takes nothing after `--`", hint="only `vmrun submit` and `vmrun ssh` run a program"
        )
    session = Session(screen, clock, connect or connect_here, program)
    try:
        return _call(command, argv or ["--help"], session)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, EOFError):
        screen.note("aborted")
        return EXIT_UNEXPECTED
    except typer.TyperException as error:
        raise _usage_error(error, f"vmrun {verb}".strip()) from error


def _call(command: Any, argv: list[str], session: Session) -> int:
    with command.make_context("vmrun", argv, obj=session) as context:
        code = command.invoke(context)
    return code if isinstance(code, int) else 0


def _usage_error(error: typer.TyperException, where: str) -> UsageError:
    """What typer says, in one sentence, with a way to read on."""
    message = error.format_message().strip().rstrip(".")
    return UsageError(f"{message[:1].lower()}{message[1:]}", hint=f"`{where} --help` lists what it takes")


def _unexpected(error: Exception, clock: Clock) -> VmrunError:
    from .commands.crash import report

    return report(error, os.environ, clock)


if __name__ == "__main__":
    main()
