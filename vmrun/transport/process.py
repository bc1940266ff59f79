"""The computer that vmrun itself runs on, as a host: commands are processes, and one directory is their home."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from vmrun.core.clock import Clock, SystemClock
from vmrun.core.errors import Unreachable, UsageError
from vmrun.core.hosts import Completed

from .ssh_channel import CommandTimeout, TooMuchOutput

#: Bytes that a command may print.
OUTPUT_LIMIT = 16 << 20
#: What a shell reports for a command that is not there, or may not be run.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
#: Seconds between two looks at whether a command has ended while something it left behind holds its output open.
_PAUSE = 0.05
_PIECE = 1 << 16


class ProcessHost:
    """A local machine. Relative paths are below `directory`, which commands have as working directory.

    Once the directory is gone, so is the machine: every call raises Unreachable.
    """

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self._directory = Path(os.path.abspath(directory))
        self._clock = clock or SystemClock()

    def run(self, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command, in a session of its own, and wait for it.

        The exit code is -1 if a signal ended it. Raises CommandTimeout or TooMuchOutput, and then has killed it.
        """
        deadline = self._clock.monotonic() + timeout
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._directory,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            self._check_there()
            return Completed(_NOT_FOUND, b"", f"{error}\n".encode())
        except PermissionError as error:
            return Completed(_NOT_EXECUTABLE, b"", f"{error}\n".encode())
        except OSError as error:
            raise Unreachable(
                f"this computer could not start {argv[0]}: {error}",
                hint="see whether its limit of processes or its memory is reached",
            ) from error
        with process:
            exchange = _Exchange(process, os.path.basename(argv[0]), input)
            try:
                exchange.finish(self._clock, deadline)
            except Unreachable:
                _kill_group(process)
                raise
            return Completed(max(-1, process.returncode), bytes(exchange.stdout), bytes(exchange.stderr))

    def put(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o600) -> None:
        """Write a file under a temporary name beside it, then rename it."""
        target = self._directory / path
        self._make_parents(target)
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                os.fchmod(descriptor, mode)
            os.rename(temporary, target)
        except OSError as error:
            self._check_there()
            raise Unreachable(f"{target} could not be written: {error}", hint="see whether the disk is full") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def close(self) -> None:
        """Nothing is held open."""

    def _make_parents(self, target: Path) -> None:
        """Make a file's directories, but never the machine's own: when that is gone, the machine is."""
        self._check_there()
        if ".." in target.parts or target in (self._directory, *self._directory.parents):
            raise UsageError(f"{str(target)!r} is not the path of a file", hint="give a path without `..`")
        for folder in reversed(target.parents):
            if folder in (self._directory, *self._directory.parents):
                continue
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                continue
            except OSError as error:
                self._check_there()
                raise Unreachable(
                    f"{folder} could not be made: {error}", hint="see whether the disk is full"
                ) from error

    def _check_there(self) -> None:
        if not self._directory.is_dir():
            raise Unreachable(
                f"the local machine {self._directory.name} is gone",
                hint="`vmrun status` tells which machines there are",
            )


class _Exchange:
    """The conversation with a running command over its three pipes."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, input: bytes) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._process = process
        self._name = name
        self._input = memoryview(input)
        self._selector = selectors.DefaultSelector()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for stream in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE, None)
        self._selector.register(process.stdout, selectors.EVENT_READ, self.stdout)
        self._selector.register(process.stderr, selectors.EVENT_READ, self.stderr)

    def finish(self, clock: Clock, deadline: float) -> None:
        """Talk until the command has ended and all its output is read.

        What a command leaves behind may hold its pipes open; that is not waited for.
        """
        with self._selector:
            while self._selector.get_map():
                remaining = deadline - clock.monotonic()
                if remaining <= 0:
                    raise self._late()
                ended = self._process.poll() is not None
                ready = self._selector.select(0 if ended else min(_PAUSE, remaining))
                if ended and not ready:
                    break
                for key, _ in ready:
                    self._serve(key)
        try:
            self._process.wait(max(0.0, deadline - clock.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise self._late() from error

    def _late(self) -> CommandTimeout:
        return CommandTimeout(
            f"{self._name} did not end in its time", hint="try again; this computer may be overloaded"
        )

    def _serve(self, key: selectors.SelectorKey) -> None:
        stream = key.fileobj
        assert not isinstance(stream, int)
        if key.data is None:
            self._send(stream)  # type: ignore[arg-type]
            return
        piece = os.read(key.fd, _PIECE)
        key.data.extend(piece)
        if not piece:
            self._close(stream)  # type: ignore[arg-type]
        if len(self.stdout) + len(self.stderr) > OUTPUT_LIMIT:
            raise TooMuchOutput(f"{self._name} printed more than {OUTPUT_LIMIT} bytes")

    def _send(self, stream: IO[bytes]) -> None:
        try:
            self._input = self._input[os.write(stream.fileno(), self._input[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._close(stream)

    def _close(self, stream: IO[bytes]) -> None:
        self._selector.unregister(stream)
        stream.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
