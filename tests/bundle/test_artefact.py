"""The agent's artefact: small, closed, the same for the same inputs, and able to run on a bare Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmrun.artefact.app import PACKAGE, app_directory
from vmrun.artefact.build import Artefact, build_artefact, build_uv
from vmrun.bundle.pack import unpack
from vmrun.core.blocks import PYTHON
from vmrun.core.codec import sha256
from vmrun.core.errors import UsageError, VmrunError
from vmrun.environment.target import Target, this_machine

#: Bytes that are pushed to each new VM: at 10 MB/s, about a second.
BUDGET = 12_000_000
HERE = this_machine()

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(HERE.system != "linux", reason="runs the artefact, which is for Linux"),
]


def quiet(_line: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def artefact(cache: Path) -> Artefact:
    return build_artefact(Target(PYTHON, HERE.arch), cache, quiet)


@pytest.fixture(scope="session")
def unpacked(artefact: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vm") / "agent"
    unpack(artefact.path.read_bytes(), directory)
    return directory


def run(main: Path, arguments: Sequence[str], flags: Sequence[str] = ("-I",)) -> subprocess.CompletedProcess[str]:
    """Run it with an empty environment."""
    argv = [sys.executable, *flags, str(main), *arguments]
    return subprocess.run(argv, env={}, cwd="/", capture_output=True, text=True, timeout=240, check=False)


def parts(artefact: Artefact) -> dict[str, int]:
    """Bytes by top-level directory and package, as unpacked."""
    sizes: dict[str, int] = {}
    with tarfile.open(artefact.path) as tar:
        for member in tar:
            name = "/".join(member.name.split("/")[:2])
            sizes[name] = sizes.get(name, 0) + member.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def test_it_keeps_to_its_budget(artefact: Artefact, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        largest = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in list(parts(artefact).items())[:4])
        print(f"\nagent artefact: {artefact.size / 1e6:.2f} MB of {BUDGET / 1e6:.0f} MB; unpacked, in MB: {largest}")
    assert artefact.size <= BUDGET
    assert artefact.size == artefact.path.stat().st_size
    assert artefact.sha256 == sha256(artefact.path.read_bytes())


def test_nothing_needless_is_in_it(artefact: Artefact) -> None:
    with tarfile.open(artefact.path) as tar:
        names = tar.getnames()
    assert {name.split("/")[0] for name in names} == {"main.py", "target.json", "app", "lib"}
    assert {name.split("/")[1] for name in names if name.startswith("app/")} == {"vmrun", "cloudpickle"}
    needless = [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith((".pyi", ".pyc"))]
    assert needless == []
    assert [name for name in names if "dist-info/" in name and "METADATA" not in name and "icense" not in name] == []
    assert "app/vmrun/machine/files/vmrun-deadman.timer" in names


def test_it_says_what_it_is(unpacked: Path) -> None:
    done = run(unpacked / "main.py", ["--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"for Python {PYTHON} on {HERE.arch}\n")


@pytest.mark.parametrize("flags", [["-I"], ["-I", "-S"], []], ids=["isolated", "without site", "plain"])
def test_all_of_the_agent_loads_on_a_bare_python(unpacked: Path, flags: list[str]) -> None:
    """The interpreter has packages of its own, the very ones that the agent needs among them; none is seen."""
    done = run(unpacked / "main.py", ["--check"], flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["modules"] > 10
    assert found["path"][:2] == [str(unpacked / "app"), str(unpacked / "lib")]
    standard = [os.path.dirname(os.__file__), sys.base_prefix, sys.base_exec_prefix]
    foreign = [
        place
        for place in found["places"]
        if "site-packages" in place or not place.startswith((str(unpacked), *standard))
    ]
    assert foreign == []
    assert any(place.startswith(str(unpacked / "lib" / "obstore")) for place in found["places"])
    assert any(place.startswith(str(unpacked / "lib" / "cryptography")) for place in found["places"])


def test_arguments_reach_the_agent(unpacked: Path) -> None:
    done = run(unpacked / "main.py", ["prepare", "/nowhere/agent.json"])
    assert done.returncode == 2
    assert "/nowhere/agent.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_python_is_refused_at_the_door(unpacked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "agent"
    copy.mkdir()
    shutil.copy(unpacked / "main.py", copy)
    (copy / "target.json").write_text(json.dumps({"version": "1", "python": "3.99", "arch": HERE.arch}))
    done = run(copy / "main.py", ["run", "x"])
    assert done.returncode == 2
    assert done.stderr == f"this agent is for Python 3.99 on {HERE.arch}; this is Python {PYTHON} on {HERE.arch}\n"


def test_the_door_can_be_read_by_an_old_python(unpacked: Path) -> None:
    import ast

    ast.parse((unpacked / "main.py").read_text(), feature_version=(3, 6))


# --- the same inputs, the same bytes ---


def test_the_same_inputs_give_the_same_bytes(artefact: Artefact, tmp_path: Path) -> None:
    """Built by somebody else, elsewhere, later, from files with other times and permissions."""
    sources = tmp_path / "copy" / "vmrun"
    shutil.copytree(PACKAGE, sources, copy_function=shutil.copyfile)
    (sources / "__pycache__" / "more.pyc").parent.mkdir(exist_ok=True)
    (sources / "__pycache__" / "more.pyc").write_bytes(b"")
    again = build_artefact(Target(PYTHON, HERE.arch), tmp_path / "cache", quiet, package=sources)
    assert again.path != artefact.path
    assert again.sha256 == artefact.sha256


def test_a_changed_line_is_another_artefact(artefact: Artefact, cache: Path, tmp_path: Path) -> None:
    sources = tmp_path / "vmrun"
    shutil.copytree(PACKAGE, sources)
    with (sources / "core" / "errors.py").open("a") as file:
        file.write("# changed\n")
    assert build_artefact(Target(PYTHON, HERE.arch), cache, quiet, package=sources).sha256 != artefact.sha256


def test_what_was_built_is_not_built_again(artefact: Artefact, cache: Path) -> None:
    said: list[str] = []
    assert build_artefact(Target(PYTHON, HERE.arch), cache, said.append) == artefact
    assert said == []


def test_it_is_built_for_other_machines_too(artefact: Artefact, cache: Path) -> None:
    other = build_artefact(Target("3.12", "arm64" if HERE.arch == "x86_64" else "x86_64"), cache, quiet)
    assert other.sha256 != artefact.sha256
    with tarfile.open(other.path) as tar:
        backend = [name for name in tar.getnames() if name.startswith("lib/_cffi_backend")]
    assert "cpython-312" in backend[0]
    assert os.uname().machine not in backend[0]


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="'sparc'"):
        Target("3.11", "sparc")


def test_without_a_package_index_it_is_said_so_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with pytest.raises(VmrunError, match="fetching the agent's packages: the package index cannot be reached"):
        build_artefact(HERE, tmp_path / "cache", quiet)
    assert list((tmp_path / "cache" / "artefacts").iterdir()) == []


# --- what travels beside it ---


def test_uv_is_one_program_that_runs(cache: Path, tmp_path: Path) -> None:
    packed = build_uv(Target(PYTHON, HERE.arch), cache, quiet)
    unpack(packed.path.read_bytes(), tmp_path / "uv")
    assert [path.name for path in (tmp_path / "uv").iterdir()] == ["uv"]
    done = subprocess.run([str(tmp_path / "uv" / "uv"), "--version"], capture_output=True, timeout=120, check=True)
    assert done.stdout.startswith(b"uv ")
    assert build_uv(Target("3.12", HERE.arch), cache, quiet) == packed


def test_a_jobs_interpreter_gets_vmrun_and_cloudpickle_only(tmp_path: Path) -> None:
    app = app_directory(tmp_path)
    assert sorted(path.name for path in app.iterdir()) == ["cloudpickle", "vmrun"]
    assert app_directory(tmp_path) == app
    program = f"import sys; sys.path.append({str(app)!r}); import vmrun, cloudpickle; print(vmrun.job, vmrun.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(app) in done.stdout
