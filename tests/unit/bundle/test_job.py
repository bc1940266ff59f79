"""`@vmrun.job`: what it takes, what it refuses, and that it leaves the function as it was."""

from __future__ import annotations

import enum
import pickle
from collections.abc import Iterator

import cloudpickle
import pytest

import vmrun
from vmrun.core.errors import UsageError
from vmrun.job import Job, inputs_of, shared_of


def double(number: int) -> int:
    """Twice."""
    return 2 * number


def test_a_bare_decorator_makes_a_job_of_one_call() -> None:
    job = vmrun.job(double)
    assert isinstance(job, Job)
    assert (job.fn, job.over, job.options, job.reducer, job.name) == (double, None, {}, None, "double")


def test_a_job_is_called_as_its_function() -> None:
    @vmrun.job(over=range(3))
    def add(one: int, two: int = 5) -> int:
        """Sum."""
        return one + two

    assert add(1) == 6
    assert add(1, two=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Sum.")


def test_options_are_checked_and_brought_into_one_form() -> None:
    job = vmrun.job(
        over=[1],
        cpus=128,
        memory="1TB",
        disk="10GiB",
        arch="arm64",
        market="spot",
        retries=2,
        task_timeout="5m",
        max_lifetime=7200,
        keep_warm="0",
        name="näme 🚀",
        env={"LEVEL": "2"},
    )(double)
    assert job.options == {
        "cpus": 128,
        "memory": 10**12,
        "disk": 10 * 1024**3,
        "arch": "arm64",
        "market": "spot",
        "retries": 2,
        "task_timeout": 300.0,
        "max_lifetime": 7200.0,
        "keep_warm": 0.0,
        "name": "näme 🚀",
        "env": {"LEVEL": "2"},
    }
    assert job.name == "näme 🚀"


def test_an_option_that_is_none_was_not_said() -> None:
    assert vmrun.job(cpus=None, task_timeout=None)(double).options == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus": 0}, "cpus"),
        ({"cpus": "128"}, "cpus"),
        ({"cpus": True}, "cpus"),
        ({"workers": 1.5}, "workers"),
        ({"retries": -1}, "retries"),
        ({"retries": 101}, "retries"),
        ({"memory": "a lot"}, "memory"),
        ({"memory": 1.5}, "memory"),
        ({"disk": -1}, "disk"),
        ({"arch": "sparc"}, "arch"),
        ({"market": "flea"}, "market"),
        ({"market": True}, "market"),
        ({"task_timeout": "soon"}, "task_timeout"),
        ({"task_timeout": 0}, "task_timeout"),
        ({"task_timeout": float("nan")}, "task_timeout"),
        ({"keep_warm": True}, "keep_warm"),
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "x" * 10_000}, "name"),
        ({"name": 3}, "name"),
        ({"env": ["A=1"]}, "env"),
        ({"env": {"A": 1}}, "env.A"),
        ({"env": {"A=B": "1"}}, "A=B"),
        ({"env": {"A": "a\0b"}}, "env.A"),
        ({"region": ""}, "region"),
    ],
)
def test_a_bad_value_is_refused_where_it_is_written(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        vmrun.job(over=[1], **options)
    assert "@vmrun.job" in caught.value.message
    assert said in caught.value.message


def test_an_unknown_option_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match="unknown option 'task_timout'") as caught:
        vmrun.job(task_timout="5m")
    assert caught.value.hint == "did you mean task_timeout?"
    with pytest.raises(UsageError) as caught:
        vmrun.job(qqqq=1)
    assert "arch, cpus, disk" in caught.value.hint


@pytest.mark.parametrize("over", ["inputs.txt", b"bytes", 1000, 2.5])
def test_what_cannot_be_inputs_is_refused_at_once(over: object) -> None:
    with pytest.raises(UsageError) as caught:
        vmrun.job(over=over)
    assert caught.value.hint


def test_a_number_as_over_hints_at_a_range() -> None:
    with pytest.raises(UsageError) as caught:
        vmrun.job(over=1000)
    assert "over=range(1000)" in caught.value.hint


@pytest.mark.parametrize("fn", [3, "double", None])
def test_only_functions_are_jobs(fn: object) -> None:
    with pytest.raises(UsageError, match="is not a function"):
        vmrun.job(over=[1])(fn)  # type: ignore[type-var]


def test_inputs_without_a_keyword_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        vmrun.job(range(3))  # type: ignore[call-overload]
    assert "@vmrun.job(over=range(1000))" in caught.value.hint


def test_functions_whose_call_gives_no_value_yet_are_refused() -> None:
    async def coroutine(_x: int) -> None: ...

    def generator(x: int) -> Iterator[int]:
        yield x

    for fn in (coroutine, generator):
        with pytest.raises(UsageError, match="coroutine or generator"):
            vmrun.job(over=[1])(fn)


def test_a_job_is_not_decorated_twice() -> None:
    with pytest.raises(UsageError, match="is a job already"):
        vmrun.job(vmrun.job(double))


def test_reduce_registers_and_gives_the_function_back() -> None:
    job = vmrun.job(over=[1])(double)
    assert job.reduce(sum) is sum
    assert job.reducer is sum
    with pytest.raises(UsageError, match="has a reducer already: sum"):
        job.reduce(max)
    assert job.reducer is sum


def test_inputs_may_be_a_callable_that_is_called_when_they_are_needed() -> None:
    calls = []

    def inputs() -> Iterator[int]:
        calls.append(1)
        yield from range(3)

    job = vmrun.job(over=inputs)(double)
    assert calls == []
    assert list(inputs_of(job)) == [0, 1, 2]
    assert calls == [1]


def test_an_iterable_that_can_also_be_called_is_iterated() -> None:
    class Color(enum.Enum):
        red = 1
        blue = 2

    assert list(inputs_of(vmrun.job(over=Color)(double))) == [Color.red, Color.blue]


def test_a_callable_that_gives_no_iterable_is_refused() -> None:
    with pytest.raises(UsageError, match="`over` of job 'double' gave int"):
        inputs_of(vmrun.job(over=lambda: 3)(double))


def test_a_callable_object_is_a_job_too() -> None:
    class Model:
        def __call__(self, x: int) -> int:
            return x + 1

    job = vmrun.job(over=[1])(Model())
    assert (job(1), job.name) == (2, "Model")


def test_a_job_travels_by_cloudpickle() -> None:
    """A function handed to an executor may be a job: it and its function share a name."""
    copy = pickle.loads(cloudpickle.dumps(vmrun.job(over=[1], cpus=2)(double)))
    assert (copy(4), copy.options) == (8, {"cpus": 2})


def test_what_a_job_shares_is_an_object_or_what_a_function_gives() -> None:
    class Model:
        def __call__(self) -> int:
            raise AssertionError("an object that can be called is shared, not called")

    model = Model()
    assert shared_of(vmrun.job(over=[1], shared=model)(double)) is model
    assert shared_of(vmrun.job(over=[1], shared=lambda: [model])(double)) == [model]
    assert shared_of(vmrun.job(over=[1])(double)) is None


def test_a_job_does_not_take_along_what_it_shares() -> None:
    job = vmrun.job(over=[1], shared=bytes(1_000_000))(double)
    data = cloudpickle.dumps(job)
    assert len(data) < 10_000
    assert pickle.loads(data)(4) == 8
    assert shared_of(job) == bytes(1_000_000)
