"""What stands on the command line of submit, good and bad."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.commands.request import Asked, build_request
from vmrun.core.errors import UsageError
from vmrun.submit.request import SubmitRequest


@pytest.fixture(autouse=True)
def job_file(here: Path) -> Path:
    path = here / "job.py"
    path.write_text("", encoding="utf-8")
    return path


def test_every_option_reaches_the_request(vmrun, client, here) -> None:
    (here / "requirements.txt").write_text("numpy\n")
    done = vmrun(
        *("submit", "job.py::simulate", "--on", "docker", "--cpus", "128", "--memory", "1TB", "--disk", "200GiB"),
        *("--arch", "arm64", "--instance-type", "m7g.48xlarge", "--region", "eu-west-1", "--zone", "eu-west-1a"),
        "--spot-with-fallback",
        *("--workers", "4", "--threads-per-task", "2", "--task-memory", "8GB", "--fresh"),
        *("--with", "numpy", "--with", "scipy>=1.14", "--requirements", "requirements.txt"),
        *("--shared", "requirements.txt"),
        *("--python", "3.12", "--env", "LEVEL=2", "--env", "TEXT=a=b", "--retries", "2", "--task-timeout", "5m"),
        *("--max-lifetime", "1h30m", "--keep-warm", "10m", "--name", "night run", "--idempotency-key", "k1"),
        *("--", "--seed", "7", "--json"),
    )
    assert done.code == 0, done.err
    assert client.request == SubmitRequest(
        target="job.py::simulate",
        argv=("--seed", "7", "--json"),
        on="docker",
        cpus=128,
        memory=10**12,
        disk=200 * 2**30,
        arch="arm64",
        instance_type="m7g.48xlarge",
        region="eu-west-1",
        zone="eu-west-1a",
        market="spot-with-fallback",
        workers=4,
        threads_per_task=2,
        task_memory=8 * 10**9,
        fresh=True,
        retries=2,
        task_timeout=300.0,
        max_lifetime=5400.0,
        keep_warm=600.0,
        python="3.12",
        name="night run",
        idempotency_key="k1",
        with_packages=("numpy", "scipy>=1.14"),
        requirements="requirements.txt",
        shared_file="requirements.txt",
        env={"LEVEL": "2", "TEXT": "a=b"},
    )


def test_what_was_not_said_is_left_to_the_script_and_the_settings(vmrun, client) -> None:
    vmrun("submit", "job.py")
    assert client.request == SubmitRequest(target="job.py")


@pytest.mark.parametrize("market", ["spot", "on-demand", "spot-with-fallback"])
def test_each_market_has_a_flag(vmrun, client, market) -> None:
    assert vmrun("submit", "job.py", f"--{market}").code == 0
    assert client.request.market == market


def test_a_native_command_stands_after_the_dashes(vmrun, client) -> None:
    vmrun("submit", "--on", "docker", "--", "./simulate", "--on", "x", "--", "y")
    assert client.request.target == ""
    assert client.request.argv == ("./simulate", "--on", "x", "--", "y")
    assert client.request.on == "docker"


@pytest.mark.parametrize("name", ["../x", "🚀 launch", "👩‍🚀", "naïve", "x" * 200, "$(rm -rf /)"])
def test_a_name_is_data(vmrun, client, name) -> None:
    assert vmrun("submit", "job.py", "--name", name).code == 0
    assert client.request.name == name


BAD = [
    (["job.py", "--memory", "lots"], "--memory: 'lots' is not a size", "512MB"),
    (["job.py", "--memory", "-1GB"], "--memory: '-1GB' is not a size", "512MB"),
    (["job.py", "--disk", "nan"], "--disk: 'nan' is not a size", "512MB"),
    (["job.py", "--keep-warm", "soon"], "--keep-warm: 'soon' is not a duration", "90s"),
    (["job.py", "--max-lifetime", "0s"], "--max-lifetime: '0s' is no time at all", ""),
    (["job.py", "--max-lifetime", "99999d"], "--max-lifetime: '99999d' is longer than a year", ""),
    (["job.py", "--task-timeout", "inf"], "--task-timeout: 'inf' is not a duration", ""),
    (["job.py", "--cpus", "0"], "--cpus: 0 is not a whole number from 1", ""),
    (["job.py", "--cpus", "many"], "'--cpus'", "vmrun submit --help"),
    (["job.py", "--workers", "-3"], "--workers: -3 is not a whole number from 1", ""),
    (["job.py", "--threads-per-task", "0"], "--threads-per-task: 0 is not a whole number from 1", ""),
    (["job.py", "--task-memory", "2MB"], "--task-memory: '2MB' is less than the 32 MB that Python", "such as 2GB"),
    (["job.py", "--retries", "1000"], "--retries: 1000 is not a whole number from 0 to 100", ""),
    (["job.py", "--arch", "vax"], "--arch: unknown architecture 'vax'", "x86_64, arm64"),
    (["job.py", "--spot", "--on-demand"], "--spot and --on-demand do not go together", "--spot-with-fallback"),
    (["job.py", "--python", "2.7"], "--python: '2.7' is not a version of Python", ""),
    (["job.py", "--on", "moon"], "there is no provisioner named 'moon'", "local"),
    (["job.py", "--region", "a b"], "--region: 'a b' is no name of a cloud's", ""),
    (["job.py", "--name", "a\nb"], "--name: 'a\\nb' has a line break", "one line"),
    (["job.py", "--name", "a\x1b[31m"], "--name: 'a\\x1b[31m' has a line break or another control character", ""),
    (["job.py", "--name", "x" * 10_000], "--name: 10000 characters are too long", "200"),
    (["job.py", "--name", ""], "--name: a job's name is not empty", ""),
    (["job.py", "--idempotency-key", "a\nb"], "--idempotency-key", ""),
    (["job.py", "--env", "LEVEL"], "--env: 'LEVEL' is not NAME=VALUE", "LEVEL=2"),
    (["job.py", "--env", "1X=y"], "--env: '1X' is not NAME=VALUE", ""),
    (["job.py", "--with", "--index-url=http://evil"], "is an option, not a package", ""),
    (["job.py", "--with", " "], "--with: expected 1 to 200 characters", ""),
    (["job.py", "--requirements", "none.txt"], "--requirements: 'none.txt' does not exist", ""),
    (["job.py", "--shared", "none.csv"], "--shared: 'none.csv' is not a file that exists", ""),
    (["job.py", "--shared", "."], "--shared: '.' is a directory", "tar"),
    (["job.py", "-o", "job.py"], "-o: 'job.py' is not a directory", ""),
    (["job.py", "-o", "x", "--detach"], "-o and --detach do not go together", "vmrun result JOB -o DIR"),
    (["jop.py"], "there is no file jop.py", "did you mean job.py?"),
    (["none/job.py"], "there is no file none/job.py", "there is no directory none either"),
    (["dir.py"], "dir.py is a directory", ""),
    (["job.py::"], "'' is not the name of a job", "job.py::name"),
    (["job.py::a-b"], "'a-b' is not the name of a job", ""),
    (["./simulate"], "'./simulate' is not a Python file", "vmrun submit -- ./simulate"),
    ([], "there is nothing to run", "vmrun submit job.py"),
    (["--"], "there is nothing to run", "vmrun submit job.py"),
    (["--", ""], "'' is not the name of a program", ""),
    (["job.py", "--seed", "7"], "no such option: --seed", "vmrun submit --help"),
    (["job.py", "more.py"], "unexpected extra argument", "vmrun submit --help"),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), BAD, ids=[" ".join(bad[0])[:40] or "nothing" for bad in BAD])
def test_bad_input_has_one_message_and_a_hint_and_nothing_is_submitted(
    vmrun, client, here, arguments, message, hint
) -> None:
    (here / "dir.py").mkdir()
    before = sorted(path.name for path in here.iterdir())
    done = vmrun("submit", *arguments)
    assert done.code == 2
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in "".join(rest)
    assert len(rest) <= 1
    assert client.calls == []
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_value_of_env_is_in_no_message(vmrun) -> None:
    assert "hunter2" not in vmrun("submit", "job.py", "--env", "BAD NAME=hunter2").err


def test_a_file_that_cannot_be_read(vmrun, client, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "error: job.py cannot be read\n" in vmrun("submit", "job.py").err
    assert client.calls == []


TEXTS = st.text(max_size=60)
#: Options whose value is free text, by their name in the request.
FREE = (
    *("on", "memory", "disk", "arch", "instance_type", "region", "zone", "market", "python"),
    *("task_timeout", "max_lifetime", "keep_warm", "name", "idempotency_key"),
)


@given(
    target=st.none() | TEXTS, program=st.none() | st.lists(TEXTS).map(tuple), value=TEXTS, option=st.sampled_from(FREE)
)
def test_no_text_is_anything_but_accepted_or_a_usage_error(target, program, value, option) -> None:
    for asked in (
        Asked({option: value}),
        Asked({}, packages=[value]),
        Asked({}, requirements=value),
        Asked({}, env=[value]),
    ):
        refused = refusal(target, program, asked)
        assert refused is None or (refused.message and refused.hint and len(refused.message) < 500)


def refusal(target: str | None, program: tuple[str, ...] | None, asked: Asked) -> UsageError | None:
    try:
        build_request(target, program, asked)
    except UsageError as error:
        return error
    return None
