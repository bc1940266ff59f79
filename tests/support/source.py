"""The package's own source as data: modules, their imports, their calls, their functions."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vmrun"


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: Path
    #: Relative to the repository, with `/`.
    where: str
    #: Dotted.
    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")


@cache
def modules() -> tuple[Module, ...]:
    """All modules of the package."""
    # Nothing of a million nodes is garbage, and looking for it again and again takes longer than to parse them.
    collects = gc.isenabled()
    gc.disable()
    try:
        return tuple(load(path) for path in sorted(PACKAGE.rglob("*.py")))
    finally:
        if collects:
            gc.enable()


def load(path: Path) -> Module:
    """One source file, parsed."""
    where = path.relative_to(ROOT)
    parts = where.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(path, where.as_posix(), name, text, ast.parse(text, where.as_posix()))


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything that the module imports, inside functions too; relative names made absolute.

    Imports for annotations alone (under `if TYPE_CHECKING`) are left out.
    """
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    typing_only = {id(node) for block in ast.walk(module.tree) if _is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(module.tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and _dotted(node.test).endswith("TYPE_CHECKING")


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base


def uses(module: Module) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every name and attribute that is read, with import aliases resolved.

    `import time as t; t.sleep(1)` and `from time import sleep as nap; nap(1)` both give `time.sleep`.
    """
    known = dict(_aliases(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node)
            if dotted:
                first, _, rest = dotted.partition(".")
                whole = known.get(first, first)
                yield (f"{whole}.{rest}" if rest else whole), node.lineno


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


#: Functions in here are called by typer: their parameters are the options of a verb, as long a list as it takes.
VERBS = "vmrun/commands/"


def functions(module: Module) -> Iterator[tuple[str, int, int, list[ast.arg]]]:
    """(name, line, number of lines, arguments that can be given by position) of every function and method.

    For a verb of the command line only its body's lines count, and its arguments do not.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_verb = module.where.startswith(VERBS)
            first = node.body[0].lineno if is_verb else node.lineno
            arguments = [] if is_verb else [*node.args.posonlyargs, *node.args.args]
            yield node.name, node.lineno, (node.end_lineno or first) - first + 1, arguments
