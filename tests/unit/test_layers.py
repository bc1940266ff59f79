"""Who may import whom, as far as the contracts in `.importlinter` do not say it: third parties and process borders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT, Module, imports, modules

STANDARD = sys.stdlib_module_names
SDKS = ("boto3", "botocore", "googleapiclient", "google", "ibm_vpc", "ibm_cloud_sdk_core", "ibm_platform_services")


def foreign(module: Module, *allowed: str) -> list[str]:
    """Imports that are neither the standard library's nor below one of `allowed`."""
    return [
        f"{module.where}:{line} imports {name}"
        for name, line in imports(module)
        if name.partition(".")[0] not in STANDARD and not any(f"{name}.".startswith(f"{root}.") for root in allowed)
    ]


def under(package: str) -> list[Module]:
    """The modules of a package; there must be some."""
    found = [module for module in modules() if f"{module.name}.".startswith(f"{package}.")]
    assert found, f"no module under {package}: has it moved?"
    return found


def test_core_imports_the_standard_library_and_itself() -> None:
    assert [line for module in under("vmrun.core") for line in foreign(module, "vmrun.core")] == []


def test_core_does_no_input_or_output_of_its_own() -> None:
    barred = {
        "asyncio",
        "http",
        "multiprocessing",
        "pathlib",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
    }
    found = [
        f"{module.where}:{line} imports {name}"
        for module in under("vmrun.core")
        for name, line in imports(module)
        if name.partition(".")[0] in barred
    ]
    assert found == []


def test_runner_imports_the_standard_library_cloudpickle_and_blocks() -> None:
    # What loads a shared object is what a task itself calls, and no more than these again.
    own = ("vmrun.core.blocks", "vmrun.core.columns", "vmrun.core.parcels", "vmrun.sharing")
    allowed = ("cloudpickle", "vmrun.agent.runner", *own)
    assert [line for module in under("vmrun.agent.runner") for line in foreign(module, *allowed)] == []


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that `statement` adds to a fresh interpreter, the standard library's left out."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} - set(STANDARD)


def test_importing_vmrun_loads_nothing_foreign() -> None:
    """Job files import vmrun under the job's own interpreter, where nothing else of vmrun's may be installed."""
    assert loaded_by("import vmrun") == {"vmrun"}


def test_importing_the_runner_loads_cloudpickle_at_most() -> None:
    assert loaded_by("import vmrun.agent.runner") <= {"vmrun", "cloudpickle"}


def test_sdks_are_imported_by_api_modules_only() -> None:
    found = [
        f"{module.where}:{line} imports {name}"
        for module in modules()
        for name, line in imports(module)
        if name.partition(".")[0] in SDKS and module.path.name != "api.py"
    ]
    assert found == []


def test_no_provisioner_imports_another() -> None:
    """A driver is a folder; modules beside the folders are what drivers share."""
    drivers = {module.name for module in under("vmrun.provisioners") if module.path.name == "__init__.py"}
    drivers.remove("vmrun.provisioners")
    found = []
    for mine in sorted(drivers):
        others = tuple(f"{other}." for other in drivers - {mine})
        for module in under(mine):
            found += [
                f"{module.where}:{line} imports {name}"
                for name, line in imports(module)
                if f"{name}.".startswith(others)
            ]
    assert drivers
    assert found == []


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["offers", "--cpus", "128", "--memory", "1TB"]])
def test_starting_the_command_line_loads_no_sdk(arguments: list[str], tmp_path: Path) -> None:
    """A fresh process runs the command as its user does; the modules that it loaded are listed at its end."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\nLOADED', *sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "sys.argv[0] = 'vmrun'\n"
        "from vmrun.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "vmrun" in loaded
    assert loaded.isdisjoint(SDKS)


def test_every_module_is_placed_in_a_layer() -> None:
    """A new top-level module has to say where it belongs."""
    listed = (ROOT / ".importlinter").read_text(encoding="utf-8")
    top = {module.name.split(".")[1] for module in modules() if module.name.count(".") >= 1}
    words = set(listed.replace("(", " ").replace(")", " ").replace("|", " ").replace(":", " ").split())
    assert sorted(top - words) == []
