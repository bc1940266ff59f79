"""How often the warden looks, and when it lets things be."""

from __future__ import annotations

from vmrun.agent.runner.slots import RunnerConfig
from vmrun.agent.runner.usage import Crowd, Machine
from vmrun.agent.runner.warden import LATER, SOON, Warden

GB = 10**9


class Watched(Machine):
    """A machine with as much memory left as the test says, that counts who asks."""

    def __init__(self, left: int) -> None:
        self.left, self.asked = left, 0
        self.crowds: list[Crowd] = []

    @staticmethod
    def cores() -> int:
        return 4

    def available(self) -> int:
        self.asked += 1
        return self.left


def asked_in(seconds: float, left: int, workers: int = 4, **config: int) -> int:
    """How often the memory of a machine was asked for while tasks ran."""
    machine, now = Watched(left), [0.0]
    chosen = {"memory": 60 * GB, "memory_spare": 1 * GB, **config}
    warden = Warden(
        RunnerConfig("/nowhere", workers, "job", "", "", None, 10.0, 0, 1 << 20, **chosen), machine, lambda: now[0]
    )
    while now[0] < seconds:
        warden.look([])
        now[0] += SOON
    return machine.asked


def test_the_machine_is_looked_at_the_more_often_the_less_is_left() -> None:
    seldom, often = asked_in(10, 60 * GB), asked_in(10, 2 * GB)
    assert seldom <= 10 / LATER + 1
    assert often > 4 * seldom
    # When it is short, and nobody is to blame, at every look.
    assert asked_in(10, GB // 2) >= 10 / SOON - 1


def test_workers_that_share_a_core_fill_memory_no_sooner() -> None:
    assert asked_in(10, 4 * GB, workers=128) == asked_in(10, 4 * GB, workers=4) > 2 * asked_in(10, 4 * GB, workers=1)


def test_a_machine_whose_memory_is_not_known_is_not_asked() -> None:
    assert asked_in(10, 0, memory=0) == 0


def crowd_looked_at(seconds: float, limit: int, taken: int) -> int:
    """How often processes were counted where there can be `limit`, of which `taken` are there after the first look."""
    asked, now = [0], [0.0]

    class Counted(Crowd):
        def taken(self) -> int:
            asked[0] += 1
            return taken if asked[0] > 1 else 0

    machine = Watched(1)
    machine.crowds = [Counted("it", limit)]
    warden = Warden(RunnerConfig("/nowhere", 4, "job", "", "", None, 10.0, 0, 1 << 20), machine, lambda: now[0])
    while now[0] < seconds:
        warden.look([])
        now[0] += SOON
        assert warden.due() <= now[0] + LATER
    return asked[0] - 1


def test_processes_are_counted_the_more_often_the_less_room_there_is() -> None:
    seldom, often = crowd_looked_at(10, 1_000_000, 100), crowd_looked_at(10, 8_000, 100)
    assert seldom <= 10 / LATER + 1
    assert often > 2 * seldom
    # When there are too many, and nobody here is to blame, at every look.
    assert crowd_looked_at(10, 1_000, 900) >= 10 / SOON - 1
