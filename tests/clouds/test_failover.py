"""What goes wrong when a machine is created, on each cloud with its real SDK: the calls, what is left, what is said."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.clouds.paper import PAPERS, Paper, PaperWayIn, changes, open_on
from tests.clouds.trouble import Rule, Trouble
from tests.unit.core.world import OTHER_JOB
from tests.unit.fleet.world import Fleet
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import Instance, Market, Need
from vmrun.core.errors import CapacityError, Denied, Unreachable, UsageError, VmrunError
from vmrun.core.ids import new_deployment_id
from vmrun.fleet import attempt as module
from vmrun.fleet.bring_up import bring_up
from vmrun.fleet.order import Order, StoreAccess
from vmrun.fleet.search import AGAIN_MAX
from vmrun.provisioners.context import ProvisionerContext
from vmrun.registry import load_estate, load_provisioner
from vmrun.render import Screen

#: A spot machine is taken back after it got its address and before SSH answered: no rule of a double, but a hand.
PREEMPTED = "preempted"
SENDS = AGAIN_MAX + 1


class World(Fleet):
    """A fleet on one cloud of paper; nothing waits for real, and nothing is remembered from one order to the next."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, paper: Paper) -> None:
        super().__init__(folder)
        # The tokens of some SDKs are dated by this computer's clock.
        self.clock.time = float(int(SystemClock().now()))
        self.paper = paper
        self.folder = folder
        self.double = open_on(self.clock, paper.name)
        for key, value in self.double.environment().items():
            monkeypatch.setenv(key, value)
        settings = {**self.double.settings(), "regions": paper.regions}
        context = ProvisionerContext(folder / "state", folder / "cache", self.clock, self.rng, settings)
        provisioner = load_provisioner(paper.name, context)
        # As long as such ids really are: some clouds know their machines by it.
        self.recorded = new_deployment_id(self.clock, self.rng)
        self.deck = dataclasses.replace(
            self.deck,
            deployment=self.recorded,
            provisioner=lambda name: provisioner,
            store_access=lambda name, lifetime: StoreAccess("s3://results/here"),
        )
        if paper.name == "ec2":
            list(load_estate(paper.name, context).establish(self.deck.deployment))
        self.empty = self.double.inventory()
        self.spoil(None)

    def spoil(self, trouble: Trouble | str | None, times: int = -1) -> None:
        """What goes wrong from now on with the creation of machines; the record of calls starts anew."""
        self.double.script.clear()
        PaperWayIn.acts = []
        if trouble == PREEMPTED:
            PaperWayIn.acts = [self._preempt] * (times if times > 0 else 100)
        elif isinstance(trouble, Trouble):
            (create,) = [operation for operation, verb in self.paper.verbs.items() if verb == "create"]
            self.double.script.add(Rule(trouble, create, times=times))
        (self.folder / "cache" / "unavailable.json").unlink(missing_ok=True)

    def _preempt(self, instance: Instance) -> None:
        self.double.preempt(instance.name)
        raise Unreachable(f"{instance.name} does not answer")

    def order(self, trouble: Trouble | str) -> str:
        market = Market.spot if trouble == PREEMPTED else Market.on_demand
        need = Need(instance_type=self.paper.instance_type, market=market)
        return bring_up(self.deck, Order(OTHER_JOB, self.paper.name, need, python="3.11"), lambda _: None)

    def refused(self, trouble: Trouble | str, kind: type[VmrunError]) -> str:
        """What a person is shown of an order that gets no machine."""
        with pytest.raises(kind) as caught:
            self.order(trouble)
        err = io.StringIO()
        Screen(io.StringIO(), err, environ={}, clock=self.clock).error(caught.value)
        return err.getvalue()

    def alive(self) -> set[str]:
        return set(self.double.inventory().instances)

    def known(self) -> set[str]:
        """Machines that live, by their journals: by the clouds' own identifiers."""
        folds = [self.ledger(vm).fold for vm in self.indexed]
        return {fold.cloud_id for fold in folds if fold.cloud_id and not fold.ended}

    def names(self) -> list[tuple[str, str]]:
        """Name and zone of each creation that was asked for."""
        made = [call for call in self.double.script.calls if self.paper.verbs.get(call.operation) == "create"]
        return [(str(call.about["name"]), str(call.about["zone"])) for call in made]


@pytest.fixture(params=list(PAPERS))
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "_way_in", lambda transport: PaperWayIn)
    made = World(tmp_path, monkeypatch, PAPERS[request.param])
    yield made
    made.double.close()


@dataclass(frozen=True)
class Case:
    """One kind of trouble.

    Calls are written as a letter and the number of the zone in the order of trial: `c0` a creation that is refused or
    whose answer is lost, `C0` one that is granted, with the address that belongs to it, `d0` and `D0` its end,
    without and with that address, `r0` the end of the address alone. `*:c` is `c0 c1 …` over all zones, `cR` is in
    the first zone of the second region.
    """

    #: When it happens to every creation.
    always: str
    kind: type[VmrunError]
    #: When it happens once; "" where the search ends with it.
    once: str = ""
    #: What a person must be shown on each cloud: the cause, and the next step.
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: The same, where a cloud goes its own way.
    apart: dict[str, tuple[str, str]] = field(default_factory=dict)

    def calls(self, cloud: str) -> tuple[str, str]:
        return self.apart.get(cloud, (self.always, self.once))


AGAIN = " ".join(["c0"] * SENDS)
LATER = "try again in some minutes, or allow more"
CASES: dict[Trouble | str, Case] = {
    Trouble.stockout: Case(
        "*:c",
        CapacityError,
        "c0 C1",
        {
            "ec2": ("InsufficientInstanceCapacity", "try again in a few minutes"),
            "gce": ("ZONE_RESOURCE_POOL_EXHAUSTED", "try again later, or allow other zones"),
            "ibm": ("cannot_start_capacity", LATER),
        },
        # IBM says so only after it has accepted.
        {"ibm": ("*:CD", "C0 D0 C1")},
    ),
    Trouble.quota: Case(
        "c0 cR",
        CapacityError,
        "c0 CR",
        {
            "ec2": ("quota L-1216C47A in us-east-1, us-west-2", "request-service-quota-increase --region us-east-1"),
            "gce": ("quota N2_CPUS in us-central1, us-east1", "ask for more of the quota N2_CPUS in us-central1"),
            "ibm": ("quota vCPU per region in us-east, us-south", "ask for more of 'vCPU per region'"),
        },
    ),
    Trouble.not_offered: Case(
        "*:c",
        CapacityError,
        "c0 C1",
        {
            "ec2": ("is not supported in your requested Availability Zone", "choose another --zone"),
            "gce": ("does not exist in zone 'us-central1-a'", "`vmrun offers --on gce` lists them"),
            "ibm": ("is not available in zone 'us-east-1'", "`vmrun offers --on ibm` lists"),
        },
    ),
    Trouble.throttle: Case(
        AGAIN,
        CapacityError,
        "c0 C0",
        {
            "ec2": ("RequestLimitExceeded", "wait"),
            "gce": ("RATE_LIMIT_EXCEEDED", "wait a minute"),
            "ibm": ("rate_limit_exceeded", "after a while"),
        },
    ),
    Trouble.permission: Case(
        "c0",
        Denied,
        told={
            "ec2": ("not authorized to perform: ec2:RunInstances", '"Action": "ec2:RunInstances"'),
            "gce": ("Required 'compute.instances.create' permission", "grant compute.instances.create on project"),
            "ibm": ("not_authorized", "vmrun doctor --on ibm --policy"),
        },
    ),
    Trouble.config: Case(
        "c0",
        UsageError,
        told={
            "ec2": ("InvalidAMIID.NotFound", "ec2.image"),
            "gce": ("resource.disks[0].initializeParams.sourceImage", "[gce]; `vmrun doctor`"),
            "ibm": ("Image not found", "[ibm] in vmrun.toml"),
        },
    ),
    Trouble.billing: Case(
        "c0",
        Denied,
        told={
            "ec2": ("PendingVerification", "wait some minutes"),
            "gce": ("BILLING_DISABLED", "gcloud billing projects link"),
            "ibm": ("account_disabled", "cloud.ibm.com/billing"),
        },
    ),
    Trouble.unavailable: Case(
        AGAIN,
        CapacityError,
        "c0 C0",
        {
            "ec2": ("InternalError", "health.aws.amazon.com"),
            "gce": ("backendError", "status.cloud.google.com"),
            "ibm": ("backend_service_unavailable", "cloud.ibm.com/status"),
        },
    ),
    Trouble.unknown: Case(
        "c0 c0",
        CapacityError,
        "c0 C0",
        {
            "ec2": ("an error IncompatibleMoonPhase of unknown kind", "as it came"),
            "gce": ("an error fluxCapacitorDischarged of unknown kind", "`vmrun doctor`"),
            "ibm": ("an error flux_capacitor_drained of unknown kind", "report it to IBM with its trace"),
        },
    ),
    Trouble.accepted_then_failed: Case(
        "*:CD",
        CapacityError,
        "C0 D0 C1",
        {
            "ec2": ("Server.InsufficientInstanceCapacity", LATER),
            "gce": ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "try again later, or allow other zones"),
            "ibm": ("cannot_start_capacity", LATER),
        },
        # What fails there is the operation that `create` waits for: no machine comes of it.
        {"gce": ("*:c", "c0 C1")},
    ),
    Trouble.request_lost: Case(
        AGAIN,
        CapacityError,
        "c0 C0",
        {
            "ec2": ("Connection was closed", "check the network"),
            "gce": ("no answer from Compute Engine", "reaches compute.googleapis.com"),
            "ibm": ("no answer from IBM Cloud", "reaches the internet"),
        },
    ),
    Trouble.reply_lost: Case(
        # The last machine is looked for, found and ended: nothing else is tried before that.
        f"{AGAIN} d0",
        CapacityError,
        "c0 C0",
        {
            "ec2": ("Connection was closed", "check the network"),
            "gce": ("no answer from Compute Engine", "reaches compute.googleapis.com"),
            "ibm": ("no answer from IBM Cloud", "reaches the internet"),
        },
    ),
    PREEMPTED: Case(
        "*:CD",
        CapacityError,
        "C0 D0 C1",
        {
            "ec2": ("Server.SpotInstanceTermination", LATER),
            "gce": ("preempted in us-central1-a", LATER),
            "ibm": ("preempted in us-east-1", LATER),
        },
        # IBM has deleted the machine itself by then; its address is what is left to give back.
        {"ibm": ("*:Cr", "C0 r0 C1")},
    ),
}
#: What each letter stands for on IBM; elsewhere addresses come and go with their machines.
LETTERS = {
    "c": ("create",),
    "C": ("create", "give"),
    "d": ("delete",),
    "D": ("release", "delete"),
    "r": ("release",),
}


def written_out(calls: str, paper: Paper) -> list[str]:
    """The calls, as `changes` tells them."""
    if calls.startswith("*:"):
        calls = " ".join(f"{letter}{number}" for number in range(len(paper.zones)) for letter in calls[2:])
    (second, *_) = [n for n, zone in enumerate(paper.zones) if not zone.startswith(paper.regions[0])]
    operations = {verb: operation for operation, verb in paper.verbs.items()}
    return [
        f"{operations[verb]} {paper.instance_type} {paper.zones[number]}"
        for letter, place in re.findall(r"([cCdDr])(\d+|R)", calls)
        for number in [second if place == "R" else int(place)]
        for verb in LETTERS[letter]
        if verb in operations
    ]


@pytest.mark.parametrize("trouble", list(CASES), ids=lambda trouble: getattr(trouble, "value", trouble))
def test_trouble(world: World, trouble: Trouble | str) -> None:
    case, cloud = CASES[trouble], world.paper.name
    always, once = case.calls(cloud)

    world.spoil(trouble)
    shown = world.refused(trouble, case.kind)

    assert changes(world.double, world.paper) == written_out(always, world.paper)
    assert world.double.inventory() == world.empty
    assert world.known() == set()
    cause, step = case.told[cloud]
    message, _, hint = shown.rpartition("hint: ")
    assert cause in message
    assert step in hint
    one_intent_for_each_zone(world)

    world.spoil(trouble, times=1)
    if once:
        vm = world.order(trouble)
    else:
        # Once the trouble has passed, the same order is served.
        world.spoil(None)
        once, vm = "C0", world.order("")

    assert changes(world.double, world.paper) == written_out(once, world.paper)
    fold = world.ledger(vm).fold
    assert world.known() == {fold.cloud_id}
    assert {fold.cloud_id.rpartition("/")[2]} == {one.rpartition("/")[2] for one in world.alive()}
    assert fold.ready is not None
    one_intent_for_each_zone(world)


def one_intent_for_each_zone(world: World) -> None:
    """A request that is sent again is for the same machine, and another zone is another machine's."""
    names = set(world.names())
    assert len(names) == len({zone for _, zone in names}) == len({name for name, _ in names})
