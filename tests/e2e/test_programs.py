"""Programs of the user's own, and machines that nobody watched to their end."""

from __future__ import annotations

import pytest

from tests.support.shell import Shell, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_a_program_given_by_its_path_comes_along(shell: Shell) -> None:
    shell.write("bin/simulate", '#!/bin/sh\necho "$0 ${0##*/}" >&2\necho "simulated $*"\n').chmod(0o755)
    done = shell.run("submit", "--", "bin/simulate", "--seed", "a b")
    assert done.stdout == "simulated --seed a b\n"
    assert str(shell.home / "bin") not in done.stderr, "what ran is the copy that travelled"


def test_a_program_that_nobody_has_says_so_without_a_traceback(shell: Shell) -> None:
    ours = shell.run("submit", "--", "./simulate", exit_code=2)
    assert "no program './simulate' here" in ours.stderr
    theirs = shell.run("submit", "--", "no-such-program", exit_code=6)
    assert "the program cannot be started" in theirs.stderr
    assert "Traceback" not in theirs.stderr


def test_a_machine_whose_job_was_left_is_not_listed_when_it_is_gone(shell: Shell) -> None:
    shell.write("quick.py", "print('quick')\n")
    job = shell.submit("quick.py")
    until(lambda: shell.ask("status", job)["job"]["state"] == "done", 60, "the job is done")
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")
    assert shell.ask("status")["vms"] == []
    assert shell.ask("status", job)["job"]["vms"][0]["state"] == "gone"
