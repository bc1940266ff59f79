"""What is said of failed tasks: complete, short enough, and never itself a failure."""

from __future__ import annotations

import base64
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pytest

from vmrun.agent.runner import failures
from vmrun.core.blocks import Status, read_failure


def described(error: BaseException) -> tuple[Status, dict[str, Any]]:
    status, payload = failures.describe(error, cloudpickle.dumps)
    return status, read_failure(payload)


def raised(call: Any) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


class TwoArguments(Exception):
    """Pickles, and cannot be unpickled: its arguments are not its `args`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Furious(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(3)


class Leaving(Exception):
    """Has had enough when it is asked what it is about."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Stubborn:
    """Leaves when it is pickled."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


class Proxy:
    """As those of web frameworks: outside of a request nobody is told what it stands for."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("outside of a request")

    def __reduce__(self) -> Any:
        raise RuntimeError("outside of a request")


class Nameless:
    """A key that does not show itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


def test_an_exception_is_its_type_message_traceback_and_itself() -> None:
    def fail() -> None:
        raise KeyError("seven")

    status, said = described(raised(fail))
    assert status is Status.raised
    assert (said["kind"], said["type"], said["message"]) == ("raised", "KeyError", "'seven'")
    assert 'raise KeyError("seven")' in said["traceback"]
    again = pickle.loads(base64.b64decode(said["exception"]))
    assert (type(again), again.args) == (KeyError, ("seven",))


def test_causes_are_told() -> None:
    def fail() -> None:
        try:
            raise OSError("disk")
        except OSError as error:
            raise RuntimeError("could not save") from error

    _, said = described(raised(fail))
    assert "OSError: disk" in said["traceback"]
    assert "direct cause" in said["traceback"]
    assert said["message"] == "could not save"


def test_frames_of_the_runner_are_left_out() -> None:
    from vmrun.agent.runner.functions import caller

    call = caller(lambda value: 1 // value, "one")
    _, said = described(raised(lambda: call(memoryview(pickle.dumps(0)))))
    lines = said["traceback"]
    assert "1 // value" in lines
    # The test's own frames stand in front here, so only what follows them is judged.
    status, said = described(raised_without_frames(call))
    assert status is Status.raised
    assert "runner/functions.py" not in said["traceback"]
    assert "ZeroDivisionError" in said["traceback"]


def raised_without_frames(call: Any) -> BaseException:
    with pytest.raises(ZeroDivisionError) as caught:
        call(memoryview(pickle.dumps(0)))
    assert caught.value.__traceback__ is not None
    return caught.value.with_traceback(caught.value.__traceback__.tb_next)


@pytest.mark.catalogue(36)
@pytest.mark.parametrize("error", [TwoArguments(3, "x"), Furious("x"), ValueError(threading.Lock())])
def test_an_exception_that_does_not_survive_pickling_travels_as_text(error: Exception) -> None:
    status, said = described(error)
    assert status is Status.raised
    assert "exception" not in said
    assert type(error).__name__ in said["type"]


def test_a_large_exception_travels_as_text() -> None:
    _, said = described(ValueError("x" * 10_000_000))
    assert "exception" not in said
    assert len(said["message"]) < 20_000
    assert len(said["traceback"]) < 70_000
    assert "characters left out" in said["message"]


def test_an_exception_without_words_is_told_nevertheless() -> None:
    status, said = described(Mute())
    assert status is Status.raised
    assert "RuntimeError in __str__" in said["message"]


def test_an_exception_that_leaves_when_it_is_asked_for_words_is_told_nevertheless() -> None:
    status, said = described(Leaving())
    assert status is Status.raised
    assert said["type"].endswith("Leaving")
    assert "SystemExit in __str__" in said["message"]


class Secretive(type):
    """Of classes that do not say where they are from."""

    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("nowhere")


@pytest.mark.parametrize(
    ("kind", "word"),
    [(Secretive("Odd", (Exception,), {}), "RuntimeError"), (type("X" * 3_000_000, (Exception,), {}), "XXX")],
    ids=["secretive", "long"],
)
def test_an_exception_of_an_odd_class_is_told_nevertheless(kind: type[Exception], word: str) -> None:
    status, said = described(kind("no"))
    assert status is Status.raised
    assert word in said["type"]
    assert len(said["type"]) < 2000
    assert len(said["traceback"]) < 70_000
    assert said["message"] == "no"


def test_endless_recursion_is_told_in_few_words() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    _, said = described(raised(lambda: deeper(0)))
    assert said["type"] == "RecursionError"
    assert len(said["traceback"]) < 5_000


@pytest.mark.parametrize(
    ("argument", "code"), [((), 0), ((0,), 0), ((3,), 3), ((None,), 0), ((True,), 1), (("no",), 1)]
)
def test_leaving_is_an_exit_with_a_code(argument: tuple[Any, ...], code: int) -> None:
    status, said = described(SystemExit(*argument))
    assert status is Status.exited
    assert said["code"] == code
    assert "sys.exit" in said["message"]


def test_a_message_of_exit_is_kept() -> None:
    assert "no disk" in described(SystemExit("no disk"))[1]["message"]


@dataclass
class Box:
    name: str
    content: Any


@pytest.mark.parametrize(
    ("value", "where", "what"),
    [
        (threading.Lock(), "result", "_thread.lock"),
        ({"fine": 1, "lock": threading.Lock()}, "result['lock']", "_thread.lock"),
        ([0, [1, (x for x in "ab")]], "result[1][1]", "generator"),
        (Box("b", {"deep": [threading.Lock()]}), "result.content['deep'][0]", "_thread.lock"),
    ],
)
def test_the_part_that_cannot_be_pickled_is_named(value: object, where: str, what: str) -> None:
    error = raised(lambda: cloudpickle.dumps(value))
    said = read_failure(failures.unpicklable(value, error, cloudpickle.dumps))
    assert said["kind"] == "unpicklable"
    assert f"{where} is a {what}" in said["message"]


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: [1, Stubborn()], "result[1]"),
        (lambda: {"one": Stubborn()}, "result['one']"),
        (Proxy, "result"),
        (lambda: [Proxy()], "result"),
        (lambda: {Nameless(): threading.Lock()}, "result"),
    ],
)
def test_a_value_that_disturbs_the_search_cannot_be_pickled_all_the_same(make: Any, where: str) -> None:
    value = make()
    error = raised(lambda: cloudpickle.dumps(value))
    said = read_failure(failures.unpicklable(value, error, cloudpickle.dumps))
    assert said["kind"] == "unpicklable"
    assert f"the result cannot be pickled: {where}" in said["message"]


def test_the_search_for_the_culprit_is_short() -> None:
    probes = []

    def refuse(value: object) -> bytes:
        probes.append(value)
        raise TypeError

    nested: list[Any] = []
    for _ in range(50):
        nested = [nested, 1]
    failures.culprit(nested, refuse)
    assert len(probes) <= failures.PROBES_MAX


def test_another_python_is_told_with_both_versions_and_the_way_out() -> None:
    said = read_failure(failures.foreign_python("the function", "3.99"))
    assert said["kind"] == "unpicklable"
    assert "3.99" in said["message"]
    assert "--python 3.99" in said["message"]


def test_signals_have_names() -> None:
    said = read_failure(failures.by_signal(11, last="last words"))
    assert (said["kind"], said["message"], said["code"]) == ("signalled", "killed by SIGSEGV", 11)
    assert said["traceback"] == "last words"
    assert failures.signal_name(64) == "SIGRTMAX"
    assert failures.signal_name(99) == "signal 99"
