"""The reaper as people run it: a service beside their jobs, on machines of this computer; and what is told of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.shell import Shell, until

pytestmark = pytest.mark.e2e


def test_a_service_keeps_what_is_warm_and_stops_cleanly(shell: Shell) -> None:
    shell.write("job.py", "print('done')")
    job = shell.ask("submit", "--keep-warm", "10m", "job.py")["job"]
    vm = job["vms"][0]["id"]
    health = shell.home / "health.json"
    service = shell.start("reap", "--every", "1s", "--json", "--health-file", str(health))
    try:
        until(lambda: health.exists() and json.loads(health.read_text())["passes"] >= 2, what="two passes")
    finally:
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=240)
    assert service.returncode == 0, err
    passes = [json.loads(line) for line in out.splitlines()]
    assert [verdict["policy"] for verdict in passes[0]["verdicts"]] == ["keep"]
    assert [one["verdicts"] for one in passes[1:]] == [[]] * (len(passes) - 1)
    assert json.loads(health.read_text())["running"] is False

    # It lives, and its life says what will end it
    told = shell.ask("why", vm[:12])
    assert (told["vm"]["id"], told["vm"]["state"]) == (vm, "ready")
    assert [one["type"] for one in told["life"]] == ["INTENT", "CREATED", "READY"]
    assert told["heartbeat"]["counter"] > 0
    assert "maximum lifetime" in [each["what"] for each in told["deadlines"]]

    # All of it goes at once, and the journal outlives it
    assert [each["delete"] for each in shell.ask("reap", "--all", "--yes")["verdicts"]] == [True]
    assert shell.ask("status")["vms"] == []
    told = shell.ask("why", vm)
    assert (told["vm"]["state"], told["deadlines"]) == ("gone", [])
    by = {one["type"]: one["by"] for one in told["life"]}
    assert (by["DELETE"], by["GONE"]) == ("reaper", "client")
    assert "to be deleted: all: asked for" in shell.run("why", vm).stdout


def test_of_a_vm_that_never_was_there_is_nothing_to_tell(shell: Shell) -> None:
    for text in ("0" * 26, "../../x", "abc"):
        assert "knows no VM" in shell.run("why", text, exit_code=2).stderr


def test_a_service_does_not_begin_on_a_store_of_somebody_else(shell: Shell, tmp_path: Path) -> None:
    shell.ask("reap")
    stranger = Shell(tmp_path, {"VMRUN_STORE": f"file://{next(shell.home.rglob('deployment.json')).parent}"})
    assert "another deployment" in stranger.run("reap", "--every", "1s", exit_code=2).stderr
