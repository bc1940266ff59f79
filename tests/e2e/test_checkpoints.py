"""Long tasks that save where they are: whatever ends an attempt, the next one goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_deaths import agents
from tests.support.journals import client_of
from tests.support.shell import Shell, kill, processes, until
from vmrun.core.folds import ShardFold
from vmrun.core.ledger import JobLedger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: The last ones are not taken before somebody was killed, however late a busy computer is to do it.
STEPS, HELD = 60, 50
LONG = """
    import os, time
    import vmrun

    class State:
        def __init__(self, step, seen):
            self.step, self.seen = step, seen

    @vmrun.job(over=range(2), workers=2, retries=0)
    def task(x):
        state = vmrun.restored() or State(0, [])
        assert isinstance(state, State)
        while state.step < {steps}:
            while state.step >= {held} and not os.path.exists({gate!r}):
                time.sleep(0.05)
            with open({trace!r}, "a") as file:
                file.write(f"{{x}} {{state.step}} {{os.getpid()}}\\n")
            time.sleep(0.1)
            state = State(state.step + 1, [*state.seen, state.step])
            vmrun.checkpoint(state)
        return state.seen
"""


@pytest.fixture
def gate(shell: Shell) -> Path:
    """The file for which the last steps wait."""
    return shell.home / "gate"


@pytest.fixture
def trace(shell: Shell, gate: Path) -> Path:
    path = shell.home / "trace"
    path.touch()
    shell.write("long.py", LONG.format(steps=STEPS, held=HELD, gate=str(gate), trace=str(path)))
    return path


def steps(trace: Path, task: int = 0) -> list[tuple[int, int]]:
    """(step, process) of one task, in order, as far as whole lines were written."""
    rows = [line.split() for line in trace.read_text().splitlines() if line.count(" ") == 2]
    return [(int(step), int(process)) for number, step, process in rows if int(number) == task]


def shard(shell: Shell, job: str) -> ShardFold:
    """The first one, as its journal tells it."""
    client = client_of(shell)
    ledger = JobLedger(client.desk, job)
    plan = next(ledger.refresh().shards())
    return ledger.shard(plan).catch_up()


def check(shell: Shell, trace: Path, job: str, attempts: int) -> None:
    """Both tasks took every step, and of a later attempt only those that had not been saved before."""
    assert shell.wait(job)["state"] == "done"
    assert shell.ask("result", job)["results"] == [list(range(STEPS))] * 2
    taken = steps(trace)
    assert sorted({step for step, _ in taken}) == list(range(STEPS))
    assert len({process for _, process in taken}) == attempts
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


def test_a_worker_is_killed_and_the_next_attempt_goes_on_from_its_last_state(
    shell: Shell, trace: Path, gate: Path
) -> None:
    job = shell.submit("long.py")
    until(lambda: len(steps(trace)) > 5, 60, "steps are taken")
    kill(steps(trace)[-1][1])
    gate.touch()
    check(shell, trace, job, attempts=2)
    # It was on the machine's own disk: at most the step that was under way is taken again
    assert len(steps(trace)) <= STEPS + 1


def test_an_agent_is_killed_and_the_next_one_goes_on_from_what_the_store_has(
    shell: Shell, trace: Path, gate: Path
) -> None:
    job = shell.submit("long.py")
    saved = until(lambda: shard(shell, job).saved, 60, "states are in the store")
    assert set(saved) <= {0, 1}
    until(lambda: len(shard(shell, job).saved) == 2, 60, "of both tasks")
    for number in agents(shell):
        kill(number)
    gate.touch()
    check(shell, trace, job, attempts=2)
    # The second attempt did not begin at the beginning
    first, second = (process for process in dict.fromkeys(process for _, process in steps(trace)))
    begun = next(step for step, process in steps(trace) if process == second)
    assert 0 < begun <= max(step for step, process in steps(trace) if process == first) + 1
    assert first != second
    # And nothing that was saved is left in the store
    client = client_of(shell)
    assert shard(shell, job).saved == {}
    assert list(client.desk.store.list(f"jobs/{job}/states/")) == []


def test_a_program_in_any_language_saves_itself_by_a_rename(shell: Shell) -> None:
    shell.write(
        "count.sh",
        """
        state="$VMRUN_CHECKPOINTS/$VMRUN_TASK"
        n=$(cat "$state" 2> /dev/null || echo 0)
        echo "from $n" >> "$1"
        while [ "$n" -lt 40 ]; do
            n=$((n + 1))
            sleep 0.1
            echo "$n" > "$state.new" && mv "$state.new" "$state"
            while [ "$n" -ge 20 ] && [ ! -e "$2" ]; do sleep 0.1; done
        done
        echo "reached $n"
        """,
    )
    begun, killed = shell.home / "begun", shell.home / "killed"
    program = ("sh", str(shell.home / "count.sh"), str(begun), str(killed))
    job = shell.run("submit", "--detach", "--", *program).stdout.strip()
    until(lambda: shard(shell, job).saved, 60, "its state is in the store")
    for number in agents(shell):
        kill(number)
    killed.touch()
    assert shell.wait(job)["state"] == "done"
    assert "reached 40" in shell.run("logs", job).stdout
    first, second = begun.read_text().splitlines()
    assert first == "from 0"
    assert 0 < int(second.removeprefix("from ")) < 40
