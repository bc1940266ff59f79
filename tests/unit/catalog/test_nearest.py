"""What is named when nothing fits."""

from __future__ import annotations

import pytest

from vmrun import catalog
from vmrun.catalog.nearest import Where, nearest
from vmrun.core.clouds import Market, Need

ALL = Where(catalog.CLOUDS)
TB = 10**12


@pytest.mark.parametrize(
    ("where", "need", "said"),
    [
        (ALL, Need(cpus=1000), "the nearest is u7i-12tb.224xlarge on ec2 in us-east-1 (896 vCPUs, 12.3 TB usable)"),
        (ALL, Need(memory=60 * TB), "the nearest is u7in-32tb.224xlarge"),
        (ALL, Need(instance_type="r6a.32xlrge"), "no catalogue has a type r6a.32xlrge; did you mean r6a.32xlarge?"),
        (ALL, Need(instance_type="m7i.large", cpus=64), "the nearest is m7i.large on ec2"),
        (Where(["ibm"]), Need(cpus=128, market=Market.spot), "at the on-demand price, cx2-128x256 on ibm"),
        (Where(["ibm"]), Need(cpus=64, arch="arm64"), "with another architecture, "),
        (Where(["ec2"]), Need(cpus=128, region="eu-nowhere"), "in another region, "),
        (Where(["ec2"], regions=["eu-nowhere"]), Need(cpus=128), "in another region, "),
        (Where(["ec2"], exclude=["*"]), Need(), "ask for less, or look in other regions and clouds"),
    ],
)
def test_the_hint_names_what_would_fit(where: Where, need: Need, said: str) -> None:
    assert where.search(need) == []
    assert nearest(where, need).startswith(said)


def test_what_is_named_as_fitting_fits() -> None:
    need = Need(cpus=128, arch="arm64", memory=10 * TB)
    assert ALL.search(need) == []
    named = nearest(ALL, need).split()[3]
    assert named in [offer.instance_type for offer in ALL.search(Need(cpus=128, memory=10 * TB))]
