"""What is shown, without a screen: escapes, tables, progress, prefixes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.fakes import NOW, VM, failure, job_view, vm_view, wrote
from vmrun.core.views import OutputChunk, Snapshot, TaskCounts, Verdict
from vmrun.rendering import failures, tables
from vmrun.rendering.output import LONGEST_LINE, UNFINISHED_MAX, LinePrefixer, TextDecoder
from vmrun.rendering.pace import Pace
from vmrun.rendering.progress import LinePacer, Progress
from vmrun.rendering.text import Style, ends, money, safe_repr, short_duration, shorten, visible, width_of

TERMINAL = Style(color=True, unicode=True, width=80)


# --- text ---


@given(st.text())
def test_visible_text_moves_no_cursor_and_hides_nothing(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200f")
    assert visible(shown) == shown


def test_visible_leaves_what_people_write() -> None:
    for text in ("../x", "naïve café", "🚀 👩‍🚀", "日本語", "שלום"):
        assert visible(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=("C", "M", "Z"))), st.integers(0, 30), st.booleans())
def test_shortened_text_fits(text: str, width: int, uni: bool) -> None:
    short = shorten(text, width, Style(unicode=uni))
    assert width_of(short) <= max(width, 0)
    if width_of(text) <= width:
        assert short == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (59.4, "59s"),
        (60, "1m"),
        (720, "12m"),
        (5399, "90m"),
        (7200, "2h"),
        (86400, "24h"),
        (400_000, "5d"),
    ],
)
def test_short_durations(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


def test_ends() -> None:
    assert ends(NOW + 720, "idle", NOW) == "in 12m because idle"
    assert ends(NOW - 1, "lease", NOW) == "overdue because lease"
    assert ends(0, "x", NOW) == ""


def test_money() -> None:
    assert [money(None), money(0), money(0.001), money(1.5)] == ["?", "$0.00", "<$0.01", "$1.50"]


def test_safe_repr_is_cut() -> None:
    assert safe_repr("x" * 100, limit=10) == "'xxxxxxxxx... (102 characters)"


# --- tables ---


@pytest.mark.parametrize("width", [1, 10, 40, 79, 80, 120, 300])
def test_a_table_fits_or_is_stacked(width: int) -> None:
    views = [job_view(name="n" * 120), job_view("running", name="🚀" * 50, tasks=TaskCounts(2000, 10, 3, 8))]
    lines = tables.jobs(views, NOW, Style(width=width))
    if lines[0].startswith("JOB  "):
        assert len(lines) == 3
        assert all(width_of(line) <= width for line in lines)
    else:
        assert width < 80
        assert f"NAME {'n' * 120}" in lines, "where it is stacked nothing is cut"


def test_a_table_without_a_terminal_cuts_nothing() -> None:
    lines = tables.jobs([job_view(name="n" * 300)], NOW, Style())
    assert "n" * 300 in lines[1]


def test_columns_that_are_empty_are_left_out() -> None:
    header = tables.vms([vm_view(region="", busy_because="")], NOW, Style())[0]
    assert "REGION" not in header
    assert "BUSY" not in header


@pytest.mark.parametrize(("state", "when"), [("draining", "now"), ("deleting", "now"), ("ready", "overdue")])
def test_a_vm_that_is_leaving_is_not_overdue(state: str, when: str) -> None:
    header, row = tables.vms([vm_view(state=state, region="", ends_at=NOW - 60, busy_because="")], NOW, Style())
    assert row[header.index("ENDS") :].startswith(when)


@pytest.mark.parametrize("state", ["gone", "failed"])
def test_a_vm_that_is_no_more_does_not_end(state: str) -> None:
    assert "ENDS" not in tables.vms([vm_view(state=state)], NOW, Style())[0]


def test_a_vm_that_had_vanished_is_neither_kept_nor_deleted() -> None:
    judged = [Verdict(VM, "docker", "vanished", delete=False, reason="not in the cloud's listing")]
    assert tables.verdicts(judged, Style(), dry_run=False)[1].split()[:4] == [VM, "docker", "gone", "vanished"]


def test_ascii_ellipsis() -> None:
    assert tables.jobs([job_view(name="n" * 120)], NOW, Style(unicode=False, width=100))[1].isascii()


# --- failures ---


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "raised ValueError: bad seed"),
        ({"message": ""}, "raised ValueError"),
        ({"kind": "exited", "exit": 3}, "exited with code 3"),
        ({"kind": "signalled", "exit": 11}, "was killed by SIGSEGV"),
        ({"kind": "signalled", "exit": 250}, "was killed by signal 250"),
        (
            {"kind": "signalled", "exit": 9, "message": "killed by SIGKILL (from outside); its memory peaked at 2 GB"},
            "was killed by SIGKILL (from outside); its memory peaked at 2 GB",
        ),
        ({"kind": "timeout", "message": "5m"}, "took longer than its limit: 5m"),
        ({"kind": "unpicklable", "message": "a lock"}, "gave a result that cannot be pickled: a lock"),
        ({"kind": "lost", "message": ""}, "was lost with its machine"),
        ({"kind": "novel", "message": "x"}, "failed (novel): x"),
    ],
)
def test_what_happened(changes: dict, text: str) -> None:
    assert failures.what_happened(failure(**changes)) == text


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    trace = "\n".join(f"line {number}" for number in range(1000))
    lines = list(failures.details(job_view("failed"), [failure(traceback=trace)]))
    assert len(lines) < 60
    assert "  line 0" in lines
    assert "  line 999" in lines
    assert "  ... 960 lines left out ..." in lines


def test_a_program_that_cannot_be_started_shows_no_traceback_of_ours() -> None:
    view = job_view("failed", kind="command", tasks=TaskCounts(1, 0, 1))
    failed = failure(0, type="FileNotFoundError", message="[Errno 2] No such file or directory: 'simulate'")
    assert list(failures.details(view, [failed])) == []
    message, hint = failures.summary(view, [failed])
    assert message == "the program cannot be started: [Errno 2] No such file or directory: 'simulate'"
    assert "./program" in hint


@pytest.mark.catalogue(34)
@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"type": "ModuleNotFoundError", "message": "No module named 'cv2.data'"}, "`--with cv2` installs a package"),
        ({"kind": "oom", "type": "", "message": "more than 8 GB"}, "raise --task-memory"),
        ({"kind": "timeout", "type": "", "message": "5 seconds"}, "raise --task-timeout"),
        ({}, "`vmrun logs"),
    ],
)
def test_where_an_option_helps_it_is_named_first(changes: dict, advice: str) -> None:
    view = job_view("failed")
    _, hint = failures.summary(view, [failure(**changes)])
    assert hint.startswith(advice)
    assert f"`vmrun logs {view.id}" in hint
    assert "\n" not in hint


def test_the_reduce_is_called_so() -> None:
    view = job_view("failed", reduce=True, tasks=TaskCounts(5, 4, 1))
    assert failures.summary(view, [failure(4)])[0] == "the reduce raised ValueError: bad seed"


# --- pace and progress ---


def test_pace() -> None:
    pace = Pace()
    assert pace.rate == 0.0
    assert pace.remaining(10) is None
    for second in range(100):
        pace.see(second * 5, second)
    assert pace.rate == pytest.approx(5)
    assert pace.remaining(100) == pytest.approx(20)


def test_pace_follows_a_change_and_looks_at_no_more_than_it_must() -> None:
    pace = Pace()
    for tick in range(100_000):
        now = tick / 1000
        pace.see(int(now * 10 if now < 50 else 500 + (now - 50) * 100), now)
    assert pace.rate == pytest.approx(100, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1e9)), max_size=50))
def test_pace_never_fails(seen: list[tuple[int, float]]) -> None:
    pace = Pace()
    for finished, now in seen:
        pace.see(finished, now)
        assert pace.rate >= 0


def shown(progress: Progress, now: float, style: Style) -> str:
    return "\n".join(progress.lines(now, style))


@pytest.mark.parametrize("style", [TERMINAL, Style(unicode=False, width=30), Style(width=1)])
def test_live_lines_fit(style: Style) -> None:
    progress = Progress(0.0)
    progress.stage("building the machine image " + "x" * 200)
    assert width_of(shown(progress, 1.0, style)) <= max(style.width, 20)
    views = tuple(vm_view(id=f"vm{number}", doing="installs packages") for number in range(6))
    progress.see(Snapshot(job_view("running", vms=views, tasks=TaskCounts(200, 50, 3, 8)), "tasks"), 2.0)
    progress.see(Snapshot(job_view("running", vms=views, tasks=TaskCounts(200, 100, 3, 8)), "tasks"), 12.0)
    lines = progress.lines(13.0, style)
    assert all(width_of(line) < max(style.width, 21) for line in lines)
    # The stage, four VMs and how many more, and the tasks on as many lines as they need.
    assert (len(lines) == 7) is (style.width >= 80)
    assert style.unicode or "".join(lines).isascii()


def test_live_lines_say_all_that_was_promised() -> None:
    progress = Progress(0.0)
    progress.see(Snapshot(job_view("running", tasks=TaskCounts(200, 50, 3, 8)), "tasks"), 2.0)
    progress.see(Snapshot(job_view("running", tasks=TaskCounts(200, 100, 3, 8)), "tasks"), 12.0)
    text = shown(progress, 13.0, Style(width=200))
    for part in ("tasks", "13s", "ready", "100/200 tasks done", "3 failed", "8 running", "5/s", "19s left", "█"):
        assert part in text


def test_the_time_before_tasks_ran_does_not_slow_the_forecast() -> None:
    progress = Progress(0.0)
    for now, tasks in ((0.0, TaskCounts(100)), (60.0, TaskCounts(100, 0, 0, 2)), (70.0, TaskCounts(100, 20, 0, 2))):
        progress.see(Snapshot(job_view("running", tasks=tasks), "running"), now)
    assert "2/s · 40s left" in progress.line(70.0, Style())


def test_a_narrow_terminal_loses_neither_counts_nor_the_vms_state() -> None:
    progress, style = Progress(0.0), Style(width=40)
    views = (vm_view(on="local", instance_type="local", doing="running"),)
    progress.see(Snapshot(job_view("running", vms=views, tasks=TaskCounts(200, 50, 3, 8)), "running"), 2.0)
    progress.see(Snapshot(job_view("running", vms=views, tasks=TaskCounts(200, 100, 3, 8)), "running"), 12.0)
    head, machine, *tasks = progress.lines(13.0, style)
    assert head.endswith(" 13s · running")
    assert machine.startswith("  local ready · 2 vCPUs · 01hzy"), "said once, and first what matters"
    assert tasks == ["█████░░░░░ 100/200 tasks done", "  3 failed · 8 running · 5/s · 19s left"]


def test_a_hostile_name_of_a_stage_is_escaped() -> None:
    progress = Progress(0.0)
    progress.stage("\x1b[2J")
    assert "\x1b" not in progress.line(1.0, Style()) + shown(progress, 1.0, Style(width=80))


def test_plain_lines_come_with_changes_and_seldom_without() -> None:
    progress, pacer = Progress(0.0), LinePacer()
    assert pacer.due(progress, 0.0)
    assert not pacer.due(progress, 30.0)
    assert pacer.due(progress, 60.0), "a long silence is broken"
    progress.stage("building the image 1%")
    assert pacer.due(progress, 61.0)
    progress.stage("building the image 2%")
    assert not pacer.due(progress, 62.0), "only a number has changed"
    assert pacer.due(progress, 66.0)
    progress.stage("booting")
    assert not pacer.due(progress, 66.1), "never one line on the other's heels"
    assert pacer.due(progress, 66.6)


# --- output ---


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["stdout", "stderr"]),
            st.binary(max_size=20).map(lambda b: b.replace(b"\r", b".")),
        ),
        max_size=30,
    )
)
def test_prefixed_lines_are_the_tasks_lines(pieces: list[tuple[int, str, bytes]]) -> None:
    prefixer = LinePrefixer()
    out = {"stdout": b"", "stderr": b""}
    for task, stream, data in pieces:
        out[stream] += prefixer.feed(OutputChunk(task, 0, stream, data))
    for stream, line in prefixer.flush():
        out[stream] += line
    for stream, text in out.items():
        for task in range(4):
            written = b"".join(data for of, where, data in pieces if (of, where) == (task, stream))
            mark = b"[%d] " % task
            lines = [line[len(mark) :] for line in text.split(b"\n") if line.startswith(mark)]
            expected = written.split(b"\n")
            assert lines == (expected[:-1] if expected[-1] == b"" else expected)
    assert list(prefixer.flush()) == []


def test_lines_of_a_further_attempt_say_so() -> None:
    prefixer = LinePrefixer()
    assert prefixer.feed(OutputChunk(4, 0, "stdout", b"begun\n")) == b"[4] begun\n"
    assert prefixer.feed(OutputChunk(4, 1, "stdout", b"begun\n")) == b"[4, attempt 2] begun\n"


def test_prefixer_holds_little() -> None:
    prefixer = LinePrefixer()
    assert len(prefixer.feed(wrote("x" * (LONGEST_LINE + 1)))) > LONGEST_LINE
    shown = [prefixer.feed(wrote("x", task)) for task in range(UNFINISHED_MAX + 5)]
    assert sum(bool(lines) for lines in shown) == 5
    assert shown[-1] == b"[4] x\n"


@given(st.text(), st.integers(1, 3))
def test_decoder_puts_cut_characters_together(text: str, size: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    data, decoder = text.encode(), TextDecoder()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert "".join(decoder.feed(OutputChunk(0, 1, "stdout", piece)) for piece in pieces) == text


@pytest.mark.catalogue(48)
def test_decoder_escapes_what_is_no_text() -> None:
    assert TextDecoder().feed(OutputChunk(0, 1, "stdout", b"a\xff\n")) == "a\\xff\n"


def test_the_meter_adds_up_what_is_there() -> None:
    views = [
        vm_view(usd_per_hour=1.5, usd=0.75),
        vm_view(usd_per_hour=0.25, usd=0.05),
        vm_view(usd_per_hour=9.0, usd=9.0, state="gone"),
    ]
    assert tables.meter(views) == ["", "2 VMs: $1.7500 an hour, $0.80 so far"]
    unknown = [*views, vm_view(usd_per_hour=None, usd=0.0)]
    assert tables.meter(unknown)[1].endswith("an hour, $0.80 so far, and 1 at a price that is not known")
    assert tables.meter([vm_view(usd_per_hour=0.0, usd=0.0)]) == tables.meter([]) == []
