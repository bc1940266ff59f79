"""The command line as typer sees it: a group that knows its verbs by name and builds the one that is called."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Annotated, Any, Never

import typer
import typer.core
import typer.main

from vmrun.core.errors import UsageError

from . import VERBS
from .session import session_of

_HELP = """Rent one very large VM for an hour, run a Python job on all its cores, give it back.

Without configuration jobs run on this machine: `vmrun submit job.py`.
"""
_EPILOG = """\b
Examples:
  vmrun submit job.py                      run it, show its output, bring its files home
  vmrun submit --on docker -- ./simulate   any program, on a machine of its own
  vmrun status                             what runs where, and when it ends

`vmrun VERB --help` explains a verb and its options. Every verb takes --json.
"""


class LazyGroup(typer.core.TyperGroup):
    """Lists verbs without importing their modules."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        return build_verb(cmd_name) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in VERBS and not args[0].startswith("-"):
            _refuse(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items() if not verb.hidden])


def _refuse(name: str) -> Never:
    known = [verb for verb, about in VERBS.items() if not about.hidden]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        hint = f"did you mean `vmrun {close[0]}`?"
    elif name.partition("::")[0].endswith(".py"):
        hint = f"did you mean `vmrun submit {name}`?"
    else:
        hint = f"one of: {', '.join(known)}"
    raise UsageError(f"vmrun has no verb {name[:80]!r}", hint=hint)


class ProgramCommand(typer.core.TyperCommand):
    """A verb after whose own arguments a program's may follow; typer never sees those."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


def build_verb(name: str) -> Any:
    """The command of one verb; imports its module."""
    verb = VERBS[name]
    module = importlib.import_module(f"{__package__}.{verb.module}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_CONTEXT)
    examples = "\n".join(f"- `{line}`: {meaning}" for line, meaning in module.EXAMPLES)
    text = f"{inspect.getdoc(module.command)}\n\n\b\nExamples:\n{examples}"
    kind = ProgramCommand if verb.takes_program else typer.core.TyperCommand
    alone.command(name, cls=kind, help=text, hidden=verb.hidden, context_settings=_CONTEXT)(module.command)
    return typer.main.get_command(alone)


_CONTEXT = {"help_option_names": ["-h", "--help"]}


def build() -> Any:
    """The whole command line."""
    app = typer.Typer(
        cls=LazyGroup,
        help=_HELP,
        epilog=_EPILOG,
        add_completion=True,
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings=_CONTEXT,
        subcommand_metavar="VERB [ARGS]...",
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def _show_version(ctx: typer.Context, value: bool) -> None:
    if value:
        from vmrun.render import show_version

        show_version(session_of(ctx).screen)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version
