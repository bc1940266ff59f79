"""Commands of bring-up: fixed programs, data as arguments; and what is read from their output."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from importlib.resources import files

import pytest

from vmrun.core.errors import Unreachable, UsageError
from vmrun.core.hosts import Completed
from vmrun.machine import borrowed, commands, layout
from vmrun.machine.commands import CLOCK_MAX, Boot, Facts, Timer

SHA = "0123456789abcdef" * 4
PROGRAMS = {
    item.name: item.read_text()
    for item in files("vmrun.machine").joinpath("programs").iterdir()
    if item.name.endswith(".py") and item.name != "__init__.py"
}
ALL = [
    commands.wait_boot(1.5),
    commands.timer(),
    commands.facts(),
    commands.has_agent(SHA),
    commands.install_agent(SHA),
    commands.has_uv(SHA),
    commands.install_uv(SHA),
    commands.start_agent(),
    commands.restart_agent(),
    commands.stop_agent(),
    commands.agent_state(),
    commands.host_key(),
    commands.prepare_host_key(),
    commands.activate_host_key(),
    commands.power_off(),
    commands.read_file("/etc/hostname"),
    commands.journal_tail(50),
    borrowed.borrow(),
    borrowed.clean("0" * 26),
    borrowed.borrower(),
    borrowed.facts(),
]


@pytest.mark.parametrize("argv", ALL, ids=lambda argv: " ".join(word for word in argv if "\n" not in word)[:60])
def test_a_command_is_a_program_of_ours_or_of_the_system(argv: list[str]) -> None:
    """Never a shell; a Python text is one of the package's files, letter by letter."""
    assert all(isinstance(word, str) and "\0" not in word for word in argv)
    words = argv[2:] if argv[:2] == ["sudo", "-n"] else argv
    assert words[0] not in ("sh", "bash", "/bin/sh", "env", "eval")
    if "-c" in words:
        assert words[:3] == [layout.PYTHON, "-I", "-c"]
        assert words[3] in PROGRAMS.values()
        words = words[4:]
    assert not any("\n" in word for word in words)


def test_every_program_is_used() -> None:
    assert {word for argv in ALL for word in argv if "\n" in word} == set(PROGRAMS.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_need_an_old_python_and_nothing_else(name: str) -> None:
    tree = ast.parse(PROGRAMS[name], feature_version=(3, 8))
    for node in ast.walk(tree):
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        assert all(module.partition(".")[0] in sys.stdlib_module_names for module in imported)


@pytest.mark.parametrize("sha256", ["", "..", "a" * 63, "a; reboot"])
def test_names_of_content_are_checked(sha256: str) -> None:
    for build in (commands.has_agent, commands.install_agent, commands.has_uv, commands.install_uv):
        with pytest.raises(UsageError):
            build(sha256)


# --- readers ---


def printed(document: object, exit_code: int = 0, stderr: bytes = b"") -> Completed:
    return Completed(exit_code, json.dumps(document).encode(), stderr)


TIMER = {
    "active": "active",
    "enabled": "enabled",
    "next_in": 12.5,
    "now": 1000,
    "lease": 1900,
    "hard_deadline": 5000,
}


def test_documents_become_what_they_mean() -> None:
    assert commands.read_timer(printed(TIMER)) == Timer("active", "enabled", 12.5, 1000, 1900, 5000)
    boot = {"finished": True, "disabled": False, "stage": "", "errors": ["a", "b"]}
    assert commands.read_boot(printed(boot)) == Boot(True, False, "", ("a", "b"))
    assert commands.read_host_key(printed({"public": "ssh-ed25519 AAAA"})) == "ssh-ed25519 AAAA"
    facts = Facts("3.11.2", "x86_64", "glibc-2.36", 128, 1 << 40, 1 << 38, "boot", "host", 1000)
    document = {field: getattr(facts, field) for field in Facts.__slots__}
    assert commands.read_facts(printed(document)) == facts


@pytest.mark.parametrize(
    "done",
    [
        printed(TIMER, exit_code=1),
        Completed(0, b"", b""),
        Completed(0, b"Welcome!\n{}", b""),
        Completed(0, b"[]", b""),
        Completed(127, b"", b"bash: /usr/bin/python3: No such file or directory\n"),
    ],
)
def test_a_machine_that_cannot_tell_is_unreachable(done: Completed) -> None:
    with pytest.raises(Unreachable) as caught:
        commands.read_timer(done)
    assert "timer" in caught.value.message


def test_a_failure_quotes_the_last_line_and_what_was_tried() -> None:
    with pytest.raises(Unreachable) as caught:
        commands.succeeded(Completed(3, b"", b"Traceback\n  noise\nOSError: disk full\n"), "install the agent")
    assert caught.value.message == "cannot install the agent on the machine: OSError: disk full"
    with pytest.raises(Unreachable, match="exit code 3"):
        commands.succeeded(Completed(3, b"", b""), "x")


ARMED = Timer("active", "enabled", 12.5, 1000, 1900, 5000)


def test_a_timer_that_is_armed_has_no_fault() -> None:
    assert ARMED.fault(5000) == ""
    assert ARMED.fault(6000) == ""  # it ends earlier than it must
    assert replace(ARMED, next_in=None).fault(5000) == ""  # it judges right now


@pytest.mark.parametrize(
    "change",
    [
        {"active": "inactive"},
        {"active": "failed"},
        {"active": ""},
        {"enabled": "disabled"},
        {"enabled": ""},
        {"hard_deadline": None},
        {"hard_deadline": 5001},
        {"lease": None},
        {"next_in": 4001.0},
    ],
)
def test_a_timer_that_is_not_armed_says_why(change: dict) -> None:
    assert replace(ARMED, **change).fault(5000) != ""


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (1000.0, ""),
        (1000.0 - CLOCK_MAX, ""),
        (1000.0 + CLOCK_MAX, ""),
        (1000.0 + 3 * 3600, "3h 00m behind this computer's, so it would end so much too late"),
        (1000.0 - CLOCK_MAX - 60, "6m 00s ahead of this computer's, so it would end so much too early"),
    ],
)
def test_a_machine_whose_clock_is_wrong_has_no_timer_to_rely_on(now: float, says: str) -> None:
    fault = ARMED.clock_fault(now)
    assert bool(fault) is bool(says)
    assert says in fault
