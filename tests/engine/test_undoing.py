"""Signals, timers, limits and cores that a task set for its process are not there for the next one."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, nap
from tests.engine.conftest import MakeBench
from vmrun.core.blocks import Status

#: Seconds after which what a task has set would go off, and that a later one takes: of processor time, which nobody
#: takes from it, and of the time in which it may have to wait for a processor before it ends.
LATE_BUSY, LONG_BUSY, LATE, LONG = 0.5, 0.8, 4.0, 5.0
CAP_SYS_RESOURCE = 24


@pytest.fixture
def alone(make_bench: MakeBench) -> Bench:
    """One worker, so that all tasks share a process."""
    return make_bench(workers=1)


def timers() -> dict[str, Any]:
    """Ways to leave one. Functions in here travel by value, and need no module of tests in the worker."""

    def alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, LATE)

    def alarm_that_raises() -> None:
        def late(*_: object) -> None:
            raise TimeoutError("of another task")

        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, LATE, LATE)

    def profiler() -> None:
        signal.setitimer(signal.ITIMER_PROF, LATE_BUSY)

    def watchdog() -> None:
        faulthandler.dump_traceback_later(LATE, exit=True)

    return {"alarm": alarm, "alarm that raises": alarm_that_raises, "profiler": profiler, "watchdog": watchdog}


@pytest.mark.catalogue(50)
@pytest.mark.parametrize("leave", timers().values(), ids=timers())
def test_a_timer_that_a_task_leaves_running_ends_no_later_task(alone: Bench, leave: Any) -> None:
    def work(number: int) -> int:
        if number == 1:
            leave()
        if number == 3:
            began = os.times()
            while leave.__name__ == "profiler" and os.times().user - began.user < LONG_BUSY:
                pass
            while leave.__name__ != "profiler" and os.times().elapsed - began.elapsed < LONG:
                nap(0.1)
        return os.getpid()

    outcomes = alone.run(work, range(6))
    assert alone.statuses == dict.fromkeys(range(6), Status.ok), outcomes
    assert len(set(outcomes.values())) == 1
    assert {alone.facts[number]["attempt"] for number in range(6)} == {0}


def test_a_timer_still_ends_the_task_that_set_it(alone: Bench) -> None:
    def work(number: int) -> int:
        if number == 1:
            signal.alarm(1)
            nap(600)
        return number

    outcomes = alone.run(work, range(3))
    assert (outcomes[0], outcomes[1]["kind"], outcomes[1]["code"], outcomes[2]) == (0, "signalled", signal.SIGALRM, 2)


@pytest.mark.catalogue(50)
def test_signals_are_handled_as_before(alone: Bench) -> None:
    """With SIGCHLD ignored no task learns how its programs end; with SIGPIPE's default a closed pipe is its end."""

    def work(number: int) -> Any:
        if number == 1:
            for name in ("SIGCHLD", "SIGTERM", "SIGUSR1", "SIGINT"):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
            return None
        handlers = [signal.getsignal(each) for each in sorted(signal.valid_signals())]
        mask = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        reader, writer = os.pipe()
        os.close(reader)
        try:
            os.write(writer, b"x")
        except BrokenPipeError:
            os.close(writer)
        return os.getpid(), repr(handlers), mask, subprocess.run(["sh", "-c", "exit 7"], check=False).returncode

    outcomes = alone.run(work, range(3))
    assert outcomes[0] == outcomes[2]
    assert outcomes[2][2:] == ([], 7)


@pytest.mark.catalogue(50)
def test_limits_that_were_lowered_are_put_back(alone: Bench) -> None:
    def work(number: int) -> Any:
        if number == 1:
            for name, most in (("CPU", 1), ("NOFILE", 8), ("FSIZE", 1000), ("AS", 1 << 30)):
                which = getattr(resource, f"RLIMIT_{name}")
                resource.setrlimit(which, (most, resource.getrlimit(which)[1]))
            return None
        names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
        return os.getpid(), {name: resource.getrlimit(getattr(resource, name)) for name in names}

    outcomes = alone.run(work, range(3))
    assert alone.statuses == dict.fromkeys(range(3), Status.ok), outcomes
    assert outcomes[0] == outcomes[2]


def test_a_limit_that_was_raised_stays(alone: Bench) -> None:
    """A module that is imported by the first task may raise one once, for all that it does later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if resource.RLIM_INFINITY in (soft, hard) and soft == hard:
        pytest.skip("it cannot be raised")
    more = 2 * soft if hard == resource.RLIM_INFINITY else hard

    def work(number: int) -> int:
        if number == 1:
            resource.setrlimit(resource.RLIMIT_STACK, (more, hard))
        return resource.getrlimit(resource.RLIMIT_STACK)[0]

    assert alone.run(work, range(3)) == {0: soft, 1: more, 2: more}


@pytest.mark.catalogue(50)
def test_a_limit_that_cannot_be_put_back_costs_its_worker_and_no_later_task(alone: Bench) -> None:
    def be_unable_to_raise_limits() -> None:
        """Give up what root has over others in this."""
        libc = ctypes.CDLL(None, use_errno=True)
        # Version 3 of the call, for this process: effective, permitted, inheritable, in two words of 32 bits each.
        head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capget(head, sets) == 0, os.strerror(ctypes.get_errno())
        for at in (0, 1):
            sets[at] &= ~(1 << CAP_SYS_RESOURCE)
        assert libc.capset(head, sets) == 0, os.strerror(ctypes.get_errno())

    def work(number: int) -> Any:
        if number == 1:
            be_unable_to_raise_limits()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)

    outcomes = alone.run(work, range(4))
    assert alone.statuses == dict.fromkeys(range(4), Status.ok), outcomes
    assert outcomes[1] == (outcomes[0][0], (64, 64))
    assert outcomes[2] == outcomes[3]
    assert outcomes[2][0] != outcomes[0][0]
    assert outcomes[2][1] == outcomes[0][1]
    assert alone.facts[2]["attempt"] == 0


def test_cores_that_a_task_chose_are_its_own(alone: Bench) -> None:
    def work(number: int) -> Any:
        if number == 1:
            os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
            return None
        return os.getpid(), sorted(os.sched_getaffinity(0))

    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is only one core")
    outcomes = alone.run(work, range(3))
    assert outcomes[0] == outcomes[2]


def test_what_the_functions_module_sets_stays(alone: Bench, tmp_path: Path) -> None:
    """It sets that for all tasks, once."""
    (tmp_path / "setting.py").write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))\n"
        "def work(number):\n"
        "    if number == 1:\n"
        "        signal.signal(signal.SIGUSR1, signal.SIG_DFL)\n"
        "    return signal.getsignal(signal.SIGUSR1).name, resource.getrlimit(resource.RLIMIT_STACK)[0]\n"
    )
    alone.source(tmp_path / "setting.py", "work")
    alone.feed(range(4), "work")
    alone.finish()
    assert [alone.outcomes[number] for number in (0, 2, 3)] == [("SIG_IGN", 4 << 20)] * 3
    assert alone.outcomes[1] == ("SIG_DFL", 4 << 20)


@pytest.mark.catalogue(50)
@pytest.mark.parametrize(
    "spoil",
    [lambda: sys.stdin.close(), lambda: setattr(sys, "stdin", io.StringIO("of another task"))],
    ids=["closed", "replaced"],
)
def test_standard_input_is_as_before(alone: Bench, spoil: Any) -> None:
    def work(number: int) -> str:
        if number == 1:
            spoil()
            return ""
        return sys.stdin.read()

    assert alone.run(work, range(3)) == {0: "", 1: "", 2: ""}
    assert set(alone.statuses.values()) == {Status.ok}


@pytest.mark.catalogue(50)
def test_a_quick_function_leaves_nothing_either(alone: Bench) -> None:
    """Its tasks are called many at a time."""
    many, at = 6000, 4321

    def work(number: int) -> Any:
        if number == at:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 600.0)
        if number > at + 1:
            return None
        return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.getitimer(signal.ITIMER_REAL)

    outcomes = alone.run(work, range(many))
    assert set(alone.statuses.values()) == {Status.ok}
    assert outcomes[at + 1] == outcomes[at - 1] == (True, (0.0, 0.0))
