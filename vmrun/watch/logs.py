"""A job's captured output, from the store: it outlives the VM."""

from __future__ import annotations

from collections.abc import Iterator

from vmrun.core import keys, output
from vmrun.core.errors import StoreError
from vmrun.core.storage import Store
from vmrun.core.views import OutputChunk

#: Bytes of output that a watcher takes at once.
SOME = 16 * 1024 * 1024


class OutputReader:
    """Reads a job's output from where it stopped last time."""

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._prefix = keys.task_output(job)
        #: Last key read of each writer.
        self._last: dict[str, str] = {}

    def read(self) -> Iterator[OutputChunk]:
        """Output that appeared since; each writer's in its order."""
        for chunks in self._objects():
            yield from chunks

    def read_some(self, most: int = SOME) -> list[OutputChunk]:
        """Some of what appeared since, to be held in memory: hardly more than `most` bytes. Empty when that is all."""
        found: list[OutputChunk] = []
        size = 0
        try:
            for chunks in self._objects():
                found += chunks
                size += sum(len(chunk.data) for chunk in chunks)
                if size >= most:
                    break
        except StoreError:
            if not found:  # else it is met again, after what was read has been handed out
                raise
        return found

    def _objects(self) -> Iterator[list[OutputChunk]]:
        for stream in self._streams():
            prefix = f"{self._prefix}{stream}/"
            for listed in self._store.list(prefix, after=self._last.get(stream, "")):
                chunks = list(output.decode(self._store.get(listed.key)))
                self._last[stream] = listed.key
                yield chunks

    def _streams(self) -> Iterator[str]:
        """Names of writers, skipping from one to the next without listing what each wrote."""
        after = ""
        while True:
            first = next(self._store.list(self._prefix, after=after), None)
            if first is None:
                return
            stream = first.key[len(self._prefix) :].partition("/")[0]
            yield stream
            # "0" follows "/", so this key sorts after everything that the writer wrote.
            after = f"{self._prefix}{stream}0"
