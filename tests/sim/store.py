"""An object store that is strongly consistent and otherwise as bad as stores get.

Requests and replies take time, are refused, get lost; a create may take effect long after its sender gave up. What
takes effect is told to the oracle at that very moment.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.sim.oracle import Oracle
from tests.sim.world import World
from vmrun.core.errors import KeyExists, KeyNotFound, StoreUnavailable
from vmrun.core.storage import Listed


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is: probabilities per request, seconds per request."""

    before: float = 0.03
    after: float = 0.03
    late: float = 0.02
    slow: float = 0.05
    #: Probability of a wait between the effect and the sender's knowing of it.
    reply: float = 0.3
    #: Most seconds of a slow request, and of the delay of a late create.
    slow_seconds: float = 10.0
    late_seconds: float = 200.0


class SimStore:
    """One bucket, for all processes of a world."""

    def __init__(self, world: World, oracle: Oracle, weather: Weather) -> None:
        self._world = world
        self._oracle = oracle
        self._weather = weather
        self.objects: dict[str, bytes] = {}
        self._keys: list[str] = []
        #: Writes so far, and the fate of some of them, by number: instead of the weather's.
        self.writes = 0
        self.fates: dict[int, str] = {}

    # --- the protocol `BlobStore` ---

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._ask("get", key)
        body = self.objects.get(key)
        self._reply()
        if body is None:
            raise KeyNotFound(key)
        return body if end is None and not start else body[start:end]

    def create(self, key: str, body: bytes) -> None:
        world = self._world
        assert world.current is not None
        world.current.last_create = (key, body)
        fate = self._ask("create", key)
        if fate == "late":
            world.after(world.rng.uniform(0.0, self._weather.late_seconds), lambda: self._arrive(key, body))
            world.wait(world.rng.uniform(0.0, 10.0))
            raise StoreUnavailable("timed out")
        found = self.objects.get(key)
        if found is None:
            self._put(key, body)
        elif found == body:
            world.note("own entry answered with exists")
        if fate == "after":
            world.wait(world.rng.uniform(0.0, 5.0))
            raise StoreUnavailable("connection reset")
        self._reply()
        if found is not None:
            raise KeyExists(key)

    def replace(self, key: str, body: bytes) -> None:
        world = self._world
        fate = self._ask("replace", key)
        if fate == "late":
            world.after(world.rng.uniform(0.0, self._weather.late_seconds), lambda: self._put(key, body))
            raise StoreUnavailable("timed out")
        self._put(key, body)
        if fate == "after":
            raise StoreUnavailable("connection reset")
        self._reply()

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        self._ask("list", prefix)
        at = bisect.bisect_left(self._keys, prefix)
        found = []
        while at < len(self._keys) and self._keys[at].startswith(prefix):
            if self._keys[at] > after:
                found.append(Listed(self._keys[at], len(self.objects[self._keys[at]])))
            at += 1
        self._reply()
        return iter(found)

    def delete(self, key: str) -> None:
        self._ask("delete", key)
        self._oracle.deleting(key)
        if self.objects.pop(key, None) is not None:
            self._keys.remove(key)
        self._reply()

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        self.replace(key, b"".join(chunks))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield self.get(key, start, end)

    # --- how it behaves ---

    def _ask(self, verb: str, key: str) -> str:
        """Let a request travel; its fate, if it arrives."""
        world, weather = self._world, self._weather
        assert world.current is not None
        rng = world.rng
        world.log(f"{verb} {key}")
        if not world.faulty:
            world.wait(0.05)
            return ""
        slow = rng.random() < weather.slow
        world.wait(rng.uniform(0.0, weather.slow_seconds) if slow else 0.02 + 0.1 * rng.random())
        if world.current.machine.cut_off_until > world.now:
            world.wait(2.0)
            raise StoreUnavailable("no route")
        fate = self._fate(verb, rng.random())
        if fate == "before":
            raise StoreUnavailable("slow down")
        return fate

    def _fate(self, verb: str, draw: float) -> str:
        if verb in ("create", "replace"):
            self.writes += 1
            if self.writes in self.fates:
                return self.fates[self.writes]
        weather = self._weather
        if draw < weather.before:
            return "before"
        if draw < weather.before + weather.after:
            return "after"
        return "late" if draw < weather.before + weather.after + weather.late else ""

    def _reply(self) -> None:
        """A process may be lost, or paused, between what it did and its knowing of it."""
        if self._world.faulty and self._world.rng.random() < self._weather.reply:
            self._world.wait(0.05)

    def _put(self, key: str, body: bytes) -> None:
        self._oracle.writing(key, body, self.objects.get(key))
        if key not in self.objects:
            bisect.insort(self._keys, key)
        self.objects[key] = body

    def _arrive(self, key: str, body: bytes) -> None:
        """A create that nobody waits for any more takes effect, or comes too late."""
        found = self.objects.get(key)
        self._world.log(f"late {key} {'taken' if found else 'lands'}")
        if found is None:
            self._world.note("late create landed")
            self._put(key, body)
        elif found != body:
            self._world.note("late create found another's entry")

    def plant(self, key: str, body: bytes) -> None:
        """Put an object there as an intruder would."""
        assert key not in self.objects
        bisect.insort(self._keys, key)
        self.objects[key] = body
