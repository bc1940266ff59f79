"""What tasks write, on its way to the terminal: verbatim, or line by line with the task's number before it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from vmrun.core.views import OutputChunk

#: (task, attempt from 0 on, stream, whether it is the reduce): what one line belongs to.
Source = tuple[int, int, str, bool]
#: A line longer than this many bytes is shown in parts.
LONGEST_LINE = 64 * 1024
#: Sources whose last line may stay unfinished at a time; beyond, the oldest is shown as it is.
UNFINISHED_MAX = 1000


def source_of(chunk: OutputChunk) -> Source:
    """What the chunk is a part of."""
    return chunk.task, chunk.attempt, chunk.stream, chunk.reduce


class LinePrefixer:
    """Turns chunks of many tasks into whole lines, each with its task: `[17] text`, `[17, attempt 2] text`.

    Memory is bounded.
    """

    def __init__(self) -> None:
        self._unfinished: dict[Source, bytes] = {}

    def feed(self, chunk: OutputChunk) -> bytes:
        """The lines that `chunk` completes."""
        source = source_of(chunk)
        data = self._unfinished.pop(source, b"") + chunk.data
        lines = data.split(b"\n")
        rest = lines.pop()
        shown = b"".join(_prefixed(source, line) for line in lines)
        if len(rest) > LONGEST_LINE:
            shown, rest = shown + _prefixed(source, rest), b""
        if rest:
            self._unfinished[source] = rest
            if len(self._unfinished) > UNFINISHED_MAX:
                oldest = next(iter(self._unfinished))
                shown += _prefixed(oldest, self._unfinished.pop(oldest))
        return shown

    def flush(self) -> Iterator[tuple[str, bytes]]:
        """(stream, line) of all lines that were never finished."""
        for source, rest in self._unfinished.items():
            yield source[2], _prefixed(source, rest)
        self._unfinished.clear()


def _prefixed(source: Source, line: bytes) -> bytes:
    name = "reduce" if source[3] else str(source[0])
    if source[1]:
        name += f", attempt {source[1] + 1}"
    return b"[%s] %s\n" % (name.encode(), line.rstrip(b"\r"))


class TextDecoder:
    """Bytes of many sources as text; characters that a chunk's border cuts are put together again.

    What is not UTF-8 becomes escapes such as a backslash, x and two digits.
    """

    def __init__(self) -> None:
        self._decoders: dict[Source, codecs.IncrementalDecoder] = {}

    def feed(self, chunk: OutputChunk) -> str:
        """The text that `chunk` completes."""
        source = source_of(chunk)
        decoder = self._decoders.pop(source, None) or codecs.getincrementaldecoder("utf-8")("backslashreplace")
        text = decoder.decode(chunk.data)
        if decoder.getstate()[0]:
            self._decoders[source] = decoder
        if len(self._decoders) > UNFINISHED_MAX:
            self._decoders.pop(next(iter(self._decoders)))
        return text
