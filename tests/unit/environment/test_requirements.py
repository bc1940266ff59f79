"""What a job wants installed, from all places that may say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.errors import UsageError
from vmrun.environment.requirements import (
    EnvironmentSpec,
    RequirementsFile,
    environment_spec,
    package_name,
    parse_requirements,
)


def parse(text: str, **others: str) -> RequirementsFile:
    return parse_requirements(text, "requirements.txt", lambda name: others[name.removesuffix(".txt")])


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint
    return caught.value.message


def test_all_sources_are_one_environment() -> None:
    spec = environment_spec("3.11", ["pandas>=2", "numpy"], ["rich", " numpy "], parse("attrs==1\n--pre\n"))
    assert spec == EnvironmentSpec("3.11", ("attrs==1", "numpy", "pandas>=2", "rich"), ("--pre",))
    assert spec


def test_nothing_asked_for_is_no_environment() -> None:
    assert not environment_spec("3.11")
    assert not environment_spec("3.11", ["vmrun"])


def test_order_and_repetition_do_not_matter_everything_else_does() -> None:
    one = environment_spec("3.11", ["a", "b"])
    assert one.id == environment_spec("3.11", ["b"], ["a", "b"]).id
    others = [
        environment_spec("3.12", ["a", "b"]),
        environment_spec("3.11", ["a"]),
        environment_spec("3.11", ["a", "b>1"]),
        environment_spec("3.11", ["a", "b"], (), RequirementsFile((), ("--pre",))),
    ]
    assert len({one.id, *(other.id for other in others)}) == 5


@pytest.mark.parametrize("text", ["vmrun", "vmrun[ec2]>=0.1", "VMRUN ; python_version > '3'"])
def test_vmrun_itself_is_always_there(text: str) -> None:
    assert environment_spec("3.11", [text, "vmrunner"]).requirements == ("vmrunner",)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("Foo_Bar.baz>=1", "foo-bar-baz"), ("a[x,y] ; m", "a"), ("x @ https://e.org/x.whl", "x"), ("!!", "")],
)
def test_names_are_normalized(requirement: str, name: str) -> None:
    assert package_name(requirement) == name


@pytest.mark.parametrize(
    "requirement",
    [
        "numpy",
        "numpy>=1,<3",
        "pandas[excel]==2.*; python_version >= '3.11'",
        "x @ https://example.org/x-1-py3-none-any.whl",
        "x@https://example.org/archive/0123.zip",
    ],
)
def test_requirements_that_any_machine_can_meet(requirement: str) -> None:
    assert environment_spec("3.11", [requirement]).requirements == (requirement,)


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("./lib", "another machine"),
        ("/home/me/lib", "another machine"),
        ("../lib", "another machine"),
        ("folder/lib", "another machine"),
        ("~/lib", "another machine"),
        ("lib-1.0.whl", "another machine"),
        ("file:///x", "another machine"),
        ("--index-url=https://evil.example", "another machine"),
        ("-e .", "another machine"),
        ("", "another machine"),
        ("x @ file:///lib", "pinned by a hash"),
        ("x @ ./lib", "pinned by a hash"),
        ("x @ git+https://example.org/x", "pinned by a hash"),
        ("x @ https://me:secret@example.org/x.whl", "holds a password"),
        ("numpy\n--index-url https://evil.example", "not one requirement"),
    ],
)
def test_requirements_that_another_machine_cannot_meet_are_refused(requirement: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        environment_spec("3.11", (), [requirement])
    assert caught.value.message.startswith("--with: ")
    assert "secret" not in caught.value.message


# --- files ---


def test_a_requirements_file() -> None:
    found = parse(
        "# our stack\n\nnumpy  # fast\nx @ https://example.org/x.zip#sha256=12\npandas \\\n  >=2\n"
        "-i https://a.example/simple\n--extra-index-url=https://b.example/simple\n--no-binary :all:\n"
    )
    assert found.requirements == ("numpy", "x @ https://example.org/x.zip#sha256=12", "pandas >=2")
    assert found.options == (
        "--index-url https://a.example/simple",
        "--extra-index-url https://b.example/simple",
        "--no-binary :all:",
    )


def test_files_may_include_files() -> None:
    found = parse("a\n-r more.txt\nb\n", more="c\n--requirement=last.txt\n", last="d\n--pre\n")
    assert found == RequirementsFile(("a", "c", "d", "b"), ("--pre",))


def test_included_files_are_found_from_the_file_that_includes_them() -> None:
    files = {"sub/more.txt": "-r last.txt\n-r ../beside.txt\n", "sub/last.txt": "a\n", "sub/../beside.txt": "b\n"}
    found = parse_requirements("-r sub/more.txt\n", "/somewhere/requirements.txt", files.__getitem__)
    assert found.requirements == ("a", "b")


def test_files_that_include_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="include each other without end"):
        parse("-r a.txt\n", a="-r b.txt\n", b="-r a.txt\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n-e ./lib\n", "requirements.txt, line 2: '-e ./lib' is not understood"),
        ("-c constraints.txt\n", "line 1: '-c constraints.txt' is not understood"),
        ("--trusted-host example.org\n", "is not understood"),
        ("./lib\n", "line 1: './lib' does not name a package"),
        ("\n\na \\\n  ==1 \\\n  ./x\n", "line 3"),
        ("--index-url https://me:secret@example.org/simple\n", "holds a password"),
        ("--find-links /wheels\n", "no address that a VM can reach"),
    ],
)
def test_lines_that_cannot_be_used_are_refused_with_their_number(text: str, said: str) -> None:
    if said == "line 3":
        assert parse(text).requirements == ("a ==1 ./x",)  # uv says what is wrong with it
    else:
        message = refused(text)
        assert said in message
        assert "secret" not in message


def test_a_locked_file_is_taken_as_it_is() -> None:
    file = parse("a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nb==2 --hash=sha256:22\n")
    spec = environment_spec("3.11", file=file)
    assert spec.locked
    assert spec.requirements == ("a==1 --hash=sha256:00 --hash=sha256:11", "b==2 --hash=sha256:22")


@pytest.mark.parametrize(
    ("text", "dependencies"), [("a==1 --hash=sha256:00\nb\n", []), ("a==1 --hash=sha256:00\n", ["b"])]
)
def test_a_half_locked_environment_is_refused(text: str, dependencies: list[str]) -> None:
    with pytest.raises(UsageError, match="with hashes must be complete"):
        environment_spec("3.11", dependencies, file=parse(text))


@given(st.text(alphabet=st.sampled_from(list("ab-=/.:@#\\ \n<>[];e~1r")), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text.replace("-r", "").replace("--requirement", ""))
    except UsageError:
        return
    environment_spec("3.11", file=found)
