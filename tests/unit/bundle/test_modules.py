"""Which files travel with a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmrun.bundle.modules import local_files, read_files
from vmrun.bundle.pack import pack, unpack
from vmrun.bundle.script import read_script
from vmrun.core.errors import ConfigError, UsageError


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def found(root: Path, **limits: int) -> list[str]:
    return [file.path for file in local_files(read_script(root / "job.py"), **limits)]


def including(*patterns: str) -> str:
    return f"# /// script\n# [tool.vmrun]\n# include = {list(patterns)!r}\n# ///\n"


def test_a_script_alone(tmp_path: Path) -> None:
    assert found(tree(tmp_path, {"job.py": "import os, json\n", "other.py": ""})) == ["job.py"]


def test_imports_are_followed_through_local_modules(tmp_path: Path) -> None:
    files = {
        "job.py": "import one\nfrom two import f\n",
        "one.py": "def g():\n    import three\n",
        "two.py": "import numpy\ntry:\n    import four\nexcept ImportError: ...\n",
        "three.py": "import one\n",
        "four.py": "",
        "five.py": "",
    }
    assert found(tree(tmp_path, files)) == ["four.py", "job.py", "one.py", "three.py", "two.py"]


def test_a_package_travels_whole_without_caches_and_hidden_files(tmp_path: Path) -> None:
    files = {
        "job.py": "from lib.sub import tool\n",
        "lib/__init__.py": "",
        "lib/sub/__init__.py": "",
        "lib/sub/tool.py": "from .. import rates\nfrom . import helper\nimport beside\n",
        "lib/rates.py": "",
        "lib/sub/helper.py": "",
        "lib/unused.py": "import also\n",
        "lib/data/table.csv": "1,2\n",
        "lib/__pycache__/tool.pyc": "",
        "lib/stale.pyc": "",
        "lib/.git/config": "",
        "lib/.env": "SECRET=1\n",
        "beside.py": "",
        "also.py": "",
        "other/__init__.py": "",
    }
    assert found(tree(tmp_path, files)) == [
        "also.py",
        "beside.py",
        "job.py",
        "lib/__init__.py",
        "lib/data/table.csv",
        "lib/rates.py",
        "lib/sub/__init__.py",
        "lib/sub/helper.py",
        "lib/sub/tool.py",
        "lib/unused.py",
    ]


def test_of_a_directory_that_is_no_package_only_what_is_imported_travels(tmp_path: Path) -> None:
    """Such a directory may be anything: data, results, a checkout of something else."""
    files = {
        "job.py": "import tools.a\nfrom tools import b\nimport data\n",
        "tools/a.py": "from . import c\n",
        "tools/b.py": "",
        "tools/c.py": "",
        "tools/d.py": "",
        "data/big.bin": "",
    }
    assert found(tree(tmp_path, files)) == ["job.py", "tools/a.py", "tools/b.py", "tools/c.py"]


def test_names_in_import_calls_are_seen(tmp_path: Path) -> None:
    files = {
        "job.py": "import importlib\nimportlib.import_module('plugins.a')\n__import__('b')\n"
        "importlib.import_module('.x', 'y')\n",
        "plugins/__init__.py": "",
        "plugins/a.py": "",
        "b.py": "",
    }
    assert found(tree(tmp_path, files)) == ["b.py", "job.py", "plugins/__init__.py", "plugins/a.py"]


def test_compiled_modules_travel(tmp_path: Path) -> None:
    files = {"job.py": "import fast\n", "fast.cpython-311-x86_64-linux-gnu.so": "", "fast.py": "", "fast.txt": ""}
    assert found(tree(tmp_path, files)) == ["fast.cpython-311-x86_64-linux-gnu.so", "job.py"]


def test_imports_that_leave_the_directory_are_not_followed(tmp_path: Path) -> None:
    files = {"outside.py": "", "in/job.py": "import lib\n", "in/lib/__init__.py": "from ... import outside\n"}
    assert found(tree(tmp_path, files) / "in") == ["job.py", "lib/__init__.py"]


def test_a_module_that_cannot_be_parsed_travels_and_says_so_itself(tmp_path: Path) -> None:
    files = {"job.py": "import broken\n", "broken.py": "def (:\n"}
    assert found(tree(tmp_path, files)) == ["broken.py", "job.py"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    files = {"elsewhere/__init__.py": "", "elsewhere/mod.py": "", "in/job.py": "import lib\n", "tables/a.csv": ""}
    tree(tmp_path, files)
    (tmp_path / "elsewhere" / "data").symlink_to(tmp_path / "tables")
    (tmp_path / "in" / "lib").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "in") == ["job.py", "lib/__init__.py", "lib/data/a.csv", "lib/mod.py"]


def test_what_is_neither_file_nor_directory_stays(tmp_path: Path) -> None:
    tree(tmp_path, {"job.py": "import lib\n", "lib/__init__.py": ""})
    os.mkfifo(tmp_path / "lib" / "pipe")
    (tmp_path / "lib" / "nowhere").symlink_to("gone")
    assert found(tmp_path) == ["job.py", "lib/__init__.py"]


def test_too_much_code_is_refused_naming_the_largest_file(tmp_path: Path) -> None:
    tree(tmp_path, {"job.py": "import lib\n", "lib/__init__.py": "", "lib/huge.bin": "x" * 5000})
    with pytest.raises(UsageError, match=r"the largest file is lib/huge\.bin \(5 kB\)"):
        found(tmp_path, max_bytes=4000)
    with pytest.raises(UsageError, match="or 2 files"):
        found(tmp_path, max_files=2)
    assert len(found(tmp_path, max_bytes=6000, max_files=3)) == 3


def test_a_name_that_no_archive_can_hold_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"job.py": "import lib\n", "lib/__init__.py": ""})
    (tmp_path / "lib" / os.fsdecode(b"bad\xff.txt")).write_text("")
    with pytest.raises(UsageError, match="not UTF-8"):
        found(tmp_path)


# --- include ---


def test_include_adds_files_and_directories(tmp_path: Path) -> None:
    files = {
        "job.py": including("data/*.csv", "deep", "late.py", "x/**/*.toml"),
        "data/a.csv": "",
        "data/b.txt": "",
        "deep/one/two.bin": "",
        "deep/.hidden": "",
        "deep/__pycache__/x.pyc": "",
        "late.py": "import later\n",
        "later.py": "",
        "x/y/z.toml": "",
        "x/y/z.yaml": "",
    }
    assert found(tree(tmp_path, files)) == [
        "data/a.csv",
        "deep/one/two.bin",
        "job.py",
        "late.py",
        "later.py",
        "x/y/z.toml",
    ]


def test_a_hidden_file_travels_when_it_is_named(tmp_path: Path) -> None:
    assert found(tree(tmp_path, {"job.py": including(".settings"), ".settings": ""})) == [".settings", "job.py"]


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", "a/../../b"])
def test_include_stays_in_the_scripts_directory(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.py: tool\.vmrun\.include: .* leaves the script's directory"):
        found(tree(tmp_path, {"job.py": including(pattern)}))


def test_include_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'data/' matches no file"):
        found(tree(tmp_path, {"job.py": including("data/")}))


# --- as one ---


def test_the_files_run_elsewhere_as_they_do_here(tmp_path: Path) -> None:
    """The bundle of a script with relative, nested and conditional imports, unpacked in an empty place, runs."""
    files = {
        "job.py": "from lib.sub.tool import value\nimport beside\nprint(value(), beside.NAME)\n",
        "lib/__init__.py": "",
        "lib/sub/__init__.py": "from . import tool\n",
        "lib/sub/tool.py": "from ..base import read\ndef value():\n    return read()\n",
        "lib/base.py": "import pathlib\ndef read():\n"
        "    return pathlib.Path(__file__).with_name('data.txt').read_text()\n",
        "lib/data.txt": "42",
        "beside.py": "NAME = 'beside'\n",
    }
    script = read_script(tree(tmp_path / "here", files) / "job.py")
    unpack(pack(read_files(local_files(script))).data, tmp_path / "there")
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('job.py')"],
        cwd=tmp_path / "there",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("42 beside\n", "")


def test_a_file_that_goes_away_or_is_closed_to_us_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"job.py": "import lib\n", "lib.py": ""})
    files = local_files(read_script(tmp_path / "job.py"))
    (tmp_path / "lib.py").unlink()
    with pytest.raises(UsageError, match=r"lib\.py: No such file"):
        pack(read_files(files))
