"""Starting is fast because little is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.modules import loaded_by
from tests.support.source import ROOT

HEAVY = {
    *("pydantic", "rich", "obstore", "paramiko", "cryptography", "cloudpickle", "boto3", "asyncio"),
    *("matplotlib", "numpy"),
    *("vmrun.client", "vmrun.settings", "vmrun.commands.submit", "vmrun.handle"),
}


@pytest.mark.parametrize(
    ("arguments", "light"),
    [
        (["--version"], HEAVY | {"typer"}),
        (["--help"], HEAVY),
        # typer itself needs pydantic once it looks at arguments.
        (["sbmit"], HEAVY - {"pydantic"}),
        (["submit", "--help"], HEAVY - {"pydantic", "vmrun.commands.submit"}),
    ],
    ids=["version", "help", "typo", "submit-help"],
)
def test_what_a_command_line_does_not_load(arguments: list[str], light: set[str], tmp_path: Path) -> None:
    loaded = loaded_by(f"from vmrun.cli import run\nrun({arguments!r})", tmp_path)
    assert "vmrun.cli" in loaded
    assert loaded & light == set()


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["status", "x", "--tasks"], ["plot", "--help"], ["plot", "x", "-o", "x.gif"]],
    ids=["status", "tasks", "plot-help", "plot-refused"],
)
def test_only_a_plot_that_is_drawn_loads_what_draws_it(arguments: list[str], tmp_path: Path) -> None:
    loaded = loaded_by(
        f"from tests.unit.cli.fakes import FakeClient\nfrom vmrun.cli import run\n"
        f"run({arguments!r}, connect=FakeClient)",
        tmp_path,
    )
    assert "vmrun.commands." + arguments[0] in loaded
    assert loaded & {"matplotlib", "numpy", "PIL"} == set()


def test_offers_are_shown_without_opening_anything(tmp_path: Path) -> None:
    loaded = loaded_by("from vmrun.cli import run\nrun(['offers', '--cpus', '128', '--memory', '1TB'])", tmp_path)
    assert "vmrun.catalog" in loaded
    # typer itself needs pydantic once it looks at arguments.
    light = HEAVY - {"pydantic", "vmrun.settings"} | {"vmrun.settings.models", "vmrun.wiring", "vmrun.store.opening"}
    assert loaded & light == set()
    assert not [
        name for name in loaded if name.partition(".")[0] in ("boto3", "botocore", "googleapiclient", "ibm_vpc")
    ]


def test_importing_the_settings_does_not_load_what_checks_them(tmp_path: Path) -> None:
    assert loaded_by("import vmrun.settings", tmp_path) & {"pydantic", "platformdirs"} == set()


def test_every_verbs_module_can_be_imported_alone(tmp_path: Path) -> None:
    loaded_by(
        "from vmrun.commands import VERBS\nfrom vmrun.commands.app import build_verb\n[build_verb(v) for v in VERBS]",
        tmp_path,
    )


def test_completion_of_verbs_and_of_drivers(tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        environ = {"_VMRUN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        code = "import sys; from vmrun.cli import run; sys.exit(run([]))"
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **environ},
        )
        return done.stdout.split()

    assert complete("vmrun st") == ["status"]
    assert complete("vmrun submit --on do") == ["docker"]
    assert complete("vmrun submit --on au") == ["auto"]
    assert complete("vmrun offers --on g") == ["gce"]
