"""Shared data as users have them: an object from Python, a file from the command line, one copy on the VM."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

import vmrun
from tests.support.shell import Shell
from vmrun.bundle.sharing import pack_shared
from vmrun.core import keys
from vmrun.core.ledger import JobLedger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MEGA = 1_000_000


def total(factor: int) -> tuple[int, float]:
    mine = vmrun.shared()
    return os.getpid(), factor * float(mine["array"].sum()) + mine["plain"]["one"]


def payloads(client: vmrun.Client) -> dict[str, int]:
    return {found.key: found.size for found in client.blobs.list(keys.payload(""))}


def test_an_object_is_uploaded_once_and_named_in_the_job(isolated: Path) -> None:
    client = vmrun.Client()
    shared = {"array": np.arange(2.5 * MEGA), "plain": {"one": 1}}
    expected = [factor * shared["array"].sum() + 1 for factor in range(6)]
    first = vmrun.submit(total, range(6), shared=shared, workers=2, client=client)
    assert [value for _, value in first.results()] == expected
    spec = JobLedger(client.desk, first.id).refresh().spec
    assert spec.shared is not None
    assert spec.shared.name == ""
    before = payloads(client)
    assert before[keys.payload(spec.shared.payload.sha256)] == spec.shared.payload.size >= 20 * MEGA
    path = isolated / ".local/share/vmrun/store" / keys.payload(spec.shared.payload.sha256)
    written = path.stat().st_mtime_ns
    assert hashlib.sha256(path.read_bytes()).hexdigest() == spec.shared.payload.sha256
    second = vmrun.submit(total, range(6), shared=shared, workers=2, client=client)
    assert [value for _, value in second.results()] == expected
    assert payloads(client) == before
    assert path.stat().st_mtime_ns == written


def test_an_executor_shares_too_and_a_killed_worker_changes_nothing(isolated: Path) -> None:
    with vmrun.Executor(workers=2, shared={"array": np.ones(MEGA), "plain": {"one": 1}}) as pool:
        pids = {pool.submit(total, 1).result(240)[0] for _ in range(5)}
        with pytest.raises(vmrun.TaskError):
            pool.submit(os._exit, 3).result(240)
        assert {value for _, value in pool.map(total, [2] * 20, timeout=240)} == {2 * MEGA + 1}
        assert os.getpid() not in pids


def test_what_the_shared_object_raises_on_the_vm_is_what_each_task_raises(isolated: Path) -> None:
    handle = vmrun.submit(total, range(3), shared=Refuses())
    with pytest.raises(ZeroDivisionError) as caught:
        list(handle.results())
    assert "shared data" in str(caught.value.__cause__)
    assert [failure.task for failure in handle.failures()] == [0, 1, 2]


class Refuses:
    def __reduce__(self) -> tuple[object, ...]:
        return divmod, (1, 0)


def test_what_cannot_be_pickled_is_refused_at_submit(isolated: Path) -> None:
    with pytest.raises(vmrun.VmrunError, match=r"the shared object\['lock'\] is a _thread.lock"):
        vmrun.submit(total, range(3), shared={"lock": threading.Lock()})
    assert vmrun.Client().jobs() == []


def test_an_object_and_a_file_are_too_much(isolated: Path) -> None:
    (isolated / "f").write_text("x")
    with pytest.raises(vmrun.VmrunError, match="both an object and a file"):
        vmrun.submit(total, range(3), shared=1, shared_file=str(isolated / "f"))
    with pytest.raises(vmrun.VmrunError, match="does not exist"):
        vmrun.submit(total, range(3), shared_file=str(isolated / "nope"))


def test_a_shared_object_that_was_changed_in_the_store_is_never_opened(isolated: Path, tmp_path: Path) -> None:
    client, canary = vmrun.Client(), tmp_path / "canary"
    shared = {"array": np.ones(MEGA), "plain": {"one": 1}}
    first = vmrun.submit(total, [1], shared=shared, client=client)
    assert first.result()[1] == MEGA + 1
    spec = JobLedger(client.desk, first.id).refresh().spec
    assert spec.shared is not None
    payload = spec.shared.payload
    evil = b"".join(pack_shared(Canary(str(canary)), tmp_path))
    client.blobs.replace(keys.payload(payload.sha256), evil.ljust(payload.size, b"\0"))
    # The same once more: the client takes what is there for its own.
    second = vmrun.submit(total, [1], shared=shared, client=client)
    with pytest.raises(vmrun.VmrunError, match="shared data in the store is not what was submitted"):
        second.result()
    assert not canary.exists()
    vmrun.core.parcels.load(bytearray(evil))
    assert canary.exists()


class Canary:
    """Makes a directory when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


# --- the command line ---


def results(shell: Shell, *arguments: str) -> list[object]:
    """The values of the tasks of a job that is submitted."""
    job = shell.ask("submit", *arguments)["job"]
    found: list[object] = shell.ask("result", job["id"])["results"]
    return found


def test_a_file_is_there_for_every_form_of_job(shell: Shell) -> None:
    shell.write("data.csv", "a,b\n1,2\n")
    command = shell.run(
        "submit", "--shared", "data.csv", "--", "sh", "-c", 'basename "$VMRUN_SHARED"; cat "$VMRUN_SHARED"'
    )
    assert command.stdout == "data.csv\na,b\n1,2\n"
    shell.write(
        "script.py",
        """
        import os, pathlib
        import vmrun
        path = vmrun.shared()
        assert isinstance(path, pathlib.Path) and str(path) == os.environ["VMRUN_SHARED"]
        print(path.name, path.read_text().split(), oct(path.stat().st_mode & 0o777))
        """,
    )
    script = shell.run("submit", "script.py", "--shared", "data.csv")
    assert script.stdout == "data.csv ['a,b', '1,2'] 0o444\n"
    shell.write(
        "over.py",
        """
        import vmrun
        @vmrun.job(over=range(3))
        def f(x):
            return [x, vmrun.shared().read_text()]
        """,
    )
    assert results(shell, "over.py", "--shared", "data.csv") == [[x, "a,b\n1,2\n"] for x in range(3)]


@pytest.mark.parametrize(("name", "words"), [("nope", "is not a file that exists"), (".", "is a directory")])
def test_a_file_that_is_none_is_refused(shell: Shell, name: str, words: str) -> None:
    done = shell.run("submit", "--shared", name, "--", "true", exit_code=2)
    assert f"--shared: '{name}' {words}" in done.stderr
    assert shell.ask("status")["jobs"] == []


def test_a_job_file_shares_what_its_function_gives(shell: Shell) -> None:
    shell.write(
        "job.py",
        """
        import os
        import vmrun

        class Table:
            def __init__(self, rows):
                self.rows = rows

        def load():
            with open("calls", "a") as file:
                file.write("x")
            return Table({n: n * n for n in range(1000)})

        @vmrun.job(over=range(5), shared=load, workers=2)
        def f(x):
            table = vmrun.shared()
            assert isinstance(table, Table)
            return table.rows[x]
        """,
    )
    assert results(shell, "job.py") == [x * x for x in range(5)]
    assert (shell.home / "calls").read_text() == "x"
    shell.write("bad.py", "import vmrun\n@vmrun.job(shared=lambda: 1 // 0)\ndef f(): pass\n")
    refused = shell.run("submit", "bad.py", exit_code=2)
    assert "what job f shares (`shared`) raised ZeroDivisionError" in refused.stderr


def test_a_script_can_have_an_object(shell: Shell, isolated: Path) -> None:
    path = shell.write("script.py", "import vmrun\nprint(vmrun.shared()['word'], vmrun.shared()['array'].sum())\n")
    handle = vmrun.submit(str(path), shared={"word": "said", "array": np.ones(100_000)})
    handle.wait()
    assert b"".join(chunk.data for chunk in handle.logs()) == b"said 100000.0\n"


# --- large results ---


def large(size: int) -> bytes:
    return bytes([size % 251]) * size


def agent_peak(client: vmrun.Client) -> int:
    """Peak resident bytes of an agent, as the largest of them said with its last sign of life."""
    found = client.blobs.list(keys.heartbeat(""))
    heads = [json.loads(client.blobs.get(one.key).partition(b"\n")[0]) for one in found]
    return max(int(head["data"]["agent_memory"]) for head in heads)


def test_the_agents_memory_does_not_grow_with_large_results(isolated: Path) -> None:
    client = vmrun.Client()
    vmrun.submit(large, [10] * 100, workers=2, client=client).wait()
    before = agent_peak(client)
    sizes = [10 * MEGA] * 32 + [300 * MEGA]
    handle = vmrun.submit(large, sizes, workers=2, client=client)
    for size, value in zip(sizes, handle.results(), strict=True):
        assert (len(value), value.count(size % 251)) == (size, size)
    assert 0 < before <= agent_peak(client) < before + 40 * MEGA


def arrays(number: int) -> dict[str, object]:
    fixed = np.full(50_000, number)
    fixed.flags.writeable = False
    return {"array": np.full(5 * MEGA, float(number)), "fixed": fixed, "small": np.arange(3), "n": number}


def test_arrays_in_results_come_home_on_memory_of_their_own(isolated: Path, tmp_path: Path) -> None:
    client = vmrun.Client()
    handle = vmrun.submit(arrays, range(3), workers=2, client=client)
    found = list(handle.results())
    handle.save(str(tmp_path / "values.pkl"))
    saved = pickle.loads((tmp_path / "values.pkl").read_bytes())
    for ways in (found, handle.collect().values, handle.result(), saved):
        assert [value["n"] for value in ways] == [0, 1, 2]
        for number, value in enumerate(ways):
            assert np.array_equal(value["array"], np.full(5 * MEGA, float(number)))
            assert (value["array"].flags.writeable, value["fixed"].flags.writeable) == (True, False)
            assert (int(value["fixed"].sum()), list(value["small"])) == (number * 50_000, [0, 1, 2])
    # Whoever keeps one of a result's arrays does not keep the others.
    assert len(memory_of(found[0]["fixed"])) == found[0]["fixed"].nbytes
    assert len(memory_of(found[0]["array"])) == found[0]["array"].nbytes


def memory_of(array: np.ndarray) -> object:
    """What an array lies on in the end."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


def test_a_reduce_gets_large_arrays_and_gives_one(isolated: Path) -> None:
    @vmrun.job(over=range(3), workers=2)
    def make(number: int) -> np.ndarray:
        return np.full(2 * MEGA, float(number))

    @make.reduce
    def add(results: list[np.ndarray]) -> np.ndarray:
        first, *rest = results
        for other in rest:
            first += other
        return first

    found = vmrun.submit(make).result()
    assert set(found) == {3.0}
    assert found.flags.writeable


def test_arrays_in_arguments_lie_where_they_arrived(isolated: Path) -> None:
    arrays = [np.full(MEGA, float(at)) for at in range(4)]
    arrays[3].flags.writeable = False

    def look(item: dict[str, np.ndarray]) -> tuple[float, bool, int, bool]:
        array = item["array"]
        writeable = array.flags.writeable
        if writeable:
            array += 1
        # Not a copy of its own: it lies on memory that holds more than this array.
        return float(array[0]), writeable, array.ctypes.data % 64, array.base is not None

    found = list(vmrun.submit(look, [{"array": array, "name": "x" * 1000} for array in arrays]).results())
    assert found == [(1.0, True, 0, True), (2.0, True, 0, True), (3.0, True, 0, True), (3.0, False, 0, True)]
    assert pickle.dumps(arrays[0]) == pickle.dumps(np.full(MEGA, 0.0))
