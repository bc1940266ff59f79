"""The reaper that stays: passes at intervals, through errors, until it is told to stop; and whom it tells."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.core.world import VM, ManualClock
from vmrun.core.clouds import CloudError
from vmrun.core.errors import ConfigError, StoreUnavailable
from vmrun.core.views import Verdict
from vmrun.reaper.notify import Notifier
from vmrun.reaper.service import LONGEST, Health, Pass, Service, Stop, pause

KEEP = Verdict(VM, "docker", "keep", delete=False, reason="it works on a job")
OVER = Verdict(VM, "docker", "expired", delete=True, reason="its maximum lifetime ended 1m ago")


class Bench:
    """A service whose passes do what the test says."""

    def __init__(self, *passes: object, every: float = 60.0, lasting: float = float("inf")) -> None:
        self.clock, self.stop = ManualClock(), Stop()
        self.began: list[float] = []
        self.done: list[Pass] = []
        self.passes = list(passes)
        self.service = Service(
            self.sweep, every, self.clock, Notifier({}, self.clock), self.done.append, self.stop, lasting=lasting
        )

    def sweep(self, note: Callable[[str], None], stopping: Callable[[], bool]) -> list[Verdict]:
        self.began.append(self.clock.monotonic())
        found = self.passes.pop(0)
        if not self.passes:
            self.stop.ask()
        assert stopping() is not bool(self.passes)
        if isinstance(found, Exception):
            raise found
        note("docker: not judged")
        return list(found)  # type: ignore[call-overload]

    @property
    def gaps(self) -> list[float]:
        return [round(after - before) for before, after in zip(self.began, self.began[1:], strict=False)]


def test_it_passes_again_and_tells_what_is_new() -> None:
    bench = Bench([KEEP], [KEEP], [OVER], [KEEP])
    assert bench.service.run() == 4
    assert bench.gaps == [60, 60, 60]
    assert [list(done.news) for done in bench.done] == [[KEEP], [], [OVER], [KEEP]]
    assert [done.deleted for done in bench.done] == [0, 0, 1, 0]
    assert bench.done[0].notes == ["docker: not judged"]


def test_errors_are_survived_with_a_pause_that_grows_and_is_bounded() -> None:
    down = [StoreUnavailable("no answer"), CloudError("no"), ConfigError("another's")] * 3
    bench = Bench([KEEP], *down, [KEEP], [KEEP])
    assert bench.service.run() == 12
    assert bench.gaps == [60, 120, 240, 480, 900, 900, 900, 900, 900, 900, 60]
    assert [done.error is None for done in bench.done] == [True, *[False] * 9, True, True]
    # What was the same before the errors is no news after them
    assert not bench.done[-2].news


@pytest.mark.parametrize(("every", "failures", "seconds"), [(60, 0, 60), (60, 1, 120), (3600, 5, 3600), (1, 99, 900)])
def test_the_pause(every: float, failures: int, seconds: float) -> None:
    assert pause(every, failures) == seconds <= max(every, LONGEST)


def test_what_can_never_work_ends_it_at_once() -> None:
    bench = Bench(ConfigError("the key is another's"), [KEEP])
    with pytest.raises(ConfigError):
        bench.service.run()
    assert len(bench.began) == 1


def test_it_ends_after_the_time_that_it_was_given() -> None:
    bench = Bench(*[[KEEP]] * 100, lasting=300.0)
    assert bench.service.run() == 5
    assert bench.clock.monotonic() - bench.began[0] < 300


def test_a_request_to_stop_is_noticed_while_it_waits() -> None:
    bench = Bench([KEEP], [KEEP], every=1000.0)
    sleep = bench.clock.sleep

    def interrupted(seconds: float) -> None:
        sleep(seconds)
        bench.stop.ask(signal.SIGTERM, None)

    bench.clock.sleep = interrupted  # type: ignore[method-assign]
    assert bench.service.run() == 1
    assert bench.clock.monotonic() - bench.began[0] < 1


def test_the_health_file_says_how_the_last_pass_went(tmp_path: Path) -> None:
    file = tmp_path / "reaper.json"
    bench = Bench([KEEP, OVER], StoreUnavailable("no answer", hint="wait"))
    bench.service.health = Health(file, bench.clock, 60.0)
    seen: list[dict[str, object]] = []
    bench.service.report = lambda done: seen.append(json.loads(file.read_text()) if file.exists() else {})
    began = bench.clock.now()
    bench.service.run()
    assert seen[0] == {}
    assert (seen[1]["ok"], seen[1]["running"], seen[1]["vms"], seen[1]["deleted"]) == (True, True, 2, 1)
    last = json.loads(file.read_text())
    assert (last["schema"], last["ok"], last["running"], last["passes"], last["failures"]) == (1, False, False, 2, 1)
    assert last["error"] == {"code": "store-unavailable", "message": "no answer", "hint": "wait"}
    assert last["last_good"] == pytest.approx(began, abs=1)
    assert last["last_pass"] == pytest.approx(began + 60, abs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["reaper.json"]


def test_a_health_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    bench = Bench([KEEP], [KEEP])
    bench.service.health = Health(tmp_path / "missing" / "x.json", bench.clock, 60.0)
    with pytest.raises(ConfigError, match="cannot be written"):
        bench.service.run()


def test_a_health_file_that_cannot_be_written_any_more_does_not_end_it(tmp_path: Path) -> None:
    bench = Bench([KEEP], [KEEP], [KEEP], [KEEP])
    folder = tmp_path / "run"
    folder.mkdir()
    bench.service.health = Health(folder / "x.json", bench.clock, 60.0)
    sleep, away = bench.clock.sleep, tmp_path / "away"

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        # Given a disk that is gone for two of the passes
        if len(bench.done) == 1 and folder.exists():
            folder.rename(away)
        elif len(bench.done) == 3 and away.exists():
            away.rename(folder)

    bench.clock.sleep = sleeping  # type: ignore[method-assign]
    assert bench.service.run() == 4
    assert json.loads((folder / "x.json").read_text())["passes"] == 4


@pytest.fixture
def listener(isolated: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(isolated / "notify"))
        listening.setblocking(False)
        yield listening  # type: ignore[misc]


def heard(listening: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(listening.recv(4096).decode())
    except BlockingIOError:
        return found


def test_systemd_is_told(listener: socket.socket, isolated: Path) -> None:
    clock = ManualClock()
    environ = {"NOTIFY_SOCKET": str(isolated / "notify"), "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}
    bench = Bench([KEEP], [OVER], every=20.0)
    bench.service.notifier = Notifier(environ, bench.clock, pid=7)
    bench.service.run()
    told = heard(listener)
    assert told[0] == "READY=1"
    assert told[-1] == "STOPPING=1"
    assert "STATUS=pass 2: 1 judged, 1 deleted" in told
    # Twice in ten seconds, over the twenty of the pause
    assert 4 <= told.count("WATCHDOG=1") <= 6
    Notifier(environ, clock, pid=8).alive()
    assert heard(listener) == []


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all", "@vmrun-test-nobody"])
def test_where_nobody_listens_nothing_happens(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "x"}, ManualClock())
    notifier.ready()
    notifier.alive()
    notifier.stopping()
