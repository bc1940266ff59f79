"""The one place where anything is printed: data on stdout, progress and messages on stderr.

Plain text where a stream is no terminal, no colour where NO_COLOR is set, ASCII where the encoding knows no more.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .core.clock import Clock
from .core.errors import VmrunError

if TYPE_CHECKING:
    from rich.live import Live

    from .core.views import Snapshot
    from .rendering.text import Style

#: Columns assumed where a terminal does not tell.
DEFAULT_WIDTH = 80
#: How often a live display is drawn, per second.
DRAWN_PER_SECOND = 4


class OutputClosed(Exception):
    """Whoever read stdout has gone away, as `head` does: nothing to complain about, and nobody to tell."""


class ProgressView(Protocol):
    """Shows how a submission is doing."""

    def stage(self, text: str) -> None:
        """What is being done now, in a few words."""
        ...

    def see(self, snapshot: Snapshot) -> None:
        """The job as it is now."""
        ...

    def close(self) -> None:
        """Nothing more to show; may be called twice."""
        ...


class Screen:
    """stdout and stderr of this process, and what they can show."""

    def __init__(
        self, stdout: TextIO, stderr: TextIO, *, environ: Mapping[str, str], clock: Clock, as_json: bool = False
    ) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._environ = environ
        self._clock = clock
        #: Whether data goes out as JSON documents.
        self.as_json = as_json
        self._live: _LiveView | None = None

    # --- what the streams can do ---

    @property
    def style(self) -> Style:
        """What stdout can show."""
        return self._style_of(self._stdout)

    @property
    def interactive(self) -> bool:
        """Whether stdout is a terminal."""
        return _is_terminal(self._stdout)

    @property
    def err_style(self) -> Style:
        """What stderr can show."""
        return self._style_of(self._stderr)

    @property
    def err_interactive(self) -> bool:
        """Whether stderr is a terminal on which lines may be drawn over."""
        return _is_terminal(self._stderr) and self._environ.get("TERM", "") not in ("", "dumb")

    def _style_of(self, stream: TextIO) -> Style:
        from .rendering.text import Style

        terminal = _is_terminal(stream)
        dumb = self._environ.get("TERM", "") in ("", "dumb")
        return Style(
            color=terminal and not dumb and not self._environ.get("NO_COLOR"),
            unicode=_encodes(stream, "…·█⠋"),
            width=_width(stream, self._environ) if terminal else 0,
        )

    # --- stdout ---

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of data."""
        for line in lines:
            self._out(f"{line}\n")
        self.flush()

    def document(self, document: Mapping[str, Any]) -> None:
        """One JSON document, on one line."""
        from .rendering.documents import dumps

        self._out(f"{dumps(document)}\n")
        self.flush()

    def text(self, text: str) -> None:
        """Text as it is, without a line's end of its own."""
        self._out(text)

    def flush(self) -> None:
        """Hand on what was written so far."""
        with _writing():
            self._stdout.flush()

    def _out(self, text: str) -> None:
        with _writing():
            self._stdout.write(text)

    # --- either ---

    def raw(self, stream: str, data: bytes) -> None:
        """Bytes of the user's program, verbatim, to `stdout` or `stderr`."""
        target = self._stdout if stream == "stdout" else self._stderr
        with _writing() if target is self._stdout else contextlib.suppress(OSError, ValueError):
            target.flush()
            buffer = getattr(target, "buffer", None)
            if buffer is None:
                target.write(data.decode("utf-8", "backslashreplace"))
            else:
                _write_all(buffer, data)
            target.flush()

    # --- stderr ---

    def note(self, text: str = "") -> None:
        """A line for the person at the terminal. That nobody reads it is no error."""
        with contextlib.suppress(OSError, ValueError):
            self._stderr.write(f"{text}\n")
            self._stderr.flush()

    def notes(self, lines: Iterable[str]) -> None:
        """Several."""
        for line in lines:
            self.note(line)

    def error(self, error: VmrunError, **fields: Any) -> None:
        """One message and its hint on stderr; or the JSON document of the error, with `fields`, on stdout."""
        if self.as_json:
            from .rendering.documents import failure

            self.document(failure(error, **fields))
            return
        from .rendering.text import paragraphs

        style = self.err_style
        self.note(f"{style.paint('error:', 'red')} {paragraphs(error.message)}")
        if error.data:
            from .rendering.reasons import reasons

            self.notes(reasons(error.data, style))
        if error.hint:
            self.note(f"{style.paint('hint:', 'bold')} {paragraphs(error.hint)}")

    def ask(self, question: str) -> bool:
        """The answer of the person at the terminal; whatever is not a yes is a no."""
        with contextlib.suppress(OSError, ValueError):
            self._stderr.write(f"{question} [y/N] ")
            self._stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    # --- progress ---

    def progress(self) -> ProgressView:
        """A display of progress on stderr: live on a terminal, else a line now and then."""
        if self.err_interactive:
            self._live = _LiveView(self._stderr, self._clock, lambda: self.err_style)
            return self._live
        return _PlainView(self, self._clock)

    @contextlib.contextmanager
    def above_progress(self) -> Iterator[None]:
        """Within, the live display (if there is one) is out of the way of what is written."""
        if self._live is None:
            yield
            return
        self._live.hide()
        try:
            yield
        finally:
            self._live.show()

    def hold_progress(self, *, held: bool) -> None:
        """While held, the live display stays away: the program's line on the terminal is not finished yet."""
        if self._live is not None and self.interactive:
            self._live.held = held

    @contextlib.contextmanager
    def redrawn(self) -> Iterator[Callable[[Iterable[str]], None]]:
        """A function that draws lines on the terminal's stdout over the ones that it drew before."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._stdout, highlight=False, emoji=False, markup=False)
        with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            yield lambda lines: live.update(Text.from_ansi("\n".join(lines)), refresh=True)

    # --- the end ---

    @property
    def abandoned(self) -> bool:
        """Whether nobody reads stdout any more."""
        try:
            poll = select.poll()
            poll.register(self._stdout.fileno(), select.POLLOUT)
            return any(events & select.POLLERR for _, events in poll.poll(0))
        except (OSError, ValueError):
            return False

    def abandon(self) -> None:
        """Let what is still buffered for stdout go nowhere, so that the interpreter's exit does not complain."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stdout.fileno())
            os.close(nowhere)


class _PlainView:
    """A line when something happened, else every few seconds."""

    def __init__(self, screen: Screen, clock: Clock) -> None:
        from .rendering.progress import LinePacer, Progress

        self._screen, self._clock = screen, clock
        self._progress = Progress(clock.monotonic())
        self._pacer = LinePacer()

    def stage(self, text: str) -> None:
        self._progress.stage(text)
        self._show()

    def see(self, snapshot: Snapshot) -> None:
        self._progress.see(snapshot, self._clock.monotonic())
        self._show()

    def close(self) -> None:
        pass

    def _show(self) -> None:
        now = self._clock.monotonic()
        if self._pacer.due(self._progress, now):
            self._screen.note(self._progress.line(now, self._screen.err_style))


class _LiveView:
    """A few lines at the bottom of the terminal, drawn anew several times a second."""

    def __init__(self, stream: TextIO, clock: Clock, style: Callable[[], Style]) -> None:
        """`style` is asked each time: a terminal may change its width."""
        from .rendering.progress import Progress

        self._stream, self._clock, self._style = stream, clock, style
        self._progress = Progress(clock.monotonic())
        self._live: Live | None = None
        self._closed = False
        self.held = False

    def stage(self, text: str) -> None:
        self._progress.stage(text)
        self.show()

    def see(self, snapshot: Snapshot) -> None:
        self._progress.see(snapshot, self._clock.monotonic())
        self.show()

    def show(self) -> None:
        """Draw, from now on."""
        if self._live is not None or self._closed or self.held:
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._stream, highlight=False, emoji=False, markup=False)
        self._live = Live(
            console=console,
            get_renderable=lambda: Text("\n".join(self._progress.lines(self._clock.monotonic(), self._style()))),
            refresh_per_second=DRAWN_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def hide(self) -> None:
        """Take away what was drawn."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def close(self) -> None:
        self._closed = True
        self.hide()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Failures to write to stdout, told apart: the reader is gone, or there is a reason to give."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        raise CannotWrite(
            f"cannot write to the standard output: {error.strerror}", hint="see to where the output goes"
        ) from error


def _write_all(stream: Any, data: bytes) -> None:
    """All of it: a stream without a buffer (PYTHONUNBUFFERED) may take a part only, and says so by a number."""
    left = memoryview(data)
    while left:
        taken = stream.write(left)
        if taken is None:  # a descriptor that does not block, and is full
            select.select((), (stream,), ())
        else:
            left = left[taken:]


class CannotWrite(VmrunError):
    """stdout takes nothing more, for example because the disk behind it is full."""

    code = "output"


def standard_screen(*, as_json: bool, clock: Clock) -> Screen:
    """The screen of this process. Descriptors that were closed lead nowhere from now on, text is never refused."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would get this number, and would be written into.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    return Screen(sys.stdout, sys.stderr, environ=os.environ, clock=clock, as_json=as_json)


def show_version(screen: Screen) -> None:
    """`vmrun --version`."""
    from . import __version__

    if screen.as_json:
        from .rendering.documents import document

        screen.document(document(version=__version__))
    else:
        screen.lines([f"vmrun {__version__}"])


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (LookupError, UnicodeError):
        return False
    return True


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    given = environ.get("COLUMNS", "")
    if given.isdecimal() and 0 < int(given[:6]) < 10_000:
        return int(given[:6])
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH
