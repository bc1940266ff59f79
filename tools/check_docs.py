"""Holds the documentation to what is there: links, anchors, commands, error codes, decisions; and writes `cli.md`.

    python tools/check_docs.py            say what is wrong; exit code 1 if anything is
    python tools/check_docs.py --write    write docs/reference/cli.md anew from the command line itself

The reference of the command line is made of the program, so that it cannot fall behind; what is checked is that the
file in the repository is that text.
"""

# ruff: noqa: T201  a program: it prints

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CLI = DOCS / "reference" / "cli.md"
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def main() -> int:
    """Check, or write; the exit code."""
    if "--write" in sys.argv[1:]:
        CLI.write_text(command_line(), encoding="utf-8")
        return 0
    problems = [*links(), *errors(), *decisions(), *commands()]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"documentation: {len(pages())} pages, {len(problems)} problems")
    return 1 if problems else 0


def pages() -> list[Path]:
    """Every page."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links() -> Iterator[str]:
    """Links whose file or heading does not exist, and pages that nothing links to."""
    linked = {ROOT / "README.md"}
    for page in pages():
        for target in _LINK.findall(prose(page)):
            if re.match(r"[a-z]+:", target):
                continue  # another site
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            linked.add(file)
            if not file.exists():
                yield f"{page.relative_to(ROOT)}: no such file: {target}"
            elif anchor and anchor not in anchors(file):
                yield f"{page.relative_to(ROOT)}: no such heading: {target}"
    for page in pages():
        if page not in linked and "changelog.d" not in page.parts and "0000-template" not in page.name:
            yield f"{page.relative_to(ROOT)}: nothing links to this page"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(prose(page))
    }


def errors() -> Iterator[str]:
    """Error codes that the reference lacks, or has under another exit code."""
    import vmrun.core.clouds  # noqa: F401  has errors of its own
    from vmrun.core.errors import VmrunError

    listed = dict.fromkeys(())
    for line in (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| (\d+) \|.*\|([^|]*)\|$", line):
            listed |= dict.fromkeys(re.findall(r"`([a-z-]+)`", found[2]), int(found[1]))
    for kind in _family(VmrunError):
        if listed.get(kind.code) != kind.exit_code:
            yield f"docs/reference/exit-codes.md: {kind.code} has exit code {kind.exit_code}"


def _family(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def decisions() -> Iterator[str]:
    """Records whose number is taken twice, or that say neither question nor alternatives."""
    numbers: dict[str, str] = {}
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        number = page.name[:4]
        if number in numbers:
            yield f"docs/decisions: {page.name} and {numbers[number]} have the same number"
        numbers[number] = page.name
        headings = set(_HEADING.findall(prose(page)))
        if missing := {"Question", "Decision", "Why", "Alternatives", "Consequences"} - headings:
            yield f"docs/decisions/{page.name}: lacks {', '.join(sorted(missing))}"


# --- the command line ---


def commands() -> Iterator[str]:
    """Commands or options without help, and a reference that is not what the program would write."""
    for name, command in verbs():
        if not (command.help or "").strip():
            yield f"vmrun {name}: has no help"
        for option in shown(command):
            if option.param_type_name == "option" and not (option.help or "").strip():
                yield f"vmrun {name} {option.opts[0]}: has no help"
    if not CLI.exists() or CLI.read_text(encoding="utf-8") != command_line():
        yield "docs/reference/cli.md: is not what the program says; run `python tools/check_docs.py --write`"


def verbs() -> list[tuple[str, Any]]:
    """(name, command) of every command that `vmrun --help` lists, in its order."""
    os.environ["COLUMNS"] = "100"
    from vmrun.commands.app import build

    group: Any = build()
    context = group.make_context("vmrun", [], resilient_parsing=True)
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [(name, command) for name, command in found if command is not None and not command.hidden]


def shown(command: Any) -> list[Any]:
    """The parameters that help lists."""
    return [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]


def command_line() -> str:
    """The reference of the command line."""
    parts = [
        "# Command line",
        "Made from the program by `python tools/check_docs.py --write`; edit the help texts, not this page.",
        "Progress and messages go to stderr, data to stdout. See [exit codes](exit-codes.md), [JSON](json.md).",
    ]
    for name, command in verbs():
        parts += [f"## vmrun {name}", usage(name, command), paragraphs(command.help or "")]
        if rows := [row(option) for option in shown(command) if option.param_type_name == "option"]:
            parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def usage(name: str, command: Any) -> str:
    """How the command is called, as a code block."""
    from vmrun.commands import VERBS

    arguments = [metavar(one) for one in shown(command) if one.param_type_name == "argument"]
    program = ["[-- ARGS...]"] if VERBS[name].takes_program else []
    return "    " + " ".join(["vmrun", name, "[OPTIONS]", *arguments, *program])


def metavar(argument: Any) -> str:
    """An argument as usage shows it."""
    name = str(argument.metavar or argument.name.upper())
    if argument.nargs == -1 and not name.endswith("..."):
        name += "..."
    return name if argument.required or name.startswith("[") else f"[{name}]"


def paragraphs(text: str) -> str:
    """Help as paragraphs, indentation and typer's marks removed."""
    lines = [line.strip() for line in text.replace("\b", "").splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def row(option: Any) -> str:
    """An option as a line of a table."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    return f"| {names} | {text} |"


if __name__ == "__main__":
    sys.exit(main())
