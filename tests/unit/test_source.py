"""The rules of the house that a machine can check: budgets, banned calls, docstrings, private names."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest

from tests.support.source import ROOT, Module, functions, modules, uses

FUNCTION_LINES = 70
MODULE_LINES = 450
PARAMETERS = 6

#: Programs of their own on the VM, standard library only, that no clock is handed to.
PROGRAMS = ("vmrun/agent/runner/", "vmrun/machine/programs/", "vmrun/provisioners/ibm/self_delete_main.py")
CLOCK = "vmrun/core/clock.py"

#: What must be handed in or called elsewhere -> (what to use instead, the files that may).
BANNED: dict[str, tuple[str, tuple[str, ...]]] = {
    "time.sleep": ("a core.clock.Clock", (CLOCK, *PROGRAMS)),
    "time.time": ("a core.clock.Clock", (CLOCK, *PROGRAMS)),
    "time.monotonic": ("a core.clock.Clock", (CLOCK, *PROGRAMS)),
    "time.perf_counter": ("a core.clock.Clock", (CLOCK, *PROGRAMS)),
    "datetime.datetime.now": ("a core.clock.Clock", ()),
    "datetime.datetime.utcnow": ("a core.clock.Clock", ()),
    "datetime.datetime.today": ("a core.clock.Clock", ()),
    "datetime.date.today": ("a core.clock.Clock", ()),
    "random.": ("a core.clock.Rng", (CLOCK,)),
    "secrets.": ("a core.clock.Rng", ()),
    "uuid.": ("core.ids.new_id", ()),
    "print": ("vmrun.render", ("vmrun/render.py", "vmrun/machine/programs/")),
    "os.system": ("an argv", ()),
    "os.popen": ("an argv", ()),
    "eval": ("anything else", ()),
}


def banned(module: Module) -> list[str]:
    """The module's uses of what it should take from elsewhere."""
    found = []
    for name, line in uses(module):
        for pattern, (instead, allowed) in BANNED.items():
            hit = name.startswith(pattern) if pattern.endswith(".") else name == pattern
            if hit and not module.where.startswith(allowed):
                found.append(f"{module.where}:{line} uses {name}; take {instead}")
    return found


def long_functions(module: Module) -> list[str]:
    return [
        f"{module.where}:{at} {name} has {size} lines"
        for name, at, size, _ in functions(module)
        if size > FUNCTION_LINES
    ]


def long_modules(module: Module) -> list[str]:
    return [f"{module.where} has {module.lines} lines"] if module.lines > MODULE_LINES else []


def many_parameters(module: Module) -> list[str]:
    """Positional ones: options that must be named read well in any number, and frozen specs carry the rest."""
    found = []
    for name, at, _, arguments in functions(module):
        count = len([one for one in arguments if one.arg not in ("self", "cls")])
        if count > PARAMETERS:
            found.append(f"{module.where}:{at} {name} has {count} positional parameters")
    return found


#: Signatures that the standard library prescribes.
PRESCRIBED = ("shutdown",)


def positional_booleans(module: Module) -> list[str]:
    found = []
    for name, at, _, arguments in functions(module):
        for argument in arguments:
            annotation = None if argument.annotation is None else ast.unparse(argument.annotation)
            if annotation == "bool" and not name.startswith("__") and name not in PRESCRIBED:
                found.append(f"{module.where}:{at} {name}({argument.arg}) takes a boolean by position")
    return found


def no_docstring(module: Module) -> list[str]:
    return [] if (ast.get_docstring(module.tree) or "").strip() else [f"{module.where} says nothing about itself"]


def broad_excepts(module: Module) -> list[str]:
    """A broad except has a comment that names the boundary it stands on (`noqa: BLE001`), a bare one never."""
    lines = module.text.splitlines()
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = "" if node.type is None else ast.unparse(node.type)
            broad = kinds == "" or re.search(r"\b(Base)?Exception\b", kinds) is not None
            if broad and (kinds == "" or "BLE001" not in lines[node.lineno - 1]) and not _raises(node):
                found.append(f"{module.where}:{node.lineno} catches everything")
    return found


def _raises(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise)


@pytest.mark.parametrize(
    "rule", [banned, long_functions, long_modules, many_parameters, positional_booleans, no_docstring, broad_excepts]
)
def test_every_module_keeps(rule: Callable[[Module], list[str]]) -> None:
    assert [line for module in modules() for line in rule(module)] == []


def test_the_rules_see_what_they_forbid() -> None:
    """The checks themselves: each finds its own bad example, through aliases too."""
    text = (
        "import time as t\n"
        "from random import choice\n"
        "from datetime import datetime\n"
        "import uuid\n"
        "def f(a, b, c, d, e, g, h, loud: bool):\n"
        "    t.sleep(1); choice([1]); datetime.now(); uuid.uuid4(); print(a)\n"
        "    try:\n"
        "        pass\n"
        "    except Exception:\n"
        "        pass\n"
    )
    module = Module(ROOT / "vmrun/x.py", "vmrun/x.py", "vmrun.x", text, ast.parse(text))
    names = " ".join(banned(module))
    for name in ("time.sleep", "random.choice", "datetime.datetime.now", "uuid.uuid4", "print"):
        assert name in names
    assert many_parameters(module)
    assert positional_booleans(module)
    assert no_docstring(module)
    assert broad_excepts(module)


def test_nothing_names_a_machine_a_registry_or_a_tracker() -> None:
    """Files of this project are the same for everyone who reads them."""
    private = (r"DESIGN §", r"/work/(main|shared)", r"/root/\.", r"\bissue \d", r"/opt/(pypi|wheels)")
    pattern = re.compile("|".join(private), re.IGNORECASE)
    found = []
    for folder in ("vmrun", "docs", "examples", "benchmarks", "configs", "tools", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if (ROOT / "benchmarks" / ".peers") in path.parents:
                continue  # other people's packages, installed by the benchmarks
            if path.suffix in (".py", ".md", ".sh", ".toml", ".txt") and path.name != "test_source.py":
                text = path.read_text(encoding="utf-8", errors="replace")
                found += [f"{path.relative_to(ROOT)}: {hit.group(0)}" for hit in pattern.finditer(text)]
    assert found == []
