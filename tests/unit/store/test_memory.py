"""The store in memory, bare and behind each decorator: all of them are stores."""

from __future__ import annotations

import random

import pytest

from tests.suites.store import StoreSuite
from vmrun.core.clock import SystemClock
from vmrun.core.storage import BlobStore
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import FaultyStore, NoFaults
from vmrun.store.memory import MemoryStore
from vmrun.store.retrying import RetryingStore


class TestMemoryStore(StoreSuite):
    @pytest.fixture(params=["bare", "faulty", "counting", "retrying"])
    def store(self, request: pytest.FixtureRequest) -> BlobStore:
        memory = MemoryStore()
        return {
            "bare": memory,
            "faulty": FaultyStore(memory, NoFaults(), random.Random(0)),
            "counting": CountingStore(memory),
            "retrying": RetryingStore(memory, SystemClock(), random.Random(0), 0.0),
        }[request.param]
