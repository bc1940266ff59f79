"""Job files, read without being run: the PEP 723 block, syntax, and whether there is a job in it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.bundle.script import SCRIPT_MAX_BYTES, ScriptHeader, parse_header, parse_target, read_script
from vmrun.core.errors import ConfigError, UsageError

BLOCK = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy",
#   "pandas>=2",
# ]
#
# [tool.vmrun]
# cpus = 128
# memory = "1TB"
# task-timeout = "5m"
# include = ["data/*.csv"]
# [tool.other]
# x = 1
# ///
import vmrun
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_header(text, "job.py")
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [("job.py", "job.py", ""), ("a/job.py::simulate", "a/job.py", "simulate"), ("job.py::größe", "job.py", "größe")],
)
def test_a_target_is_a_file_and_perhaps_a_name(text: str, path: str, name: str) -> None:
    target = parse_target(text)
    assert (target.path, target.name) == (Path(path), name)


@pytest.mark.parametrize("text", ["", "::name", "job.py::", "job.py::a.b", "job.py::a::b", "job.py::a b"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not name a job"):
        parse_target(text)


def test_a_block_is_read() -> None:
    assert parse_header(BLOCK, "job.py") == ScriptHeader(
        requires_python=">=3.11",
        dependencies=("numpy", "pandas>=2"),
        options={"cpus": 128, "memory": 10**12, "task_timeout": 300.0},
        include=("data/*.csv",),
    )


def test_line_ends_of_windows_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_bytes(b"\xef\xbb\xbf" + BLOCK.replace("\n", "\r\n").encode())
    assert read_script(path).header == parse_header(BLOCK, "job.py")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import vmrun\n",
        "# /// pyproject\n# dependencies = [1\n# ///\n",
        "x = 1  # /// script\n",
        "    # /// script\n    # nonsense\n    # ///\n",
    ],
)
def test_no_block_is_an_empty_header(text: str) -> None:
    assert parse_header(text, "job.py") == ScriptHeader()


def test_the_last_line_of_a_file_may_end_the_block() -> None:
    assert parse_header('# /// script\n# dependencies = ["a"]\n# ///', "job.py").dependencies == ("a",)


def test_the_longest_block_counts_as_in_the_standard() -> None:
    """A `# ///` inside is content where a later one ends the block; then it must be TOML, which it is not."""
    text = '# /// script\n# dependencies = ["a"]\n# ///\n# x = 1\n# ///\n'
    assert "line 3" in refused(text).message


def test_two_blocks_are_refused_with_both_lines() -> None:
    text = "# /// script\n# dependencies = []\n# ///\n\nx = 1\n\n# /// script\n# dependencies = []\n# ///\n"
    assert "two `# /// script` blocks, on lines 1 and 7" in refused(text).message


def test_a_block_that_does_not_end_is_refused() -> None:
    assert "job.py, line 2: the `# /// script` block does not end" in refused("\n# /// script\n# x = 1\n\n").message


@pytest.mark.parametrize(
    ("content", "line"),
    [("# dependencies = [", 4), ("# a = 1\n# b = = 2", 5), ("# a = 1\n# a = 2", 5)],
)
def test_wrong_toml_is_refused_with_the_line_of_the_file(content: str, line: int) -> None:
    error = refused(f"\n\n# /// script\n{content}\n# ///\n")
    assert error.message.startswith("job.py, line ")
    found = int(error.message.split()[2].rstrip(":"))
    assert line <= found <= line + 1, error.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("requires-python = 3.11", "requires-python"),
        ('dependencies = "numpy"', "dependencies"),
        ("dependencies = [1]", "dependencies"),
        ('dependencies = [" "]', "dependencies"),
    ],
)
def test_wrong_types_of_the_standard_keys_are_refused(content: str, said: str) -> None:
    error = refused(f"# /// script\n# {content}\n# ///\n")
    assert f"job.py: {said}" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("cpu = 3", "tool.vmrun.cpu"),
        ("over = [1]", "tool.vmrun.over"),
        ('cpus = "many"', "tool.vmrun.cpus"),
        ('memory = "much"', "tool.vmrun.memory"),
        ('task-timeout = "later"', "tool.vmrun.task_timeout"),
        ("env = {A = 1}", "tool.vmrun.env.A"),
        ("python = 3.12", "tool.vmrun.python"),
        ('include = "data"', "tool.vmrun.include"),
        ('keep-warm = "1m"\n# keep_warm = "2m"', "tool.vmrun.keep_warm"),
    ],
)
def test_a_wrong_key_of_ours_is_a_configuration_error_with_file_and_key_path(content: str, path: str) -> None:
    error = refused(f"# /// script\n# [tool.vmrun]\n# {content}\n# ///\n")
    assert isinstance(error, ConfigError)
    assert error.exit_code == 2
    assert f"job.py: {path}" in error.message


def test_an_unknown_key_names_the_one_that_was_meant() -> None:
    error = refused("# /// script\n# [tool.vmrun]\n# task_timout = 3\n# ///\n")
    assert error.hint == "did you mean task_timeout?"


def test_our_table_must_be_a_table() -> None:
    assert "tool.vmrun must be a table" in refused("# /// script\n# [tool]\n# vmrun = 1\n# ///\n").message


@given(st.text(alphabet=st.sampled_from(list('#/ script\n=[]"abc.tolvmrun12-')), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse_header(f"# /// script\n{text}\n# ///\n", "job.py"), ScriptHeader)


# --- files ---


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_script(tmp_path / "job.py")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        read_script(tmp_path)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "")
    with pytest.raises(UsageError, match="Not a directory"):
        read_script(tmp_path / "a" / "job.py")


def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_bytes("# fine\nx = 'größe'\n".encode("latin-1"))
    with pytest.raises(UsageError, match="line 2: not UTF-8"):
        read_script(path)


def test_a_file_too_large_for_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    with path.open("wb") as file:
        file.truncate(SCRIPT_MAX_BYTES + 1)
    with pytest.raises(UsageError, match="larger than 16 MiB"):
        read_script(path)


def test_a_syntax_error_is_refused_with_file_line_and_text(tmp_path: Path) -> None:
    path = write(tmp_path / "job.py", "import vmrun\n\ndef f(:\n    pass\n")
    with pytest.raises(UsageError) as caught:
        read_script(path)
    assert f"{path}, line 3:" in caught.value.message
    assert "def f(:" in caught.value.message


@pytest.mark.parametrize("text", ["x = 1\0", "(" * 10_000, "-" * 200_000 + "1"])
def test_what_no_parser_takes_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"job\.py"):
        read_script(write(tmp_path / "job.py", text))


def test_warnings_of_the_parser_are_nobodys_business(tmp_path: Path) -> None:
    read_script(write(tmp_path / "job.py", 'x = "\\d"\nassert (x, 1)\n'))


# --- is there a job in it? ---


@pytest.mark.parametrize(
    "text",
    [
        "import vmrun\n@vmrun.job\ndef f(): ...\n",
        "import vmrun as v\n@v.job(over=[1])\ndef f(x): ...\n",
        "from vmrun import job\n@job\ndef f(): ...\n",
        "from vmrun import job as j\n@j\ndef f(): ...\n",
        "from vmrun import *\n",
        "from vmrun.job import job\n",
        "import vmrun.job\n",
        "def f():\n    import vmrun\n    return vmrun.job\n",
    ],
)
def test_a_file_that_mentions_the_decorator_may_hold_a_job(tmp_path: Path, text: str) -> None:
    assert read_script(write(tmp_path / "job.py", text)).uses_job


@pytest.mark.parametrize(
    "text",
    [
        "print('hello')\n",
        "import vmrun\nwith vmrun.Executor() as pool: ...\n",
        "from vmrun import Executor\n",
        "import other\n@other.job\ndef f(): ...\n",
        "from .vmrun import job\n",
        "import vmrunner\nvmrunner.job\n",
        "job = 3\n",
        "'import vmrun; vmrun.job'\n",
    ],
)
def test_any_other_file_is_a_script(tmp_path: Path, text: str) -> None:
    assert not read_script(write(tmp_path / "job.py", text)).uses_job
