"""What tasks took in earlier jobs is found again by what they call, and by what the job is called."""

from __future__ import annotations

from tests.support.journals import client_of
from tests.support.shell import Shell
from vmrun.submit.sizing import identity
from vmrun.watch.experience import READ_MAX, past_runs
from vmrun.watch.observe import submission_of

MB = 10**6
JOB = """
    import vmrun

    @vmrun.job(over=range(6), workers=1)
    def hungry(x):
        kept = [bytes(range(250)) * 10_000 for _ in range(SIZE)]
        return len(kept)
"""


def test_the_newest_jobs_with_the_same_function_come_first(shell: Shell) -> None:
    small, large = JOB.replace("SIZE", "20"), JOB.replace("SIZE", "60")
    shell.write("job.py", small)
    first = shell.ask("submit", "job.py")["job"]["id"]
    shell.write("job.py", large)
    second = shell.ask("submit", "job.py", "--name", "renamed")["job"]["id"]
    third = shell.ask("submit", "job.py")["job"]["id"]
    client = client_of(shell)
    specs = {}
    for job in (first, second, third):
        submit = submission_of(client.desk, job)
        assert submit is not None
        specs[job] = submit.spec
    assert identity(specs[first]) != identity(specs[second]) == identity(specs[third])
    same = past_runs(client.desk, lambda past: identity(past) == identity(specs[third]))
    assert [stats.job for _, stats in same] == [third, second]
    for spec, stats in same:
        assert spec == specs[stats.job]
        assert (stats.ended, stats.kinds) == (6, {"ok": 6})
        assert 150 * MB < stats.peak_bytes < 220 * MB
    named = past_runs(client.desk, lambda past: past.name == "job")
    assert [stats.job for _, stats in named] == [third, first]
    assert 50 * MB < named[1][1].peak_bytes < 120 * MB
    assert past_runs(client.desk, lambda past: past.name == "unknown") == []


def test_what_cannot_be_trusted_is_left_out_and_no_more_is_read_than_helps(shell: Shell) -> None:
    shell.write("job.py", JOB.replace("SIZE", "1"))
    jobs = [shell.ask("submit", "job.py")["job"]["id"] for _ in range(READ_MAX + 2)]
    client = client_of(shell)
    assert [stats.job for _, stats in past_runs(client.desk, lambda past: True)] == jobs[: -READ_MAX - 1 : -1]
    # Given that somebody damaged the newest one's outcomes
    store = shell.home / ".local/share/vmrun/store"
    for entry in (store / "jobs" / jobs[-1] / "shards").rglob("*"):
        if entry.is_file():
            entry.chmod(0o600)
            entry.write_bytes(entry.read_bytes()[:-20] + b"x" * 20)
    found = past_runs(client_of(shell).desk, lambda past: True)
    assert [stats.job for _, stats in found] == jobs[-2 : -READ_MAX - 2 : -1]
