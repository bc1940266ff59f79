"""Nothing that is not ours is deleted, whatever a cloud shows, whatever a policy says."""

from __future__ import annotations

import ast
import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from tests.support.source import modules
from tests.unit.reaper.inventories import DAY, HOSTILE, NOW, OTHERS, OURS, SIGNER, Item, inventory, own
from vmrun.core.clouds import TAG_PROOF, TAG_VM
from vmrun.core.records import Delete
from vmrun.fleet.guards import Case, objection, proves, stranger, tagged_deadline
from vmrun.reaper.policies import Observed, judge, ours

#: Fleets of the whole test, and of the part that runs before each commit.
FLEETS, FEW = 100_000, 5_000


def case(item: Item, bearers: int, **changes: Any) -> Case:
    """What the reaper knows about an item when it is about to delete it, its journal condemned by then."""
    fold = item.fold
    if fold is not None and fold.delete is None:
        fold = dataclasses.replace(fold, delete=Delete("why", "reaper"))
    seen = item.instance
    vm = seen.tags.get(TAG_VM, "")
    known = Case(OURS, OURS, vm, seen.on, seen.id, seen, fold, NOW, proven=proves(SIGNER, seen), bearers=bearers)
    return dataclasses.replace(known, **changes) if changes else known


def bearers_of(items: list[Item]) -> Counter[str]:
    return Counter(vm for item in items if (vm := ours(item.instance, OURS)))


@pytest.mark.parametrize("fleets", [FEW, pytest.param(FLEETS, marks=pytest.mark.slow)])
def test_in_a_hundred_thousand_hostile_inventories_nothing_foreign_is_deleted(fleets: int, rng: random.Random) -> None:
    pool = [own(rng) for _ in range(2000)]
    deleted, spared, kinds = 0, 0, Counter[str]()
    for number in range(fleets):
        items = inventory(rng, pool)
        bearers = bearers_of(items)
        # In turn: all is well; the store is another's; it gives no answer, so that no journal is read.
        recorded = (OURS, OURS, OTHERS, None)[number % 4]
        for item in items:
            if recorded is None:
                item = dataclasses.replace(item, fold=None)
            many = bearers.get(item.instance.tags.get(TAG_VM, ""), 1)
            reason = objection(case(item, many, recorded=recorded))
            if item.foreign:
                kinds[item.foreign] += 1
                spared += 1
                assert reason, (number, item)
            elif not reason:
                deleted += 1
                assert recorded != OTHERS
    # The guards are no wall: what is ours goes
    assert len(kinds) == len(HOSTILE)
    assert spared > fleets
    assert deleted > fleets / 10


def test_what_is_ours_and_over_is_deleted(rng: random.Random) -> None:
    judged = Counter[str]()
    for _ in range(3000):
        item = own(rng)
        known = case(item, 1)
        facts = Observed(known.vm, known.on, item.instance, item.fold, NOW, stranger=stranger(known))
        if (verdict := judge(facts)) is None:
            continue
        judged[verdict[0]] += 1
        if item.fold is not None:
            assert objection(known) == "", item
        elif verdict[0] == "expired":
            assert objection(dataclasses.replace(known, recorded=None)) == "", item
    assert set(judged) >= {"expired", "condemned", "drained", "never_ready", "orphan"}


@pytest.fixture
def known(rng: random.Random) -> Case:
    """A machine of ours that its journal names and condemns."""
    while True:
        item = own(rng)
        if item.fold is not None and item.fold.cloud_id:
            return case(item, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"deployment": ""}, "not this deployment's own"),
        ({"recorded": OTHERS}, "not this deployment's own"),
        ({"recorded": ""}, "not this deployment's own"),
        ({"recorded": None}, "does not condemn"),
        ({"vm": "x"}, "no VM of vmrun"),
        ({"id": ""}, "no VM of vmrun"),
        ({"id": "east/i-1"}, "another instance"),
        ({"on": "docker"}, "another instance"),
        ({"complete": False}, "not complete"),
        ({"left": 0}, "deleted its share"),
    ],
)
def test_each_guard_speaks(known: Case, changes: dict[str, Any], says: str) -> None:
    reason = objection(dataclasses.replace(known, **changes))
    assert says in reason
    assert bool(reason) is bool(says)


def test_a_journal_that_does_not_condemn_forbids(known: Case) -> None:
    assert known.fold is not None
    alive = dataclasses.replace(known.fold, delete=None, gone=None)
    assert "does not condemn" in objection(dataclasses.replace(known, fold=alive))


def test_a_journal_that_names_the_instance_stands_in_for_its_tags(known: Case) -> None:
    assert known.instance is not None
    bare = dataclasses.replace(known, instance=dataclasses.replace(known.instance, tags={}), proven=False)
    assert objection(bare) == ""
    assert "another's" in objection(
        dataclasses.replace(known, instance=dataclasses.replace(known.instance, tags={TAG_VM: "x"}))
    )


def test_where_a_cloud_keeps_no_tags_only_a_wrong_proof_speaks_against(known: Case) -> None:
    assert known.instance is not None
    assert known.fold is not None
    tags = {key: value for key, value in known.instance.tags.items() if key != TAG_PROOF}
    began = known.fold.intended_at
    bare = dataclasses.replace(
        known,
        fold=dataclasses.replace(known.fold, cloud_id=""),
        instance=dataclasses.replace(known.instance, tags=tags, created_at=began),
        proven=False,
    )
    assert "do not prove" in objection(bare)
    assert objection(dataclasses.replace(bare, tagged=False)) == ""
    wrong = dataclasses.replace(bare.instance, tags=tags | {TAG_PROOF: "0" * 32})  # type: ignore[type-var]
    assert "do not prove" in objection(dataclasses.replace(bare, tagged=False, instance=wrong))


def test_of_two_that_look_alike_neither_is_touched_unless_the_journal_tells(known: Case) -> None:
    assert known.fold is not None
    assert objection(dataclasses.replace(known, bearers=2)) == ""
    unsure = dataclasses.replace(known, bearers=2, fold=dataclasses.replace(known.fold, cloud_id=""))
    assert objection(unsure)


def test_a_deadline_is_digits() -> None:
    item = own(random.Random(1))
    for text in ("", "1e9", "-5", "٣", "9" * 13, "1.5"):
        assert tagged_deadline(dataclasses.replace(item.instance, tags={"vmrun-deadline": text})) == 0.0
    assert tagged_deadline(item.instance) > NOW - 10 * DAY


def test_one_place_tells_a_cloud_to_delete() -> None:
    """Drivers have `delete`; of all the rest only the guarded function calls it."""
    found = []
    for module in modules():
        if module.where.startswith(("vmrun/provisioners/", "vmrun/store/", "vmrun/core/")):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "delete":
                whose = ast.unparse(node.func.value)
                if not any(word in whose.lower() for word in ("store", "ledger", "blobs")):
                    found.append((module.where, whose))
    assert found == [("vmrun/fleet/removal.py", "deck.provisioner(case.on)")]


@pytest.fixture
def unnamed(known: Case) -> Case:
    """A machine of ours, condemned, whose creation was never answered: its journal does not name the instance."""
    assert known.fold is not None
    assert known.instance is not None
    fold = dataclasses.replace(known.fold, cloud_id="")
    assert objection(dataclasses.replace(known, fold=fold, proven=True)) == ""
    return dataclasses.replace(known, fold=fold, proven=True)


def test_an_instance_of_another_cloud_is_not_the_vm_that_its_journal_is_about(unnamed: Case) -> None:
    seen = dataclasses.replace(unnamed.instance, on="docker")  # type: ignore[type-var]
    assert "was made on" in objection(dataclasses.replace(unnamed, on="docker", instance=seen))


def test_nor_is_one_of_another_zone(unnamed: Case) -> None:
    seen = dataclasses.replace(unnamed.instance, zone="north-9")  # type: ignore[type-var]
    assert "was to be made in" in objection(dataclasses.replace(unnamed, instance=seen))


def test_nor_is_a_copy_however_well_it_is_made(known: Case) -> None:
    seen = dataclasses.replace(known.instance, id="east/i-other")  # type: ignore[type-var]
    assert "it is a copy" in objection(dataclasses.replace(known, id=seen.id, instance=seen, proven=True))


def test_without_a_journal_only_what_is_past_its_deadline_goes(unnamed: Case) -> None:
    alone = dataclasses.replace(unnamed, fold=None, recorded=None)
    deadline = tagged_deadline(alone.instance)  # type: ignore[arg-type]
    assert objection(dataclasses.replace(alone, now=deadline + 1)) == ""
    assert "nothing but its deadline" in objection(dataclasses.replace(alone, now=deadline - 1))
