"""The smaller verbs: wait, cancel, ssh, reap, init, and what holds for all."""

from __future__ import annotations

import os
import stat
import tomllib

import pytest

from tests.unit.cli.fakes import JOB, VM, FakeHandle, failure, job_view
from vmrun.commands import VERBS
from vmrun.core import errors
from vmrun.core.clouds import CloudError
from vmrun.core.views import JobResults
from vmrun.fleet.login import remote_words

# --- wait ---


def test_wait_watches_to_the_end(vmrun, client) -> None:
    client.job = FakeHandle(views=[job_view("running"), job_view()])
    done = vmrun("wait", JOB)
    assert (done.code, done.out) == (0, "")
    assert "done: 4 tasks" in done.err
    assert ("revive", JOB) in client.calls
    assert client.job.calls == [("watch", False)]


def test_wait_tells_before_it_gives_back_the_machine_that_it_got(vmrun, client, capsys) -> None:
    told = []
    client.settling = lambda: told.append(capsys.readouterr())
    assert vmrun("wait", JOB).code == 0
    assert "done: 4 tasks" in told[0].err
    assert client.calls[-1] == ("settle", JOB)


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 6), ("cancelled", 8)])
def test_wait_exits_as_the_job_ended(vmrun, client, state, code) -> None:
    client.job = FakeHandle(views=[job_view(state)], given=JobResults([1, None], [failure()]))
    assert vmrun("wait", JOB).code == code
    done = vmrun("wait", JOB, "--json", "--timeout", "1h")
    assert done.code == code
    assert done.document["job"]["state"] == state
    assert ("wait", 3600.0) in client.job.calls


def test_wait_in_vain(vmrun, client) -> None:
    client.job.views = [job_view("running")]
    done = vmrun("wait", JOB, "--timeout", "10s", "--json")
    assert done.code == 1
    assert done.document["error"] == {
        "code": "timeout",
        "message": f"job {JOB} is still running",
        "hint": "it goes on; wait longer, or look at `vmrun status`",
        "retryable": True,
    }


def test_wait_with_a_bad_timeout(vmrun, client) -> None:
    done = vmrun("wait", JOB, "--timeout", "soon")
    assert done.code == 2
    assert "--timeout: 'soon' is not a duration" in done.err
    assert client.calls == []


def test_ctrl_c_ends_the_waiting(vmrun, client) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    client.job = FakeHandle(views=[job_view("running"), job_view()], between=interrupt)
    done = vmrun("wait", JOB)
    assert done.code == 130
    assert f"stopped waiting; job {JOB} goes on" in done.err


# --- cancel ---


def test_cancel(vmrun, client) -> None:
    client.job.views = [job_view("cancelled")]
    done = vmrun("cancel", JOB)
    assert (done.code, done.out) == (0, f"job {JOB} is cancelled\n")
    assert vmrun("cancel", JOB, "--json").document["cancelled"] is True


def test_cancel_what_had_ended(vmrun, client) -> None:
    client.job.cancels = False
    assert vmrun("cancel", JOB).out == f"job {JOB} had ended already: done\n"
    assert vmrun("cancel", JOB, "--json").document["cancelled"] is False


# --- ssh ---


def test_ssh_becomes_the_program(vmrun, monkeypatch) -> None:
    became = []
    monkeypatch.setattr(os, "execvp", lambda program, argv: became.append((program, argv)))
    vmrun("ssh", VM, "--", "ls", "a b", "$HOME")
    assert became == [("ssh", ["ssh", "-p", "2222", "vmrun@127.0.0.1", "ls 'a b' '$HOME'"])]


def test_remote_words() -> None:
    assert remote_words(()) == []
    assert remote_words(("ps ax | head",)) == ["ps ax | head"]
    assert remote_words(("df", "-h")) == ["df -h"]


def test_ssh_as_json_prints_the_command_line(vmrun) -> None:
    assert vmrun("ssh", VM, "--json", "--", "df", "-h").document["argv"][-1] == "df -h"


def test_ssh_into_a_job_and_past_it(vmrun, client) -> None:
    vmrun("ssh", JOB, "--json", "--", "vmrun-again", "7")
    vmrun("ssh", VM, "--plain", "--json")
    assert client.calls == [("ssh_argv", JOB, ("vmrun-again", "7"), False), ("ssh_argv", VM, (), True)]


def test_release_says_what_became_of_the_machine(vmrun, client) -> None:
    done = vmrun("release", JOB)
    assert (done.code, done.out) == (0, f"VM {VM} is gone\n")
    assert vmrun("release", JOB, "--json").document == {"schema": 1, "ok": True, "vm": VM, "gone": True}
    assert client.calls == [("release", JOB)] * 2


def test_ssh_that_is_not_installed(vmrun, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = vmrun("ssh", VM)
    assert done.code == 2
    assert "ssh cannot be started: No such file or directory" in done.err


# --- reap ---


def test_reap_prints_each_verdict_and_its_reason(vmrun, client) -> None:
    done = vmrun("reap")
    assert client.calls == [("reap", False, False)]
    assert "deleted" in done.out
    assert "keep" in done.out
    assert "idle for 20m" in done.out


def test_reap_dry_run(vmrun, client) -> None:
    done = vmrun("reap", "--dry-run", "--all")
    assert client.calls == [("reap", True, True)]
    assert "would delete" in done.out


def test_reap_document(vmrun) -> None:
    document = vmrun("reap", "--json").document
    assert document["verdicts"][0] == {
        "vm": VM,
        "on": "docker",
        "policy": "idle",
        "delete": True,
        "reason": "idle for 20m",
    }


def test_reap_all_asks_somebody(vmrun, client) -> None:
    done = vmrun("reap", "--all")
    assert done.code == 2
    assert "--yes" in done.err
    assert client.calls == []
    vmrun("reap", "--all", "--yes")
    assert client.calls == [("reap", False, True)]


@pytest.mark.parametrize(("answer", "calls"), [("y\n", 2), ("n\n", 1), ("\n", 1), ("", 1)])
def test_reap_all_at_a_terminal_lists_what_it_would_delete(vmrun, client, monkeypatch, answer, calls) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    done = vmrun("reap", "--all")
    assert done.code == 0
    assert VM in done.err
    # What came while the question stood was not agreed to.
    asked, agreed = ("reap", True, True), ("reap", False, True, {VM})
    assert client.calls == [asked, agreed][:calls]


# --- init ---


def test_init_writes_a_file_that_is_valid_and_sets_nothing(vmrun, here) -> None:
    done = vmrun("init")
    assert done.out == f"wrote {here / 'vmrun.toml'}\n"
    tables = tomllib.loads((here / "vmrun.toml").read_text(encoding="utf-8"))
    assert set(tables) >= {"defaults", "store", "vm"}
    assert all(table == {} for table in tables.values())
    assert stat.S_IMODE((here / "vmrun.toml").stat().st_mode) == 0o600


def test_init_never_overwrites(vmrun, here) -> None:
    (here / "vmrun.toml").write_text("mine")
    done = vmrun("init", "--json")
    assert done.code == 2
    assert done.document["error"]["code"] == "config"
    assert (here / "vmrun.toml").read_text() == "mine"


def test_init_for_the_user(vmrun, here, monkeypatch) -> None:
    monkeypatch.setenv("VMRUN_CONFIG_DIR", str(here / "deep" / "config"))
    assert vmrun("init", "--user", "--json").document["written"] == str(here / "deep" / "config" / "vmrun.toml")


def test_init_docker(vmrun, client) -> None:
    done = vmrun("init", "docker")
    assert done.code == 0
    assert "building the machine image 40%" in done.err
    assert client.calls == [("init_docker",)]


def test_init_of_something_else(vmrun, client) -> None:
    assert vmrun("init", "moon").code == 2
    assert client.calls == []


# --- all ---

ARGUMENTS = {
    "submit": ["--", "true"],
    "status": [],
    "logs": [JOB],
    "result": [JOB],
    "plot": [JOB],
    "wait": [JOB],
    "cancel": [JOB],
    "cost": [],
    "ssh": [VM],
    "release": [VM],
    "why": [VM],
    "reap": [],
    "up": [],
    "down": [],
    "init": ["docker"],
    "doctor": [],
}
#: Verbs that open no deployment, whose errors are tested where they are.
WITHOUT_DEPLOYMENT = ("offers",)
ERRORS = [
    (errors.UsageError, 2),
    (errors.ConfigError, 2),
    (errors.StoreDenied, 3),
    (errors.Corrupt, 3),
    (errors.CapacityError, 4),
    (CloudError, 4),
    (errors.Unreachable, 5),
    (errors.JobFailed, 6),
    (errors.BudgetError, 7),
    (errors.JobCancelled, 8),
    (errors.Denied, 9),
]


def shown() -> list[str]:
    return [name for name, verb in VERBS.items() if not verb.hidden]


def test_every_verb_is_tried_below() -> None:
    assert sorted([*ARGUMENTS, *WITHOUT_DEPLOYMENT]) == sorted(shown())


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_every_verb_turns_an_error_into_its_exit_code_and_document(vmrun, client, verb) -> None:
    arguments = ["--json", *ARGUMENTS[verb]] if verb == "submit" else [*ARGUMENTS[verb], "--json"]
    for kind, code in ERRORS:
        client.trouble = kind("what\nhappened", hint="do this")
        done = vmrun(verb, *arguments)
        assert done.code == code == kind.exit_code
        assert done.document["error"] == {
            "code": kind.code,
            "message": "what\nhappened",
            "hint": "do this",
            "retryable": kind.retryable,
        }
        assert "error" not in done.err
        done = vmrun(verb, *ARGUMENTS[verb])
        assert done.code == code
        assert done.err.endswith("error: what\nhappened\nhint: do this\n")


@pytest.mark.parametrize("verb", shown())
def test_every_verb_has_help_with_an_example(vmrun, client, verb) -> None:
    done = vmrun(verb, "--help")
    assert done.code == 0
    assert f"Usage: vmrun {verb}" in done.out
    assert "Examples:" in done.out
    assert f"- `vmrun {verb}" in done.out
    assert "--json" in done.out
    assert client.calls == []


def test_help_lists_the_verbs_and_none_that_is_hidden(vmrun) -> None:
    done = vmrun("--help")
    assert done.code == 0
    assert all(f"\n  {name} " in done.out for name in shown())
    assert "_bring-up" not in done.out
    assert vmrun().out == done.out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["sbmit"], "vmrun has no verb 'sbmit'", "did you mean `vmrun submit`?"),
        (["job.py"], "vmrun has no verb 'job.py'", "did you mean `vmrun submit job.py`?"),
        (["xyzzy"], "vmrun has no verb 'xyzzy'", "one of: submit, status"),
        (["--bogus"], "no such option: --bogus", "`vmrun --help`"),
        (["logs"], "missing argument 'job'", "`vmrun logs --help`"),
        (["status", "--", "x"], "`vmrun status` takes nothing after `--`", ""),
    ],
)
def test_wrong_command_lines(vmrun, client, arguments, message, hint) -> None:
    done = vmrun(*arguments)
    assert done.code == 2
    assert message in done.err
    assert hint in done.err
    assert client.calls == []


def test_a_wrong_command_line_as_json(vmrun) -> None:
    assert vmrun("logs", "--json").document["error"]["code"] == "usage"


def test_version(vmrun) -> None:
    from vmrun import __version__

    assert vmrun("--version").out == f"vmrun {__version__}\n"
    assert vmrun("--version", "--json").document["version"] == __version__


# --- the unexpected ---


def test_a_defect_is_one_message_and_a_file_with_the_traceback(vmrun, client, clock, here, monkeypatch) -> None:
    monkeypatch.setenv("VMRUN_STATE_DIR", str(here / "state"))
    client.trouble = ZeroDivisionError("division by zero")
    done = vmrun("status")
    assert done.code == 1
    assert "error: vmrun failed unexpectedly: ZeroDivisionError: division by zero\n" in done.err
    assert "Traceback" not in done.err
    (crash,) = (here / "state" / "crashes").iterdir()
    assert str(crash) in done.err
    assert "Traceback" in crash.read_text()
    assert stat.S_IMODE(crash.stat().st_mode) == 0o600
    clock.sleep(1)
    assert vmrun("status", "--json").document["error"]["code"] == "unexpected"
    assert len(list((here / "state" / "crashes").iterdir())) == 2


def test_a_defect_with_debugging_on_shows_the_traceback(vmrun, client, here, monkeypatch) -> None:
    monkeypatch.setenv("VMRUN_STATE_DIR", str(here / "state"))
    monkeypatch.setenv("VMRUN_DEBUG", "1")
    client.trouble = ZeroDivisionError("division by zero")
    assert "Traceback (most recent call last)" in vmrun("status").err
    assert not (here / "state").exists()


def test_crash_files_do_not_pile_up(vmrun, client, clock, here, monkeypatch) -> None:
    monkeypatch.setenv("VMRUN_STATE_DIR", str(here / "state"))
    client.trouble = ZeroDivisionError()
    for _ in range(25):
        clock.sleep(1)
        vmrun("status")
    assert len(list((here / "state" / "crashes").iterdir())) == 20


def test_a_defect_where_no_file_can_be_written(vmrun, client, here, monkeypatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("VMRUN_STATE_DIR", str(here / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(here / "file"))
    client.trouble = ZeroDivisionError()
    done = vmrun("status")
    assert done.code == 1
    assert "VMRUN_DEBUG=1 shows the traceback" in done.err


# --- errors that tell more ---

TRIED = {
    "on": "ec2",
    "instance_type": "r6a.32xlarge",
    "region": "us-east-1",
    "zone": "us-east-1a",
    "spot": False,
    "fault": "quota",
    "code": "VcpuLimitExceeded",
    "quota": "L-1216C47A",
    "message": "more vCPU than your limit\x1b[2J",
}


def test_what_was_tried_is_a_table_for_people_and_rows_for_programs(vmrun, client) -> None:
    client.trouble = errors.CapacityError("no machine was to be had", hint="ask for more")
    client.trouble.data["tried"] = [TRIED, {**TRIED, "zone": "", "instance_type": "", "spot": None, "code": ""}]
    done = vmrun("status")
    assert (done.code, done.out) == (4, "")
    error, head, first, second, hint = done.err.splitlines()
    assert error == "error: no machine was to be had"
    assert head.split() == ["ON", "TYPE", "WHERE", "MARKET", "WHY", "NOT", "THE", "CLOUD", "SAYS"]
    row = "ec2 r6a.32xlarge us-east-1a on-demand quota L-1216C47A VcpuLimitExceeded: more vCPU than your limit\\x1b[2J"
    assert first.split() == row.split()
    assert second.split() == [
        "ec2",
        "us-east-1",
        "quota",
        "L-1216C47A",
        "more",
        "vCPU",
        "than",
        "your",
        "limit\\x1b[2J",
    ]
    assert hint == "hint: ask for more"
    done = vmrun("status", "--json")
    assert done.document["error"]["tried"][0] == TRIED


def test_the_console_of_a_machine_that_does_not_answer_is_shown(vmrun, client) -> None:
    client.trouble = errors.Unreachable("no SSH after 300 s")
    client.trouble.data["console"] = ["Booting \x1b[31mred", "Kernel panic"]
    done = vmrun("status")
    assert done.code == 5
    assert done.err.splitlines()[1:] == [
        "last lines of the machine's console:",
        "  Booting \\x1b[31mred",
        "  Kernel panic",
    ]
