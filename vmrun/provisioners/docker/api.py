"""The `docker` command: every call bounded in time, its failures as CloudErrors."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import IO, Any

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.hosts import Completed

_HINT = "start Docker, or use --on local"
#: What the command says when there is nobody to talk to, in its several versions.
_ABSENT = ("Cannot connect to the Docker daemon", "failed to connect to the docker API", "error during connect")
_FORBIDDEN = "permission denied while trying to connect"
#: Lines kept of a long command, for its error.
_KEPT_LINES = 12


class Docker:
    """Calls the `docker` command, which knows where its engine is (contexts, DOCKER_HOST)."""

    def __init__(self, program: str = "docker") -> None:
        self._program = program

    def run(self, *arguments: str, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command whatever its exit code. CloudError if there is no engine, or no answer in time."""
        try:
            done = subprocess.run(
                [self._program, *arguments], input=input, capture_output=True, timeout=timeout, check=False
            )
        except FileNotFoundError as error:
            raise self._no_command() from error
        except subprocess.TimeoutExpired as error:
            raise _mute(arguments[0], timeout) from error
        completed = Completed(done.returncode, done.stdout, done.stderr)
        _check_engine(completed)
        return completed

    def sequence(self, steps: Sequence[tuple[Sequence[str], bytes]], *, timeout: float = 180.0) -> Completed:
        """Run commands, each with its input, one after the other, until one fails; what the last one left behind.

        They are run to the end even if this process is killed meanwhile, or its terminal is interrupted.
        """
        if shutil.which(self._program) is None:
            raise self._no_command()
        orders = [
            {"argv": [self._program, *arguments], "input": base64.b64encode(given).decode()}
            for arguments, given in steps
        ]
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _sequence()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with process:
            try:
                said, _ = process.communicate(json.dumps(orders).encode(), timeout=timeout)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise _mute(steps[0][0][0], timeout) from error
        if process.returncode != 0:
            raise _mute(steps[0][0][0], timeout)
        report = json.loads(said)
        completed = Completed(
            int(report["exit_code"]), base64.b64decode(report["stdout"]), base64.b64decode(report["stderr"])
        )
        _check_engine(completed)
        return completed

    def _no_command(self) -> CloudError:
        return CloudError(
            f"there is no command `{self._program}` here",
            fault=Fault.config,
            scope=Scope.cloud,
            hint="install Docker Engine, or use --on local",
        )

    def call(self, *arguments: str, input: bytes = b"", timeout: float = 60.0) -> str:
        """Run a command that must succeed; its output. CloudError with what Docker said otherwise."""
        done = self.run(*arguments, input=input, timeout=timeout)
        if done.exit_code != 0:
            raise failure(arguments[0], message(done))
        return done.stdout.decode("utf-8", "replace").strip()

    def info(self) -> Mapping[str, Any]:
        """What the engine says of itself and its machine."""
        found = json.loads(self.call("info", "--format", "{{json .}}"))
        # An old command reports a missing engine here, and exits with 0.
        if not isinstance(found, dict) or not found.get("NCPU"):
            errors = found.get("ServerErrors") if isinstance(found, dict) else None
            raise _no_engine("; ".join(errors or ["it says nothing of its machine"]))
        return found

    def inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the engine knows of these objects; those that are not there are left out."""
        if not names:
            return []
        done = self.run("inspect", "--type", kind, *names)
        lines = message(done).splitlines()
        unexpected = [line for line in lines if "No such" not in line]
        if done.exit_code != 0 and unexpected:
            raise failure("inspect", unexpected[0])
        found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
        return found

    def stream(
        self,
        *arguments: str,
        on_line: Callable[[str], None],
        stdin: IO[bytes] | None = None,
        timeout: float,
        first_line_within: float | None = None,
    ) -> None:
        """Run a long command, handing on each line as it comes. CloudError with its last lines if it fails."""
        environment = {**os.environ, "BUILDKIT_PROGRESS": "plain"}
        run_lines(
            [self._program, *arguments],
            on_line,
            stdin=stdin,
            environment=environment,
            timeout=timeout,
            first_line_within=first_line_within,
        )


def run_lines(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    timeout: float,
    stdin: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    first_line_within: float | None = None,
) -> None:
    """Run a program for up to `timeout` seconds, handing on the lines of its output. CloudError if it fails."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    except FileNotFoundError as error:
        raise CloudError(f"there is no command `{argv[0]}` here", fault=Fault.config, hint=_HINT) from error
    late = threading.Timer(timeout, process.kill)
    silent = threading.Timer(first_line_within or timeout, process.kill)
    late.start()
    silent.start()
    kept: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            silent.cancel()
            text = line.decode("utf-8", "replace").rstrip()
            kept = [*kept[1 - _KEPT_LINES :], text]
            on_line(text)
        code = process.wait()
    finally:
        late.cancel()
        silent.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if code != 0:
        why = "\n".join(kept) if code > 0 else f"ended after {timeout:.0f} s at most, still running"
        raise failure(" ".join(argv[:2]), why)


def message(done: Completed) -> str:
    """What a command wrote to its error stream, or else to its output."""
    return (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")


def failure(what: str, said: str) -> CloudError:
    """The error for a command that failed, its fault read from what Docker said."""
    fault = Fault.unknown
    if "Range of CPUs" in said or "minimum memory limit" in said.lower():
        fault = Fault.not_offered
    elif "no space left" in said.lower():
        fault = Fault.stockout
    elif "bind source path does not exist" in said or "invalid mount config" in said:
        fault = Fault.config
    return CloudError(f"`{what}` failed: {said[-2000:]}", fault=fault, scope=Scope.cloud, hint="see `docker info`")


def _check_engine(done: Completed) -> None:
    said = done.stderr.decode("utf-8", "replace")
    if done.exit_code == 0:
        return
    if any(text in said for text in _ABSENT):
        raise _no_engine(said.strip().splitlines()[-1])
    if _FORBIDDEN in said.lower():
        raise CloudError(
            "this user may not talk to Docker Engine",
            fault=Fault.permission,
            scope=Scope.cloud,
            hint="join the group `docker` and log in again, or use --on local",
        )


@cache
def _sequence() -> str:
    return files(__package__).joinpath("sequence.py").read_text(encoding="utf-8")


def _mute(what: str, timeout: float) -> CloudError:
    return CloudError(
        f"`docker {what}` gave no answer for {timeout:.0f} s",
        fault=Fault.unavailable,
        scope=Scope.cloud,
        hint="see whether Docker hangs: docker info",
    )


def _no_engine(said: str) -> CloudError:
    return CloudError(f"no Docker Engine answers: {said[:500]}", fault=Fault.config, scope=Scope.cloud, hint=_HINT)
