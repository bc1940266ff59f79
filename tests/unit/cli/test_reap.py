"""`vmrun reap` beyond one pass: as a service, and what installs it; and `vmrun why`."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.unit.cli.fakes import JOB, NOW, VM, vm_view
from vmrun.core.errors import StoreUnavailable
from vmrun.core.records import (
    Alive,
    Assign,
    Created,
    Delete,
    Drain,
    Entry,
    Failed,
    Gone,
    Heartbeat,
    Intent,
    Ready,
    Suspect,
)
from vmrun.watch.life import Deadline, Life

# --- as a service ---


def stops_after(client, passes: int, number: int = signal.SIGTERM) -> None:
    left = [passes]

    def passed() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    client.passed = passed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_prints_each_pass_and_each_new_verdict_until_a_signal(vmrun, client, number) -> None:
    stops_after(client, 3, number)
    before = signal.getsignal(number)
    done = vmrun("reap", "--every", "60s")
    assert done.code == 0
    assert signal.getsignal(number) is before
    lines = done.out.splitlines()
    assert [line.partition(" ")[2].partition(" ")[0] for line in lines] == [
        "pass=1",
        f"vm={VM}",
        "vm=01hzy3vm11m2n4p6q8r0s1t2v3",
        "pass=2",
        "pass=3",
    ]
    assert lines[0].startswith("2025-06-15T15:06:40Z pass=1 vms=2 deleted=1 seconds=")
    assert lines[1].endswith('on=docker verdict=delete policy=idle reason="idle for 20m"')
    assert client.calls == [("reap", False, False)] * 3


def test_the_service_as_json_prints_a_document_for_each_pass(vmrun, client, here) -> None:
    stops_after(client, 2)
    done = vmrun("reap", "--every", "60s", "--dry-run", "--json", "--health-file", "health.json")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["schema"], first["ok"], first["pass"], first["vms"], first["deleted"]) == (1, True, 1, 2, 1)
    assert first["dry_run"] is True
    assert first["verdicts"][0]["vm"] == VM
    assert (second["pass"], second["verdicts"]) == (2, [])
    assert second["began"] - first["began"] >= 60
    health = json.loads((here / "health.json").read_text())
    assert (health["ok"], health["running"], health["passes"], health["every"]) == (True, False, 2, 60.0)


def test_the_service_survives_a_store_that_gives_no_answer(vmrun, client) -> None:
    trouble = [StoreUnavailable("no answer"), None, None]

    def passed() -> None:
        if (error := trouble.pop(0)) is not None:
            raise error
        if not trouble:
            os.kill(os.getpid(), signal.SIGTERM)

    client.passed = passed
    done = vmrun("reap", "--every", "60s", "--json")
    assert done.code == 0
    first, *others = (json.loads(line) for line in done.out.splitlines())
    assert (first["ok"], first["error"]["code"], first["verdicts"]) == (False, "store-unavailable", [])
    assert [document["ok"] for document in others] == [True, True]
    assert others[0]["began"] - first["began"] >= 120


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--every", "60s", "--all"], "--all is for one pass"),
        (["--install", "cron", "--all"], "--all is for one pass"),
        (["--for", "5m"], "--for goes with --every"),
        (["--health-file", "x"], "--health-file goes with --every"),
        (["--write"], "--write goes with --install"),
        (["--install", "systemd", "--every", "60s", "--for", "5m"], "--for is not for --install"),
        (["--install", "systemd", "--every", "60s", "--health-file", "x"], "--health-file is not for --install"),
        (["--install", "cron", "--dry-run"], "--dry-run is not for --install"),
        (["--every", "soon"], "--every"),
        (["--every", "10ms"], "too short"),
        (["--every", "60s", "--for", "x"], "--for"),
        (["--install", "windows"], "one of: systemd, cron, github"),
    ],
)
def test_what_does_not_go_together(vmrun, client, arguments, says) -> None:
    done = vmrun("reap", *arguments)
    assert done.code == 2
    assert says in done.err
    assert client.calls == []


# --- installed ---


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VMRUN_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("VMRUN_STORE_SECRET_ACCESS_KEY", "hunter2")
    return "hunter2"


def started(text: str) -> str:
    """The program in a text that starts the reaper."""
    return next(word.strip('"') for word in text.split() if word.strip('"').endswith(("/vmrun", "/python")))


@pytest.mark.parametrize("kind", ["systemd", "cron", "github"])
def test_install_prints_what_starts_it_and_no_secret(vmrun, secretive, kind) -> None:
    done = vmrun("reap", "--install", kind, "--every", "2m")
    assert done.code == 0
    assert secretive not in done.out + done.err
    assert "s3://bucket/prefix" in done.out
    assert "VMRUN_STORE_SECRET_ACCESS_KEY is set here and not there" in done.err
    if kind != "github":
        program = started(done.out.partition("ExecStart=")[2] or done.out)
        assert Path(program).is_absolute()
        assert os.access(program, os.X_OK)
    document = vmrun("reap", "--install", kind, "--every", "2m", "--json").document
    assert (document["install"], document["written"]) == (kind, None)
    assert document["text"] == done.out


def test_the_unit_runs_where_its_file_is(vmrun, here, monkeypatch) -> None:
    assert f"WorkingDirectory={Path.home()}\n" in vmrun("reap", "--install", "systemd").out
    (here / "vmrun.toml").write_text("[defaults]\non = 'local'\n")
    monkeypatch.setenv("VMRUN_CONFIG_DIR", "config")
    text = vmrun("reap", "--install", "systemd").out
    assert f"WorkingDirectory={here}\n" in text
    assert f'Environment="VMRUN_CONFIG_DIR={here}/config"' in text


def test_what_starts_the_reaper_sees_the_clouds_that_are_seen_here(vmrun, here, monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    monkeypatch.setenv("IBMCLOUD_API_KEY", "hunter2")
    unit, line = vmrun("reap", "--install", "systemd"), vmrun("reap", "--install", "cron")
    assert 'Environment="AWS_PROFILE=work"\n' in unit.out
    assert f'Environment="GOOGLE_APPLICATION_CREDENTIALS={here}/key.json"\n' in unit.out
    assert " AWS_PROFILE=work " in line.out
    # What is a secret is not written there, and it is said that it is missing
    for done in (unit, line):
        assert "hunter2" not in done.out + done.err
        assert "IBMCLOUD_API_KEY is set here and not there" in done.err
    monkeypatch.setenv("VMRUN_STORE", "s3://bucket/prefix")
    assert "IBMCLOUD_API_KEY is set here" not in vmrun("reap", "--install", "github").err


def test_a_unit_is_written_and_a_different_one_is_not_replaced_unasked(vmrun) -> None:
    path = Path.home() / ".config/systemd/user/vmrun-reaper.service"
    done = vmrun("reap", "--install", "systemd", "--write")
    assert done.code == 0
    assert f"wrote {path}" in done.out
    assert "systemctl --user enable --now vmrun-reaper" in done.out.replace(
        "daemon-reload && systemctl --user ", "daemon-reload\nsystemctl --user "
    )
    assert vmrun("reap", "--install", "systemd", "--write").code == 0
    path.write_text("mine")
    assert vmrun("reap", "--install", "systemd", "--write").code == 2
    assert path.read_text() == "mine"
    assert vmrun("reap", "--install", "systemd", "--write", "--yes").code == 0
    assert "ExecStart=" in path.read_text()


def test_a_workflow_is_written_into_the_repository(vmrun, here, secretive) -> None:
    document = vmrun("reap", "--install", "github", "--write", "--json").document
    path = here / ".github/workflows/vmrun-reaper.yml"
    assert document["written"] == str(path)
    assert path.read_text() == document["text"]


def test_a_workflow_cannot_see_a_directory(vmrun) -> None:
    done = vmrun("reap", "--install", "github")
    assert done.code == 2
    assert "cannot see the store" in done.err


@pytest.fixture
def crontab(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `crontab` that keeps its table in a file; the file."""
    table, program = here / "table", here / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -l ]; then cat {table} 2>/dev/null || {{ echo "no crontab for me" >&2; exit 1; }}\n'
        f"else cat > {table}; fi\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return table


def test_the_line_goes_into_the_table_of_cron_once(vmrun, crontab) -> None:
    assert vmrun("reap", "--install", "cron", "--write").code == 0
    assert vmrun("reap", "--install", "cron", "--write").code == 0
    assert crontab.read_text() == vmrun("reap", "--install", "cron").out
    crontab.write_text("0 1 * * * backup\n")
    vmrun("reap", "--install", "cron", "--write")
    assert crontab.read_text().startswith("0 1 * * * backup\n*/5 ")


def test_a_cron_that_fails_is_said(vmrun, here, crontab) -> None:
    (here / "bin" / "crontab").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    done = vmrun("reap", "--install", "cron", "--write")
    assert done.code == 2
    assert "crontab -l failed: broken" in done.err


# --- why ---


def entry(n: int, body: object, writer: str = "client") -> Entry:
    return Entry(n, writer, "0" * 24, NOW - 3600 + 60 * n, body)  # type: ignore[arg-type]


INTENT = Intent(
    VM, "dep", "ec2", f"vmrun-dep-{VM}", "us-east-1", "us-east-1a", "r6a.32xlarge", 128, 10**12, "x86_64", 7.25,
    "0" * 64, NOW - 3600 + 14400, 900.0, JOB, spot=True,
)  # fmt: skip
STORY = (
    entry(0, INTENT),
    entry(1, Created("us-east-1/i-0abc")),
    entry(2, Ready("00", "boot", host="192.0.2.1", workers=128)),
    entry(3, Assign(JOB, 600.0)),
    entry(4, Suspect("reaper")),
    entry(5, Alive(), f"vm:{VM}"),
    entry(6, Drain("idle for 10m"), f"vm:{VM}"),
    entry(7, Failed("quota", "too many")),
    entry(8, Delete("expired: its maximum lifetime ended", "reaper")),
    entry(9, Gone("not found after delete")),
    entry(10, None),
)


def test_why_tells_each_entry_with_time_who_and_why(vmrun, client) -> None:
    client.told = Life(vm_view(id=VM, state="gone"), STORY, name=INTENT.name, cloud_id="us-east-1/i-0abc")
    done = vmrun("why", VM)
    assert client.calls == [("life", VM)]
    assert f"VM {VM}: gone" in done.out
    for line in (
        "2025-06-15 14:06:40  INTENT    client  to be made: r6a.32xlarge on ec2 in us-east-1a spot, $7.25/h for job",
        f" {JOB}; ready within 15m 00s, gone within 4h 00m",
        "2025-06-15 14:07:40  CREATED   client  its cloud made it: us-east-1/i-0abc",
        f"ASSIGN    client  given job {JOB}, to stay warm for 10m 00s after it",
        "SUSPECT   reaper  no sign of life: taken for dead unless it answers",
        "ALIVE     VM      it answered: it is alive",
        "DRAIN     VM      takes no further job and ends: idle for 10m",
        "DELETE    reaper  to be deleted: expired: its maximum lifetime ended",
        "GONE      client  it is no more: not found after delete",
        "?         client  an entry that this version of vmrun does not know",
    ):
        assert line in done.out


def test_why_tells_what_will_end_it(vmrun, client) -> None:
    beat = Heartbeat(17, "boot", 4, job=JOB, busy="a job")
    bounds = (Deadline("keep-warm window", NOW + 120), Deadline("maximum lifetime", NOW + 7200))
    client.told = Life(vm_view(id=VM), STORY[:4], bounds, beat, NOW - 5, broken="entry 4: no signature")
    done = vmrun("why", VM)
    assert "last heartbeat: number 17, 5s ago, working on a job" in done.out
    assert done.out.index("in 2m because keep-warm window") < done.out.index("in 2h because maximum lifetime")
    assert "what follows cannot be trusted: entry 4: no signature" in done.out


def test_why_as_json_has_every_field(vmrun, client) -> None:
    client.told = Life(vm_view(id=VM), STORY, (Deadline("boot grace", NOW),), Heartbeat(1, "b", 2), NOW)
    document = vmrun("why", VM, "--json").document
    assert document["vm"]["id"] == VM
    assert [one["type"] for one in document["life"]][:3] == ["INTENT", "CREATED", "READY"]
    assert document["life"][8] == {
        "n": 8,
        "at": NOW - 3120,
        "by": "reaper",
        "type": "DELETE",
        "text": "to be deleted: expired: its maximum lifetime ended",
        "data": {"why": "expired: its maximum lifetime ended", "by": "reaper"},
    }
    assert document["life"][10]["type"] is None
    assert document["heartbeat"] == {"at": NOW, "counter": 1, "boot_id": "b", "seen": 2}
    assert document["deadlines"] == [{"what": "boot grace", "at": NOW}]
    assert document["broken"] is None
