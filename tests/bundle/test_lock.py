"""Locking with the real uv: against the public package index, and against none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.environment.wheels import make_wheel, offline
from vmrun.core.blocks import PYTHON
from vmrun.core.errors import UsageError, VmrunError
from vmrun.environment.install import InstallOptions, ensure_environment
from vmrun.environment.lock import Locker, lock_environment
from vmrun.environment.requirements import environment_spec, parse_requirements
from vmrun.environment.target import Target, this_machine
from vmrun.environment.uv import find_uv

PINNED = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)


def locker(cache: Path, variables: Mapping[str, str] | None = None) -> Locker:
    return Locker(
        uv=find_uv(),
        python=sys.executable,
        cache=cache,
        progress=lambda _line: None,
        variables=os.environ if variables is None else {**os.environ, **variables},
    )


def test_requirements_become_exact_versions_with_hashes(tmp_path: Path) -> None:
    spec = environment_spec(PYTHON, ["attrs>=20"], ["six==1.16.0"])
    lock = lock_environment(spec, this_machine(), locker(tmp_path))
    versions = dict(PINNED.findall(lock))
    assert versions["six"] == "1.16.0"
    assert int(versions["attrs"].split(".")[0]) >= 20
    assert lock.count("--hash=sha256:") >= 4
    assert str(tmp_path) not in lock


def test_the_target_decides_not_this_machine(tmp_path: Path) -> None:
    """Markers are those of the VM's Python and processor."""
    wanted = [
        "six==1.16.0; platform_machine == 'aarch64'",
        "attrs==25.1.0; python_version == '3.13'",
        "idna==3.10; platform_machine == 'x86_64'",
    ]
    arm = lock_environment(environment_spec("3.13", wanted), Target("3.13", "arm64"), locker(tmp_path))
    assert sorted(dict(PINNED.findall(arm))) == ["attrs", "six"]
    intel = lock_environment(environment_spec("3.12", wanted), Target("3.12", "x86_64"), locker(tmp_path))
    assert sorted(dict(PINNED.findall(intel))) == ["idna"]


def test_a_lock_made_here_installs_there(tmp_path: Path) -> None:
    spec = environment_spec(PYTHON, ["six==1.16.0"])
    lock = lock_environment(spec, this_machine(), locker(tmp_path))
    options = InstallOptions(compile_bytecode=False)
    interpreter = ensure_environment(tmp_path / "environments", lock, PYTHON, find_uv(), options)
    argv = [str(interpreter), "-c", "import six; print(six.__version__)"]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout == "1.16.0\n"


def test_an_unknown_package_is_refused_by_name(tmp_path: Path) -> None:
    spec = environment_spec(PYTHON, ["no-such-package-of-vmrun"])
    with pytest.raises(UsageError, match="there is no package no-such-package-of-vmrun") as caught:
        lock_environment(spec, this_machine(), locker(tmp_path))
    assert "check the name" in caught.value.hint
    assert [path.name for path in tmp_path.rglob("*")] == ["locks"]


def test_an_impossible_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)cannot be met.*six==99"):
        lock_environment(environment_spec(PYTHON, ["six==99"]), this_machine(), locker(tmp_path))


# --- without the public index ---


def test_a_lock_is_kept_until_a_fresh_one_is_asked_for(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny", "1.0")
    desk = locker(tmp_path / "cache", {**offline(wheels), "UV_CACHE_DIR": str(tmp_path / "uv")})
    spec = environment_spec(PYTHON, ["tiny"])
    assert "tiny==1.0" in lock_environment(spec, this_machine(), desk)
    make_wheel(wheels, "tiny", "2.0")
    assert "tiny==1.0" in lock_environment(spec, this_machine(), desk)
    assert "tiny==2.0" in lock_environment(spec, this_machine(), desk, refresh=True)
    assert "tiny==2.0" in lock_environment(spec, this_machine(), desk)
    assert "tiny==2.0" in lock_environment(environment_spec(PYTHON, ["tiny>1"]), this_machine(), desk)


def test_options_of_a_requirements_file_stand_in_the_lock(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny")
    desk = locker(tmp_path / "cache", {**offline(wheels), "UV_CACHE_DIR": str(tmp_path / "uv")})
    file = parse_requirements("--only-binary :all:\ntiny\n", "requirements.txt", lambda _name: "")
    lock = lock_environment(environment_spec(PYTHON, file=file), this_machine(), desk)
    assert lock.startswith("--only-binary :all:\ntiny==1.0 \\\n    --hash=sha256:")
    options = InstallOptions(variables=desk.variables, compile_bytecode=False)
    assert ensure_environment(tmp_path / "environments", lock, PYTHON, find_uv(), options).exists()


def test_a_locked_file_is_passed_on_as_it_is(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    line = make_wheel(wheels, "tiny")
    file = parse_requirements(line, "requirements.txt", lambda _name: "")
    assert lock_environment(environment_spec(PYTHON, file=file), this_machine(), locker(tmp_path)) == line


def test_settings_of_the_project_and_the_person_do_not_matter(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "tiny", "2.0")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[tool.uv]\nconstraint-dependencies = ["tiny<2"]\n')
    monkeypatch.chdir(project)
    (isolated / ".config" / "uv").mkdir(parents=True)
    (isolated / ".config" / "uv" / "uv.toml").write_text('[pip]\nresolution = "lowest"\n')
    desk = locker(tmp_path / "cache", {**offline(wheels), "UV_CACHE_DIR": str(tmp_path / "uv")})
    assert "tiny==2.0" in lock_environment(environment_spec(PYTHON, ["tiny"]), this_machine(), desk)


def test_no_index_in_reach_is_said_so(tmp_path: Path) -> None:
    variables = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    variables["UV_CACHE_DIR"] = str(tmp_path / "uv")
    with pytest.raises(VmrunError, match="the package index cannot be reached") as caught:
        lock_environment(environment_spec(PYTHON, ["six"]), this_machine(), locker(tmp_path, variables))
    assert not isinstance(caught.value, UsageError)
    assert "UV_DEFAULT_INDEX" in caught.value.hint


def test_the_targets_python_is_the_environments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Python 3\.11 cannot be locked for Python 3\.12"):
        lock_environment(environment_spec("3.11", ["six"]), Target("3.12", "x86_64"), locker(tmp_path))
