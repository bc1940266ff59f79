"""The arithmetic of the benchmarks: what they say is fast has to be."""

from __future__ import annotations

import math
import random

import pytest

from tests.support import benchmarks  # noqa: F401  makes the next ones importable

# isort: split
import figures
import isolation
import run_all
import suite
from contest import Contestant, Session, Standing, Workload, table
from figures import FAIL, PASS, UNMEASURED, Figure, Target, judge
from isolation_cases import BAD, CASES
from targets import TARGETS


@pytest.mark.parametrize(
    ("sense", "value", "met"),
    [
        ("at least", 0.98, True),
        ("at least", 0.9799, False),
        ("at most", 0.98, True),
        ("at most", 0.9801, False),
        ("at least", math.nan, False),
        ("at most", math.nan, False),
        ("at least", math.inf, True),
    ],
)
def test_a_target_is_met_at_its_limit(sense, value: float, met: bool) -> None:
    target = Target("f", sense, 0.98, "%", "a figure")
    assert target.met(value) is met
    (judged,) = judge([target], [Figure("f", value)])
    assert judged.verdict == (PASS if met else FAIL)


def test_a_target_without_figure_was_not_measured() -> None:
    (judged,) = judge([Target("f", "at most", 1, "x", "")], [Figure("g", 1)])
    assert judged.verdict == UNMEASURED


def test_a_figure_is_measured_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        judge([], [Figure("f", 1), Figure("f", 2)])


def test_ratios_are_paired_and_their_median_counts() -> None:
    # A slow machine in the third round slows both: the ratio does not see it.
    assert figures.ratio([1.0, 1.0, 10.0], [2.0, 4.0, 20.0]) == 0.5
    with pytest.raises(ValueError, match="no rounds"):
        figures.ratio([], [])
    with pytest.raises(ValueError, match="argument"):
        figures.ratio([1.0], [1.0, 2.0])


def test_everyone_is_first_and_last_in_turn() -> None:
    orders = [figures.rotated("abc", number) for number in range(6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert {order[0] for order in orders} == {order[-1] for order in orders} == {"a", "b", "c"}
    assert figures.rotated("ab", 0) == ["a", "b"]
    assert figures.rotated(["alone"], 7) == ["alone"]


def test_no_schedule_beats_the_bound(rng: random.Random) -> None:
    for _ in range(200):
        times = [rng.choice([1.0, 100.0]) * rng.random() for _ in range(rng.randint(1, 30))]
        cores = rng.randint(1, 5)
        ends = [0.0] * cores
        for seconds in sorted(times, reverse=True):
            ends[ends.index(min(ends))] += seconds
        bound = figures.lower_bound(times, cores)
        # Longest first is within a third of the best, and the best is not below the bound.
        assert bound <= max(ends) + 1e-9
        assert max(ends) <= 4 / 3 * max(bound, max(times)) + max(times)
    assert figures.lower_bound([1, 1, 1, 5], 2) == 5
    assert figures.lower_bound([2, 2, 2], 2) == 3


def test_share_of_ideal() -> None:
    assert figures.share_of_ideal(cpu_seconds=16.0, cores=2, makespan=10.0) == 0.8
    assert figures.share_of_ideal(cpu_seconds=16.0, cores=2, makespan=10.0, stolen=4.0) == 1.0


def test_a_peak_is_of_one_moment() -> None:
    samples = [{1: 10, 2: 1}, {1: 4, 2: 9, 3: 50}, {2: 11}]
    assert figures.peak_together(samples, [1, 2]) == 13
    assert figures.peak_together(samples) == 63
    assert figures.peak_together([]) == 0


# --- standings ---


def standing(label: str, seconds: list[float], tasks: int, **facts: float) -> Standing:
    return Standing("s", "50ms", label, tasks, 1, [{"seconds": one, "tasks": tasks, **facts} for one in seconds])


def test_rates_are_compared_though_one_ran_fewer_tasks() -> None:
    ours, theirs = standing(suite.ENGINE, [1.0, 2.0, 3.0], 100), standing("Lithops", [1.0, 2.0, 3.0], 10)
    session = Session("lithops", suite.ENGINE, ())
    (figure,) = suite.compared(session, Workload("noops-10k", "noops", 100), [ours, theirs])
    assert figure.name == "noops-10k: vmrun engine against Lithops"
    assert figure.value == pytest.approx(10.0)
    assert "over 10 tasks" in figure.note
    shown = table([ours, theirs], suite.ENGINE).splitlines()
    assert "10.00" in shown[3]


def test_who_did_not_run_is_in_the_table_with_the_reason() -> None:
    absent = Standing("s", "50ms", "Ray", 10, problem="not installed: no network")
    assert "not installed: no network" in table([standing(suite.ENGINE, [1.0], 10), absent], suite.ENGINE)
    assert list(suite.compared(Session("ray", suite.ENGINE, ()), Workload("1ms", "1ms", 10), [absent])) == []


def test_own_figures() -> None:
    ours = standing(suite.ENGINE, [10.0], 200, cpu_seconds=19.6, busy_seconds=19.8, longest=0.1, from_first_start=9.9)
    session = Session("engine", suite.ENGINE, ())
    (share,) = suite.compared(session, Workload("50ms", "50ms", 200), [ours])
    assert (share.name, share.value) == ("50ms: vmrun engine, share of ideal", pytest.approx(0.98))
    ours.runs[0]["stolen_seconds"] = 0.4
    (fair,) = suite.compared(session, Workload("50ms", "50ms", 200), [ours])
    assert (fair.value, fair.note) == (pytest.approx(1.0), "200 tasks, start included; 98.0% with stolen time")
    bare = standing(suite.BARE, [10.0], 200, cpu_seconds=19.8, busy_seconds=19.9, longest=0.1)
    noted, ceiling, against = suite.compared(session, Workload("50ms", "50ms", 200), [ours, bare])
    assert noted.note.endswith("bare processes 99.0%")
    assert (ceiling.name, ceiling.value) == ("50ms: bare processes, share of ideal", pytest.approx(0.99))
    assert against.name == "50ms: vmrun engine against bare processes"
    (stretch,) = suite.compared(session, Workload("skewed", "skewed", 200), [ours])
    assert (stretch.name, stretch.value) == ("skewed: vmrun engine, times optimum", pytest.approx(10 / 9.9))


def test_targets_name_figures_that_sessions_make() -> None:
    """A target whose figure is spelled otherwise would never be judged."""
    facts = {"cpu_seconds": 1.0, "busy_seconds": 1.0, "longest": 1.0, "from_first_start": 1.0}
    made = {
        figure.name
        for session in suite.SESSIONS
        for workload in suite.FULL
        for figure in suite.compared(
            session, workload, [standing(one.label, [1.0], 10, **facts) for one in session.contestants]
        )
    }
    raced = [target.figure for target in TARGETS if target.figure.partition(":")[0] in {one.name for one in suite.FULL}]
    assert len(raced) > 10
    missing = set(raced) - made - {"results: vmrun against plain writes"}
    assert not missing


def test_every_contestant_of_a_session_is_told_apart() -> None:
    for session in suite.SESSIONS:
        labels = [one.label for one in session.contestants]
        assert len(set(labels)) == len(labels)
        assert session.ours in labels
    assert Contestant("x", "y", "z").only == frozenset()


# --- the command line ---


def test_parts_are_chosen_by_name() -> None:
    everything = run_all.chosen([])
    assert everything == (list(run_all.SESSIONS), list(run_all.WORKLOADS), list(run_all.PARTS))
    assert run_all.chosen(["engine", "noops-10k"]) == (["engine"], ["noops-10k"], [])
    assert run_all.chosen(["ray"]) == (["ray"], list(run_all.WORKLOADS), [])
    assert run_all.chosen(["isolation"]) == ([], [], ["isolation"])
    with pytest.raises(ValueError, match="nonsense"):
        run_all.chosen(["engine", "nonsense"])


def test_a_part_that_fails_does_not_take_the_others_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks():
        yield Figure("before", 1)
        raise RuntimeError("broken part")

    found, failed = run_all.collect([("bad", breaks), ("good", lambda: [Figure("after", 2)])])
    assert [figure.name for figure in found] == ["before", "after"]
    assert failed == ["bad"]
    assert "broken part" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.98, "%", "98.0%"),
        (1.3e9, "bytes", "1,300 MB"),
        (0.02, "s", "0.020 s"),
        (1.5, "x", "1.50 x"),
        (5e3, "x", "5,000 x"),
    ],
)
def test_values_are_shown_with_their_unit(value: float, unit: str, text: str) -> None:
    assert run_all.unit(value, unit) == text


# --- isolation ---


def outcomes(tasks: int = 10, **changed: tuple[str, object]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [("ok", [number, False]) for number in range(tasks)]
    found[BAD] = ("failed", "raised: bad")
    for number, outcome in changed.items():
        found[int(number.strip("t"))] = outcome
    return found


@pytest.mark.parametrize(
    ("case", "found", "text", "alone"),
    [
        ("raise", outcomes(), "failed alone", True),
        ("raise", outcomes(t5=("ok", None)), "counted as success", False),
        ("state", outcomes(t5=("ok", "changed")), "nobody noticed", True),
        ("state", outcomes(t5=("ok", "changed"), t8=("ok", [8, True])), "state leaked", False),
        ("raise", outcomes(t1=("failed", "x")), "1 neighbour lost", False),
        ("raise", outcomes(t1=("failed", "x"), t9=("ok", [3, False])), "2 neighbours lost", False),
        ("raise", outcomes(t5=("missing", "")), "hung", False),
        ("raise", outcomes(t5=("missing", ""), t6=("missing", "")), "hung, 1 neighbour lost", False),
    ],
)
def test_verdicts(case: str, found, text: str, alone: bool) -> None:
    verdict = isolation.verdict(case, found)
    assert (verdict.text, verdict.alone) == (text, alone)


def test_the_page_says_how_vmrun_ended_a_task() -> None:
    row = {"vmrun": isolation.Verdict("failed alone", alone=True, said="raised: bad")}
    page = isolation.page({"raise": row}, {"vmrun": "vmrun 1"}, ["vmrun"])
    assert f"| {CASES['raise'].title} | failed alone (`raised`) |" in page
