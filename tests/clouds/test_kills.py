"""A client is killed at every call that a submit sends to a cloud: no machine is made twice, none is forgotten."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.clouds.double import Inventory
from tests.clouds.mortal import Deployment, Killer, Nursery, SharedClock, kill, read_once
from tests.clouds.paper import PAPERS, PaperWayIn, open_on
from vmrun.client import REVIVE_AFTER, Client
from vmrun.core.clock import SystemClock, system_rng
from vmrun.core.folds import VmFold
from vmrun.core.ids import new_deployment_id
from vmrun.core.views import Verdict
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet import attempt
from vmrun.provisioners.context import ProvisionerContext
from vmrun.reaper.policies import ORPHAN_GRACE
from vmrun.reaper.sweep import Reaper
from vmrun.registry import load_estate
from vmrun.watch.observe import job_ids, vm_ids

#: Calls of which one submit has more than the first, and fewer than the second number.
FEWEST, MOST = 4, 60


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


class Cloud:
    """One account of paper, in which deployments come and go, each of them empty in the end."""

    def __init__(self, name: str, folder: Path, nursery: Nursery) -> None:
        self.paper = PAPERS[name]
        self.folder = folder
        self.nursery = nursery
        self.clock = SharedClock(folder / "clock", SystemClock().now())
        self.double = open_on(self.clock, name)
        self.killer = Killer(self.double)
        self.table = {**self.double.settings(), "regions": list(self.paper.regions[:1])}
        self.empty = Inventory()
        self._numbers = itertools.count()

    def establish(self) -> None:
        """What `vmrun init` makes for them all."""
        if self.paper.name == "ec2":
            context = ProvisionerContext(self.folder, self.folder, self.clock, system_rng(), self.table)
            list(load_estate("ec2", context).establish(new_deployment_id(self.clock, system_rng())))
            (self.table["security_group"],) = self.double.inventory().groups
        self.empty = self.double.inventory()

    def deployment(self) -> Deployment:
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        environment = self.double.environment()
        return Deployment(self.paper.name, str(folder), str(self.folder / "clock"), self.table, environment)

    def submit(self, deployment: Deployment, at: int, *, done: bool) -> bool:
        """Submit by a client that is killed at call number `at`; whether it came to that."""

        def prepare(process: int) -> None:
            self.killer.aim(at, partial(kill, process), done=done)

        ended = self.nursery.submit(deployment, prepare)
        assert ended in (0, -signal.SIGKILL), Path(deployment.folder, "error.txt").read_text()
        self.killer.aim(0, lambda: None, done=False)
        return ended != 0


class Survivor:
    """Whoever comes after: another process with the same configuration."""

    def __init__(self, cloud: Cloud, deployment: Deployment, where: str) -> None:
        self.cloud = cloud
        self.where = where
        self.deployment = deployment
        self.client: Client = deployment.client(cloud.clock, 1)
        self.said: list[str] = []

    def resume(self) -> None:
        """`vmrun submit` with the same key, and what it then does while it waits."""
        handle = self.client.submit(self.deployment.request())
        self.cloud.clock.sleep(REVIVE_AFTER + 1)
        self.client.revive(handle.id)

    @property
    def vm(self) -> str:
        """The only one that the store knows of."""
        (vm,) = vm_ids(self.client.desk)
        return vm

    def reaper(self, dead_after: float = 120.0) -> Reaper:
        """One that has seen nothing before."""
        return Reaper(self.client._wiring.deck, dead_after)

    def sweep(self, reaper: Reaper, *, everything: bool = False) -> list[Verdict]:
        """One of its passes."""
        return reaper.sweep([self.cloud.paper.name], dry_run=False, everything=everything, on_stage=self.said.append)

    def reap(self, *, everything: bool = False) -> list[Verdict]:
        """One pass of a reaper that has seen nothing before."""
        return self.sweep(self.reaper(), everything=everything)

    def wait_out_the_boot_grace(self) -> None:
        self.cloud.clock.sleep(self.client._wiring.timings(self.cloud.paper.name).boot_grace + ORPHAN_GRACE + 60)

    def folds(self) -> list[VmFold]:
        return [VmLedger(self.client.desk, vm).refresh() for vm in vm_ids(self.client.desk)]

    def anything(self) -> bool:
        """Whether the store knows a job or a machine."""
        return bool(job_ids(self.client.desk) or self.folds())

    def check(self) -> list[str]:
        """No intent has two machines, and every machine an intent; the names of those that are ready."""
        names = self.names()
        assert len(names) == len(set(names)), f"{self.where}: two for one intent: {names}"
        folds = [fold for fold in self.folds() if fold.intent is not None]
        unknown = set(names) - {fold.intent.name for fold in folds if fold.intent is not None}
        assert not unknown, f"{self.where}: known to no journal: {unknown}"
        return [str(fold.intent and fold.intent.name) for fold in folds if fold.ready is not None and not fold.ended]

    def names(self) -> list[str]:
        """Of the machines that are there, by the cloud's own books."""
        cloud, deployment = self.cloud, self.client.deployment
        provisioner = self.client._wiring.provisioner(cloud.paper.name)
        listed = list(provisioner.instances(deployment))
        there = set(cloud.double.inventory().instances)
        assert {one.id.rpartition("/")[2] for one in listed} == {key.rpartition("/")[2] for key in there}, self.where
        return [one.name for one in listed]

    def is_empty(self) -> bool:
        return self.cloud.double.inventory() == self.cloud.empty


@pytest.fixture(params=list(PAPERS))
def cloud(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    made = Cloud(request.param, tmp_path, nursery)
    for key, value in made.double.environment().items():
        monkeypatch.setenv(key, value)
    read_once(monkeypatch.setattr)
    monkeypatch.setattr(attempt, "_way_in", lambda transport: PaperWayIn)
    made.establish()
    yield made
    made.double.close()


def resumed_at_once(survivor: Survivor) -> None:
    """Somebody runs the same command again before anything else happens; the reaper comes later."""
    survivor.resume()
    assert len(survivor.check()) <= 1
    survivor.wait_out_the_boot_grace()
    survivor.reap()
    assert survivor.names() == survivor.check(), f"{survivor.where}: what is not ready by now is reaped"
    survivor.resume()


def reaped_first(survivor: Survivor) -> None:
    """Nobody comes back for long; the reaper passes by."""
    survivor.check()
    survivor.wait_out_the_boot_grace()
    survivor.reap()
    assert survivor.names() == survivor.check(), f"{survivor.where}: what is not ready by now is reaped"
    assert survivor.names() or survivor.is_empty(), survivor.where
    survivor.resume()


def told(cloud: Cloud) -> list[str]:
    """The latest calls that reached the double, for a failure's reader."""
    return [call.operation for call in cloud.double.script.calls[-5:]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("then", [resumed_at_once, reaped_first], ids=["resumed", "reaped"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "reply-lost"])
def test_killed_at_every_call(cloud: Cloud, done: bool, then: Callable[[Survivor], None]) -> None:
    for at in range(1, MOST):
        deployment = cloud.deployment()
        killed = cloud.submit(deployment, at, done=done)
        survivor = Survivor(cloud, deployment, f"killed at call {at} of {told(cloud)}")
        if killed and at > 1 and not survivor.anything():
            # The same as after the first call: nothing is written, and nothing is there.
            assert survivor.is_empty(), survivor.where
            continue

        then(survivor)

        assert survivor.names() == survivor.check(), survivor.where
        assert len(survivor.names()) == 1, f"{survivor.where}: the job has a machine in the end"
        survivor.reap(everything=True)
        assert survivor.is_empty(), f"{survivor.where}: {cloud.double.inventory()} {survivor.said}"
        assert all(fold.ended for fold in survivor.folds()), survivor.where
        if not killed:
            break
    assert FEWEST < at < MOST - 1
