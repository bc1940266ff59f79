"""Somebody else writes to the store: nothing of it is unpickled or obeyed, on the client or on the VM.

Every forged object carries a pickle that makes a directory, the canary, as soon as it is opened.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vmrun
from tests.support.journals import client_of
from tests.support.shell import Shell, processes, until
from vmrun.core import codec, keys
from vmrun.core.blocks import ResultBlock, TaskBlock
from vmrun.core.errors import StoreError
from vmrun.core.ids import new_id
from vmrun.core.model import FunctionSpec
from vmrun.core.outcomes import pack
from vmrun.core.records import (
    Assign,
    Created,
    Delete,
    Entry,
    Final,
    Heartbeat,
    Intent,
    Ready,
    Record,
    Results,
    Submit,
    Tasks,
)
from vmrun.core.sealing import seal
from vmrun.crypto import Ed25519Signer, new_private_key, public_hex

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STRANGER = new_private_key()
TASKS = 4

SMALL = """
    import os
    import vmrun

    @vmrun.job(over=range(4))
    def f(x):
        if x == 0:
            with open(os.path.join(os.environ["VMRUN_OUTPUT"], "out.txt"), "w") as file:
                file.write("what the task wrote")
        return f"value {x}"
"""
LARGE = """
    import vmrun

    @vmrun.job(over=range(4))
    def f(x):
        return x * 100_000 * "x"
"""


class Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@dataclass
class Place:
    """A deployment in directories of its own, and what a stranger who can write to its store does there."""

    shell: Shell
    store: Path
    #: Ids of jobs by name.
    jobs: dict[str, str]
    canary: Path

    @property
    def evil(self) -> bytes:
        """A pickle that must never be opened."""
        return pickle.dumps(Canary(self.canary), protocol=5)

    def path(self, key: str) -> Path:
        return self.store / key

    def entries(self, prefix: str) -> list[Path]:
        return sorted((self.store / prefix).iterdir())

    def entry(self, prefix: str, kind: str) -> Path:
        """The first entry of that kind."""
        return next(path for path in self.entries(prefix) if head_of(path)["type"] == kind)

    def shard(self, job: str) -> str:
        return keys.shard_journal(self.jobs[job], 0)

    def journal(self, job: str) -> str:
        return keys.job_journal(self.jobs[job])

    def vm(self, job: str) -> str:
        """The VM that worked for the job."""
        return str(head_of(self.entry(self.shard(job), "RESULTS"))["data"]["vm"])

    def put(self, key: str, data: bytes) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def seal(self, prefix: str, n: int, body: Record, attachment: bytes = b"", *, name: str = "client") -> None:
        """An entry signed with the stranger's key."""
        entry = Entry(n, "", f"{n:024x}", 1.0, body, attachment)
        self.put(keys.entry(prefix, n), seal(prefix, entry, Ed25519Signer(name, STRANGER)))

    def block(self) -> ResultBlock:
        """Outcomes of all tasks."""
        evil = self.evil
        return ResultBlock(
            0,
            bytes(TASKS),
            array("Q", [len(evil)] * TASKS),
            evil * TASKS,
            array("d", [0.0] * TASKS),
            array("f", [0.0] * TASKS),
        )

    def results(self, vm: str) -> tuple[Results, bytes]:
        """An entry with these outcomes, and its attachment."""
        packed = pack([self.block()])
        return Results(vm, 0, packed.refs), packed.data


def head_of(path: Path) -> Any:
    return json.loads(path.read_bytes().split(b"\n", 1)[0])


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], attachment: bytes | None = None) -> None:
    """Change what an entry says; its signature stays what it was."""
    line, signature, rest = path.read_bytes().split(b"\n", 2)
    head = json.loads(line)
    change(head)
    path.write_bytes(b"\n".join((codec.canonical(head), signature, rest if attachment is None else attachment)))


def store_of(shell: Shell) -> Path:
    return shell.home / ".local" / "share" / "vmrun" / "store"


def newest(shell: Shell) -> str:
    return str(max(shell.ask("status")["jobs"], key=lambda job: job["id"])["id"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three jobs that ended well. Not to be changed: tests work on copies."""
    shell = Shell(tmp_path_factory.mktemp("h"))
    jobs = {}
    for name, text in (("small", SMALL), ("other", SMALL.replace("value", "other")), ("large", LARGE)):
        shell.write(f"{name}.py", text)
        shell.run("submit", f"{name}.py", "-o", "out")
        jobs[name] = newest(shell)
    until(lambda: not processes(str(shell.home)), what="the machines have ended, and write no more")
    return Place(shell, store_of(shell), jobs, shell.home / "canary")


@pytest.fixture
def place(finished: Place, isolated: Path) -> Place:
    """A copy of the deployment."""
    shutil.copytree(finished.shell.home / ".config", isolated / ".config")
    shutil.copytree(finished.store, isolated / "store")
    told = {"VMRUN_CONFIG_DIR": str(isolated / ".config" / "vmrun"), "VMRUN_STORE_URL": str(isolated / "store")}
    return Place(Shell(isolated, told), isolated / "store", finished.jobs, isolated / "canary")


def refused(place: Place, *argv: str, exit_code: int = 3) -> str:
    """What `vmrun ARGV` says while it refuses."""
    done = place.shell.run(*argv, exit_code=exit_code)
    assert done.stdout == ""
    assert done.stderr.startswith("error: "), done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.canary.exists()
    return done.stderr


def test_the_canary_is_alive(place: Place) -> None:
    """What is forged below would do harm if it were opened."""
    assert place.block().encode().count(place.evil) == TASKS
    pickle.loads(place.evil)
    assert place.canary.is_dir()
    assert place.shell.ask("result", place.jobs["small"])["results"] == [f"value {x}" for x in range(TASKS)]


# --- results ---


def other_bytes(place: Place) -> None:
    """Other bytes below the old head."""
    path = place.entry(place.shard("small"), "RESULTS")
    rewrite(path, lambda head: None, place.block().encode())


def other_bytes_and_hash(place: Place) -> None:
    """Other bytes, and a head that fits them."""
    path = place.entry(place.shard("small"), "RESULTS")
    body, data = place.results(place.vm("small"))

    def change(head: dict[str, Any]) -> None:
        head["attachment"] = {"size": len(data), "sha256": codec.sha256(data)}
        head["data"] = codec.to_data(body)

    rewrite(path, change, data)


def newer_format(place: Place) -> None:
    """As above, and said to be of a format that this version does not know."""
    other_bytes_and_hash(place)
    rewrite(place.entry(place.shard("small"), "RESULTS"), lambda head: head.update(schema=99))


def signed_as_the_vm(place: Place) -> None:
    """Signed by the stranger in the VM's name."""
    path, vm = place.entry(place.shard("small"), "RESULTS"), place.vm("small")
    place.seal(place.shard("small"), int(path.name), *place.results(vm), name=f"vm:{vm}")


def signed_as_the_client(place: Place) -> None:
    """Signed by the stranger in the client's name."""
    path = place.entry(place.shard("small"), "RESULTS")
    place.seal(place.shard("small"), int(path.name), *place.results(place.vm("small")))


def a_vm_of_the_strangers(place: Place) -> None:
    """From a VM that the stranger says the client made for the job."""
    path, vm = place.entry(place.shard("small"), "RESULTS"), "0" * 26
    job, deployment = place.jobs["small"], json.loads(place.path(keys.DEPLOYMENT).read_bytes())["id"]
    bodies = (intent(vm, job, deployment), Created("i-1"), Ready(public_hex(STRANGER), "b"))
    for n, body in enumerate(bodies):
        place.seal(keys.vm_journal(vm), n, body)
    place.seal(place.shard("small"), int(path.name), *place.results(vm), name=f"vm:{vm}")


def intent(vm: str, job: str, deployment: str) -> Intent:
    return Intent(vm, deployment, "local", f"vmrun-{deployment}-{vm}", "", "", "", 1, 1, "", 0.0, "", 9e9, 60.0, job)


def another_key_for_the_vm(place: Place) -> None:
    """The VM's own journal names the stranger's key."""
    vm = place.vm("small")
    ready = place.entry(keys.vm_journal(vm), "READY")
    place.seal(keys.vm_journal(vm), int(ready.name), Ready(public_hex(STRANGER), "b"))
    signed_as_the_vm(place)


def everything_by_a_stranger(place: Place) -> None:
    """Submission, VM and results, all signed by the stranger."""
    vm, job = place.vm("small"), place.jobs["small"]
    submit = place.entry(place.journal("small"), "SUBMIT")
    deployment = head_of(submit)["data"]["deployment"]
    place.seal(place.journal("small"), 0, codec.from_data(Submit, head_of(submit)["data"]))
    place.seal(keys.vm_journal(vm), 0, intent(vm, job, deployment))
    another_key_for_the_vm(place)


def moved_from_another_job(place: Place) -> None:
    """The results of another job in this one's place."""
    path = place.entry(place.shard("small"), "RESULTS")
    shutil.copyfile(place.path(place.shard("other")) / path.name, path)


def all_of_another_job(place: Place) -> None:
    """Another job's whole directory in this one's place."""
    target = place.path(f"jobs/{place.jobs['small']}")
    shutil.rmtree(target)
    shutil.copytree(place.path(f"jobs/{place.jobs['other']}"), target)


def moved_within(place: Place) -> None:
    """The results in the place of the claim."""
    shutil.copyfile(place.entry(place.shard("small"), "RESULTS"), place.path(keys.entry(place.shard("small"), 0)))


def garbage(place: Place) -> None:
    place.entry(place.shard("small"), "RESULTS").write_bytes(place.evil)


def empty(place: Place) -> None:
    place.entry(place.shard("small"), "RESULTS").write_bytes(b"")


def cut(place: Place) -> None:
    path = place.entry(place.shard("small"), "RESULTS")
    path.write_bytes(path.read_bytes()[:-1])


def longer(place: Place) -> None:
    path = place.entry(place.shard("small"), "RESULTS")
    path.write_bytes(path.read_bytes() + b"\0")


ATTACKS = [
    other_bytes,
    other_bytes_and_hash,
    newer_format,
    signed_as_the_vm,
    signed_as_the_client,
    a_vm_of_the_strangers,
    another_key_for_the_vm,
    everything_by_a_stranger,
    moved_from_another_job,
    all_of_another_job,
    moved_within,
    garbage,
    empty,
    cut,
    longer,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_forged_results_are_refused_before_they_are_unpickled(place: Place, attack: Callable[[Place], None]) -> None:
    attack(place)
    job = place.jobs["small"]
    said = refused(place, "result", job)
    assert job in said or "vms/" in said
    # Neither can it be saved, nor does it hide the other jobs.
    client = client_of(place.shell)
    with pytest.raises(StoreError):
        client.handle(job).save(str(place.shell.home / "values.pkl"))
    assert not (place.shell.home / "values.pkl").exists()
    assert {each.id for each in client.jobs()} >= {place.jobs["other"], place.jobs["large"]}
    assert not place.canary.exists()


@pytest.mark.parametrize("how", ["replaced", "cut", "deleted"])
def test_forged_segments_are_refused_before_they_are_unpickled(place: Place, how: str) -> None:
    (segment,) = place.path(f"jobs/{place.jobs['large']}/segments").iterdir()
    if how == "deleted":
        segment.unlink()
    else:
        # As long as before: nobody finds out by the size alone.
        data = place.block().encode()
        data += bytes(segment.stat().st_size - len(data))
        segment.write_bytes(data if how == "replaced" else data[:100])
    assert "were signed" in refused(place, "result", place.jobs["large"]) or how == "deleted"


def test_forged_files_are_refused_and_not_written(place: Place) -> None:
    (stored,) = place.path(f"jobs/{place.jobs['small']}/files").iterdir()
    stored.write_bytes(b"what a stranger wrote")
    said = refused(place, "result", place.jobs["small"], "-o", "home/")
    assert "out.txt" in said
    assert [path for path in (place.shell.home / "home").rglob("*") if path.is_file()] == []


def test_no_byte_can_be_flipped(place: Place, rng: random.Random) -> None:
    """In the submission, the claim, the results, the VM's key, a segment: each of many bytes, one at a time."""
    client = client_of(place.shell)
    small, large = place.jobs["small"], place.jobs["large"]
    (segment,) = place.path(f"jobs/{large}/segments").iterdir()
    targets = [(path, small) for path in (*place.entries(place.journal("small")), *place.entries(place.shard("small")))]
    targets += [(place.entry(keys.vm_journal(place.vm("small")), kind), small) for kind in ("INTENT", "READY")]
    targets += [(segment, large)]
    flips = 0
    for path, job in targets:
        data = path.read_bytes()
        for at in sorted({0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(60))}):
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
            with pytest.raises(StoreError):
                client.handle(job).collect()
            flips += 1
        path.write_bytes(data)
    assert flips > 400
    assert client.handle(small).collect().values == [f"value {x}" for x in range(TASKS)]


def test_a_job_of_another_deployment_is_refused_even_with_the_same_key(place: Place, tmp_path: Path) -> None:
    # Given a second store that is used with the same configuration directory
    second = Shell(place.shell.home, {**place.shell.environment, "VMRUN_STORE_URL": str(tmp_path / "second")})
    second.write("small.py", SMALL)
    second.run("submit", "small.py", "-o", "out")
    foreign = newest(second)
    # When somebody copies its job and its VM over
    for part in (f"jobs/{foreign}", f"index/jobs/{foreign}", "vms"):
        source, target = tmp_path / "second" / part, place.store / part
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copyfile(source, target)
    # Then it is not this deployment's
    assert "belongs to another deployment" in refused(place, "result", foreign)
    assert "belongs to another deployment" in refused(place, "wait", foreign)
    assert foreign not in {job["id"] for job in place.shell.ask("status")["jobs"]}


def test_a_store_that_changes_hands_is_refused(place: Place) -> None:
    record = json.loads(place.path(keys.DEPLOYMENT).read_bytes())
    place.put(keys.DEPLOYMENT, json.dumps({**record, "public_key": public_hex(STRANGER)}).encode())
    everything_by_a_stranger(place)
    assert "belongs to another deployment" in refused(place, "result", place.jobs["small"], exit_code=2)


def test_a_forged_sign_of_life_is_not_shown(place: Place) -> None:
    vm = place.vm("small")
    place.put(keys.vm_index(vm), b"")
    key = keys.heartbeat(vm)
    forged = Entry(9, "", "0" * 24, 1.0, Heartbeat(9, "b", 3, doing="FORGED", ends_because="FORGED"))
    place.put(key, seal(key, forged, Ed25519Signer(f"vm:{vm}", STRANGER)))
    assert "FORGED" not in place.shell.run("status", "--json").stdout


def test_junk_about_one_vm_does_not_get_in_the_way_of_the_others(place: Place) -> None:
    vm = place.vm("small")[:-1] + "z"
    place.put(keys.vm_index(vm), b"")
    place.seal(keys.vm_journal(vm), 0, intent(vm, place.jobs["small"], "abcdefgh"))
    (shown,) = [each for each in place.shell.ask("status")["vms"] if each["id"] == vm]
    assert shown["state"] == "unreadable"
    place.shell.write("job.py", "import vmrun\n\n@vmrun.job(over=[1])\ndef f(x):\n    return x\n")
    assert place.shell.run("submit", "job.py").stdout == "1\n"
    place.shell.run("reap")


# --- what a VM is given ---


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A script, a job over inputs and a pickled function, submitted once, so that all they name is in the store.

    What is submitted is so long that a forged object can be as long.
    """
    shell = Shell(tmp_path_factory.mktemp("h"))
    noise = random.Random(7).randbytes(6000).hex()
    shell.write(
        "job.py", f"import vmrun\n# {noise}\n@vmrun.job(over=['{noise}', 2])\ndef f(x):\n    return len(str(x))\n"
    )
    shell.write(
        "driver.py",
        f"""
        import sys
        import vmrun

        def g(x, noise={noise!r}):
            return x + 1

        if __name__ == "__main__":
            print(list(vmrun.submit(g, over=[1, 2]).results()))
        """,
    )
    shell.run("submit", "job.py")
    assert drive(shell).stdout == "[2, 3]\n"
    return Place(shell, store_of(shell), {}, shell.home / "canary")


def drive(shell: Shell) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "driver.py"],
        cwd=shell.home,
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def code(place: Place) -> tuple[str, bytes]:
    """A tree whose file makes the canary when it is imported."""
    text = f"import os\nos.mkdir({str(place.canary)!r})\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("job.py")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return "code", gzip.compress(buffer.getvalue())


def arguments(place: Place) -> tuple[str, bytes]:
    evil = place.evil
    return "data", TaskBlock(0, array("Q", [len(evil)] * 2), evil * 2).encode()


def payload(place: Place, kind: str) -> Path:
    """The largest payload of a kind."""
    signs = {"code": b"\x1f\x8b", "data": b"VMT1", "index": b"[[", "function": b"\x80\x05"}
    found = [path for path in (place.store / "payloads").iterdir() if path.read_bytes().startswith(signs[kind])]
    return max(found, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("kind", ["code", "data", "index", "function"])
def test_forged_payloads_are_refused_before_they_are_opened(submitted: Place, kind: str) -> None:
    place = submitted
    path = payload(place, kind)
    before = path.read_bytes()
    forged = {
        "code": lambda: code(place)[1],
        "data": lambda: arguments(place)[1],
        "index": lambda: before.replace(b"0", b"1"),
        "function": lambda: place.evil,
    }[kind]()
    assert len(forged) <= len(before)
    path.write_bytes(forged + bytes(len(before) - len(forged)))
    done = drive(place.shell) if kind == "function" else place.shell.run("submit", "job.py", exit_code=6)
    assert done.returncode != 0
    assert "what was submitted; nothing of" in done.stderr
    assert not place.canary.exists()
    # And what is said to be done about it helps.
    assert kind == "function" or f"delete payloads/{path.name}" in done.stderr
    path.unlink()
    again = drive(place.shell) if kind == "function" else place.shell.run("submit", "job.py")
    assert again.stdout == ("[2, 3]\n" if kind == "function" else "12000\n1\n")
    assert path.read_bytes() == before
    until(lambda: not processes(str(place.shell.home)), 30, "the machines end by themselves")


def test_a_payload_that_was_cut_is_mended_by_the_next_submission(submitted: Place) -> None:
    path = payload(submitted, "code")
    before = path.read_bytes()
    path.write_bytes(before[:100])
    assert submitted.shell.run("submit", "job.py").stdout == "12000\n1\n"
    assert path.read_bytes() == before


# --- while a job runs ---


def three_are_committed(shell: Shell, job: str) -> str:
    """Wait for it; the job's VM."""
    handle = client_of(shell).handle(job)
    until(lambda: handle.status().tasks.done == 3, 60, "three tasks are committed")
    (vm,) = handle.status().vms
    return vm.id


@pytest.fixture
def live(isolated: Path) -> Iterator[Place]:
    """A fresh deployment, and nothing of it left afterwards."""
    shell = Shell(isolated)
    yield Place(shell, store_of(shell), {}, isolated / "canary")
    shell.run("reap", "--all", "--yes")
    until(lambda: not processes(str(isolated)), 60, "no machine is left")


REDUCING = """
    import pathlib, time
    import vmrun

    @vmrun.job(over=range(4), workers=2)
    def f(x):
        while x == 3 and not pathlib.Path({flag!r}).exists():
            time.sleep(0.02)
        return {value}

    @f.reduce
    def total(results):
        return len(results)
"""


@pytest.mark.parametrize("size", ["inline", "segment"])
def test_a_reduce_does_not_open_what_was_forged_meanwhile(live: Place, size: str) -> None:
    # Given a job whose last task waits, and the results of the others in the store
    shell, flag = live.shell, live.shell.home / "flag"
    value = '"x"' if size == "inline" else '"x" * 200_000'
    shell.write("job.py", REDUCING.format(flag=str(flag), value=value))
    job = live.jobs["job"] = shell.submit("job.py")
    three_are_committed(shell, job)
    # When they are replaced, and the last task ends
    if size == "inline":
        path = live.entry(live.shard("job"), "RESULTS")
        rewrite(path, lambda head: None, live.block().encode())
    else:
        for path in live.path(f"jobs/{job}/segments").iterdir():
            data = live.block().encode()
            path.write_bytes(data + bytes(path.stat().st_size - len(data)))
    flag.touch()
    # Then the reduce does not run, and the job says why
    done = shell.run("wait", job, exit_code=None)
    assert done.returncode in (3, 6), done.stderr
    assert "signed" in done.stderr
    assert not live.canary.exists()


def wait_for(path: str) -> str:
    import pathlib
    import time

    while not pathlib.Path(path).exists():
        time.sleep(0.02)  # noqa: TID251 - a task, on the VM
    return "done"


def test_forged_calls_of_an_executor_are_refused(live: Place) -> None:
    # Given an executor with a call that runs
    flag = live.shell.home / "flag"
    pool = vmrun.Executor(workers=2)
    try:
        future: Future[str] = pool.submit(wait_for, str(flag))
        until(future.running, 60, "the call runs")
        # When somebody adds a call in the client's name
        (job,) = [path.name for path in (live.store / "jobs").iterdir()]
        live.jobs["job"] = job
        last = live.entries(live.journal("job"))[-1]
        evil = live.evil
        function = codec.from_data(FunctionSpec, head_of(last)["data"]["function"])
        block = TaskBlock(1, array("Q", [len(evil)]), evil, "call").encode()
        live.seal(live.journal("job"), int(last.name) + 1, Tasks(1, 1, function), block)
        # Then it is not run, and whoever waits is told
        flag.touch()
        with pytest.raises(StoreError, match="signature"):
            future.result(240)
            pool.submit(wait_for, str(flag)).result(240)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    assert not live.canary.exists()


def test_a_forged_end_of_a_job_is_refused(live: Place) -> None:
    shell, flag = live.shell, live.shell.home / "flag"
    shell.write("job.py", REDUCING.format(flag=str(flag), value="x"))
    job = live.jobs["job"] = shell.submit("job.py")
    three_are_committed(shell, job)
    live.seal(live.journal("job"), 1, Final("done", 4, 0))
    for verb in ("status", "wait", "result"):
        assert "signature" in refused(live, verb, job)
    flag.touch()


@pytest.mark.parametrize("entry", ["ASSIGN", "DELETE"])
def test_a_vm_does_not_obey_what_others_write_into_its_journal(live: Place, entry: str) -> None:
    # Given a VM that works, and would stay warm
    shell, flag = live.shell, live.shell.home / "flag"
    shell.write("job.py", REDUCING.format(flag=str(flag), value="x"))
    job = live.jobs["job"] = shell.submit("--keep-warm", "5m", "job.py")
    vm = three_are_committed(shell, job)
    # When a stranger gives it a job of his, or condemns it
    evil = new_id(client_of(shell).desk.clock, random.Random(1))
    if entry == "ASSIGN":
        genuine = codec.from_data(Submit, head_of(live.path(keys.entry(live.journal("job"), 0)))["data"])
        live.seal(keys.job_journal(evil), 0, dataclasses.replace(genuine, job=evil))
    body = Assign(evil, 300.0) if entry == "ASSIGN" else Delete("because", "client")
    live.seal(keys.vm_journal(vm), len(live.entries(keys.vm_journal(vm))), body)
    flag.touch()
    # Then it ends what it has, and does nothing else
    assert shell.wait(job)["state"] == "done"
    assert shell.ask("result", job)["reduced"] == 4
    until(lambda: not processes(str(shell.home)), 60, "the VM ends, because it cannot be given any more jobs")
    assert not live.path(f"jobs/{evil}/shards").exists()
    assert not live.canary.exists()
