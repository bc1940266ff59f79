"""Watches a job until it ends: progress on stderr, what the program writes where a program's output belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrun.core.growth import verdict
from vmrun.core.views import JobView, OutputChunk, Snapshot
from vmrun.render import ProgressView, Screen
from vmrun.rendering.crew import crew_line
from vmrun.rendering.output import LinePrefixer
from vmrun.rendering.text import visible

if TYPE_CHECKING:
    from vmrun.handle import JobHandle


class Relay:
    """Passes output on: a script's, a command's and a reduce's verbatim, that of many tasks with their number.

    With JSON on stdout, all output goes to stderr.
    """

    def __init__(self, screen: Screen, *, task_output: bool) -> None:
        self._screen = screen
        self._task_output = task_output
        self._prefixer = LinePrefixer()

    def show(self, snapshot: Snapshot) -> None:
        """Write what is new."""
        if not snapshot.output:
            return
        single = snapshot.job.kind in ("script", "command")
        with self._screen.above_progress():
            for chunk in snapshot.output:
                if single or chunk.reduce:
                    self._verbatim(chunk)
                elif self._task_output and (lines := self._prefixer.feed(chunk)):
                    self._screen.raw("stderr", lines)

    def _verbatim(self, chunk: OutputChunk) -> None:
        self._screen.raw("stderr" if self._screen.as_json else chunk.stream, chunk.data)
        self._screen.hold_progress(held=not chunk.data.endswith(b"\n"))

    def close(self) -> None:
        """Write lines that were never finished."""
        for _, line in self._prefixer.flush():
            self._screen.raw("stderr", line)


def tell(screen: Screen, snapshot: Snapshot) -> None:
    """What happened to the job's machines."""
    if snapshot.news:
        with screen.above_progress():
            screen.notes(visible(text) for text in snapshot.news)


def follow(handle: JobHandle, screen: Screen, progress: ProgressView, *, task_output: bool) -> JobView:
    """The job as it ended, with all of its output shown. Its machine is not given back yet."""
    relay = Relay(screen, task_output=task_output)
    view: JobView | None = None
    told, moves = False, 0
    try:
        for snapshot in handle.watch(output=True):
            view = snapshot.job
            if not told and (line := crew_line(view)):
                told = True
                with screen.above_progress():
                    screen.note(line)
            for outgrown in view.outgrown[moves:]:
                moves += 1
                with screen.above_progress():
                    screen.note(f"{verdict(outgrown)}; on to a larger machine")
            relay.show(snapshot)
            tell(screen, snapshot)
            progress.see(snapshot)
            # Further on, the watch gives back the machine.
            if view.state.ended and not snapshot.output:
                break
    finally:
        progress.close()
        relay.close()
    return view if view is not None else handle.status()
