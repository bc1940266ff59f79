"""Borrowed machines: what they are told, who they say has them, and what the cleaning does not touch."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vmrun.core.errors import Unreachable, UsageError
from vmrun.core.hosts import Completed
from vmrun.machine import borrowed, layout, units
from vmrun.machine.borrowed import BorrowSeed, Marker

VM, OTHER = "0" * 26, "1" * 26
SEED = BorrowSeed(vm=VM, owner="d", name="vmrun-d-v", hard_deadline=1_800_000_000.7, client_public_key="ssh-ed25519 A")


def load(name: str) -> ModuleType:
    """A program as a module, to be tried apart from this machine's own directories."""
    path = files("vmrun.machine").joinpath("programs", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"program_{name}", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Place:
    """The directories that the program `clean` works on, elsewhere."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.units = root / "state", root / "units"
        self.brought, self.script = root / "opt", root / "vmrun-deadman"
        self.program: Any = load("clean")
        self.calls: list[tuple[str, ...]] = []
        self.units.mkdir()
        for name, value in {
            "STATE": str(self.state),
            "MARKER": str(self.state / "borrowed.json"),
            "UNITS": str(self.units),
            "PLACES": (str(self.brought), str(root / "never-there")),
            "SCRIPTS": (str(self.script), str(root / "vmrun-clean")),
            "USERS": (),
            "call": lambda *argv, **_: self.calls.append(argv) or True,
        }.items():
            monkeypatch.setattr(self.program, name, value)

    def bring(self, vm: str = "", script_of: str = "") -> None:
        """What is there before: with a marker, with a timer, and something that is somebody's in any case."""
        for folder in (self.state, self.brought):
            folder.mkdir()
            (folder / "file").write_text("x")
        if vm:
            (self.state / "borrowed.json").write_text(json.dumps({"vm": vm}))
        if script_of:
            self.script.write_text(f"exec vmrun-clean {script_of}\n")
            for unit in (layout.DEADMAN_TIMER, layout.DEADMAN_SERVICE):
                (self.units / unit).write_text("x")

    def clean(self, vm: str, capsys: pytest.CaptureFixture[str]) -> Any:
        self.program.main(vm)
        return json.loads(capsys.readouterr().out)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_all_that_its_vm_brought_goes_and_then_nothing_is_left_to_do(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.bring(VM, VM)
    assert place.clean(VM, capsys) == {"cleaned": True, "holder": ""}
    assert not place.state.exists()
    assert not place.brought.exists()
    assert not place.script.exists()
    assert list(place.units.iterdir()) == []
    assert place.clean(VM, capsys) == {"cleaned": False, "holder": ""}


def test_an_agent_that_a_late_client_starts_anew_meanwhile_goes_too(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.bring(VM, VM)

    def remove_user(_: object) -> None:
        (place.units / layout.AGENT_SERVICE).write_text("x")
        place.calls.append(("started anew",))

    monkeypatch.setattr(place.program, "own_users", lambda: ["vmrun"])
    monkeypatch.setattr(place.program, "remove_user", remove_user)
    assert place.clean(VM, capsys)["cleaned"]
    assert list(place.units.iterdir()) == []
    after = place.calls[place.calls.index(("started anew",)) :]
    assert ("systemctl", "stop", layout.AGENT_SERVICE) in after


def test_what_another_vm_has_is_left_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.bring(OTHER, OTHER)
    assert place.clean(VM, capsys) == {"cleaned": False, "holder": OTHER}
    assert (place.brought / "file").exists()
    assert place.calls == []


def test_what_was_there_before_any_vm_is_left_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.bring()
    assert place.clean(VM, capsys) == {"cleaned": False, "holder": ""}
    assert (place.brought / "file").exists()
    assert (place.state / "file").exists()
    assert place.calls == []


def test_a_cleaning_that_was_cut_short_is_ended_by_the_timers_next_run(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.bring(VM, VM)
    (place.state / "borrowed.json").write_text("")  # as a full disk leaves it
    assert place.clean(VM, capsys)["cleaned"]
    assert not place.brought.exists()
    place.script.write_text(f"exec vmrun-clean {VM}\n")
    assert place.clean(VM, capsys)["cleaned"]
    assert not place.script.exists()


def test_the_paths_of_the_programs_are_those_of_the_layout() -> None:
    clean, borrow = load("clean"), load("borrow")
    assert clean.STATE == borrow.STATE == layout.STATE
    assert clean.MARKER == borrow.MARKER == layout.BORROWED
    assert clean.UNITS == borrow.UNITS == layout.UNITS
    assert clean.SCRIPTS == (layout.DEADMAN_SCRIPT, layout.CLEAN_SCRIPT)
    assert (clean.AGENT, clean.TIMER, clean.DEADMAN) == (
        layout.AGENT_SERVICE,
        layout.DEADMAN_TIMER,
        layout.DEADMAN_SERVICE,
    )
    assert set(clean.USERS) == {layout.JOB_USER, layout.LOGIN_USER}
    assert f"{layout.HOST_KEY}.pub" == borrow.HOST_KEY
    assert borrow.COMMENT == clean.COMMENT
    assert layout.SUDOERS in clean.PLACES
    assert layout.PROGRAMS in clean.PLACES
    assert str(Path(layout.SECRETS).parent) in clean.PLACES


def test_a_borrowed_machine_is_never_powered_off() -> None:
    script, service = units.deadman_script(borrowed_by=VM), units.deadman_service(flush_grace=5, borrowed=True)
    assert "poweroff" not in script
    assert "sysrq-trigger" not in script.split("[ -n", 1)[1]
    assert f"{layout.CLEAN_SCRIPT} {VM}\n" in script + "\n"
    assert "FailureAction=none" in service
    assert "FailureAction=poweroff" in units.deadman_service(flush_grace=5)
    assert "poweroff" not in " ".join(borrowed.end_now())
    with pytest.raises(UsageError):
        units.deadman_script(borrowed_by="; reboot")


def test_the_document_is_the_same_for_the_same_seed_and_holds_no_secret() -> None:
    document = json.loads(borrowed.borrow_data(SEED))
    assert borrowed.borrow_data(SEED) == borrowed.borrow_data(SEED)
    assert document["hard_deadline"] == document["marker"]["hard_deadline"] == 1_800_000_000
    assert document["boot_grace"] == 900
    assert "PRIVATE" not in borrowed.borrow_data(SEED)
    assert [path for path, _, _ in document["files"]][:2] == [layout.CLEAN_SCRIPT, layout.DEADMAN_SCRIPT]


def test_answers_are_read_and_what_is_none_is_refused() -> None:
    marker = {"vm": VM, "owner": "d", "name": "n", "hard_deadline": 5, "at": 1}

    def said(document: object) -> Completed:
        return Completed(0, json.dumps(document).encode(), b"")

    assert borrowed.read_borrower(said({"marker": None})) is None
    assert borrowed.read_borrower(said({"marker": marker})) == Marker(VM, "d", "n", 5, 1)
    assert borrowed.read_borrowed(said({"holder": marker, "now": 7})).holder == Marker(VM, "d", "n", 5, 1)
    assert borrowed.read_borrowed(said({"refused": "why"})).refused == "why"
    for wrong in ("text", {}, {**marker, "at": "x"}):
        with pytest.raises(Unreachable):
            borrowed.read_borrower(said({"marker": wrong}))
    with pytest.raises(Unreachable, match="it broke"):
        borrowed.read_cleaned(Completed(1, b"", b"it broke\n"))
