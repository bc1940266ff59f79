"""Runs one system for the benchmarks, in that system's own interpreter: `python driver.py SYSTEM REPLIES`.

Requests come as lines of JSON on standard input, replies go as lines of JSON to the file REPLIES, which is open only
while one is written: what the tasks under test do to descriptors must not reach it.

    {"op": "start", "workers": 2, "options": {}}       -> {"ok": true, "seconds": 0.1, "version": "Ray 2.60.0"}
    {"op": "run", "workload": "noops", "count": 100,
     "size": 0, "chunk": 0}                            -> {"ok": true, "tasks": 100, "seconds": 0.2, …}
    {"op": "calls", "count": 50}                       -> {"ok": true, "seconds": [0.002, …]}
    {"op": "each", "case": "raise", "tasks": 20,
     "limit": 5}                                       -> {"ok": true, "outcomes": [["ok", …], …]}
    {"op": "ask", "what": "many_workers", "with": {}}  -> {"ok": true, …}
    {"op": "stop"}                                     -> {"ok": true}

What fails answers {"ok": false, "error": "…"}; what the system cannot do, {"ok": false, "unsupported": "…"}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import isolation_cases
import workloads
from systems import System, Unsupported, open_system


def stolen_seconds() -> float:
    """Of all cores, so far, the time that they had work and the host ran another machine; 0 where none is told.

    The eighth number of the first line of /proc/stat (proc_stat(5)), in clock ticks.
    """
    try:
        numbers = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(numbers[8]) / os.sysconf("SC_CLK_TCK") if len(numbers) > 8 else 0.0


class Driver:
    """One system and what it is asked to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._system: System

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        self._system = open_system(self._name)
        self._system.start(request["workers"], **request.get("options", {}))
        return {"seconds": time.perf_counter() - began, "version": self._system.version()}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        one = workloads.load(request["workload"], request["count"], request.get("size", 0))
        gc.collect()
        stolen = stolen_seconds()
        began, moment = time.perf_counter(), time.monotonic()
        if one.shared is None:
            results = self._system.map(one.function, one.arguments, request.get("chunk", 0))
        else:
            results = self._system.map_shared(one.function, one.shared, one.arguments)
        seconds, ended = time.perf_counter() - began, time.monotonic()
        stolen = stolen_seconds() - stolen
        if not one.check(results):
            raise AssertionError("results are missing, wrong, or in the wrong place")
        facts = workloads.facts(one, results, seconds, ended)
        return {**facts, "began": moment, "ended": ended, "stolen_seconds": stolen}

    def calls(self, request: dict[str, Any]) -> dict[str, Any]:
        seconds = []
        for number in range(request["count"]):
            began = time.perf_counter()
            answer = self._system.call(workloads.noop, number)
            seconds.append(time.perf_counter() - began)
            if answer != number:
                raise AssertionError(f"call {number} answered {answer!r}")
        return {"seconds": seconds}

    def each(self, request: dict[str, Any]) -> dict[str, Any]:
        items = isolation_cases.items(request["case"], request["tasks"])
        outcomes = self._system.each(isolation_cases.work, items, request["limit"])
        answer: dict[str, Any] = {"outcomes": outcomes}
        if hasattr(self._system, "kept_output"):
            answer["kept_output"] = self._system.kept_output
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = getattr(self._system, request["what"])(**request.get("with", {}))
        return found

    def stop(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._system.stop()
        return {}


def answer(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; the reply."""
    try:
        return {"ok": True, **getattr(driver, request["op"])(request)}
    except Unsupported as reason:
        return {"ok": False, "unsupported": str(reason)}
    except BaseException as error:  # noqa: BLE001  the process's outermost frame: what went wrong is the answer
        traceback.print_exc()
        return {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}


def main() -> None:
    """Serve until standard input ends."""
    name, replies = sys.argv[1:]
    driver = Driver(name)
    mine = os.getpid()
    for line in sys.stdin:
        reply = answer(driver, json.loads(line))
        if os.getpid() != mine:
            os._exit(1)  # a child that a task forked and that came back
        with Path(replies).open("a", encoding="utf-8") as file:
            file.write(json.dumps(reply, default=repr) + "\n")


if __name__ == "__main__":
    main()
