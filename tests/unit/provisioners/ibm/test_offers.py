"""From the catalogue's offers to those of zones."""

from __future__ import annotations

import dataclasses

from vmrun.core.clouds import Need
from vmrun.provisioners.ibm.offers import Profile, in_zones, profile_of

from .bodies import offer

ZONES = ("us-south-1", "us-south-2", "us-south-3")
REGIONAL = offer(zone="")


def zones_of(need: Need, **profiles: Profile) -> list[str]:
    known = {name.replace("_", "-"): profile for name, profile in profiles.items()}
    return [each.zone for each in in_zones([REGIONAL], need, ZONES, known)]


def test_an_offer_stands_once_for_each_zone() -> None:
    everywhere = Profile(frozenset(), spot=False)

    assert zones_of(Need(), mx2_128x1024=everywhere) == list(ZONES)
    assert zones_of(Need(zone="us-south-2"), mx2_128x1024=everywhere) == ["us-south-2"]
    (one,) = in_zones([REGIONAL], Need(zone="us-south-2"), ZONES, {"mx2-128x1024": everywhere})
    assert one == dataclasses.replace(REGIONAL, zone="us-south-2")


def test_only_zones_with_the_hardware_count() -> None:
    assert zones_of(Need(), mx2_128x1024=Profile(frozenset({"us-south-3", "eu-de-1"}), spot=False)) == ["us-south-3"]


def test_a_profile_that_the_region_has_not_is_not_offered() -> None:
    assert zones_of(Need(), bx2_2x8=Profile(frozenset(), spot=True)) == []


def test_a_spot_offer_needs_a_spot_profile() -> None:
    spot = dataclasses.replace(REGIONAL, spot=True)

    assert list(in_zones([spot], Need(), ZONES, {"mx2-128x1024": Profile(frozenset(), spot=False)})) == []
    assert len(list(in_zones([spot], Need(), ZONES, {"mx2-128x1024": Profile(frozenset(), spot=True)}))) == 3


def test_a_profile_is_read_in_both_forms_of_the_api() -> None:
    choice = {"type": "enum", "values": ["spot", "standard"], "default": "standard"}
    fixed = {"type": "fixed", "value": "standard"}

    assert profile_of({"availability_class": choice, "zones": [{"name": "us-south-1"}]}) == Profile(
        frozenset({"us-south-1"}), spot=True
    )
    assert profile_of({"availability_class": fixed}) == Profile(frozenset(), spot=False)
    assert profile_of({}) == Profile(frozenset(), spot=False)
