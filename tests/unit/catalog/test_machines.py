"""Cores, usable memory, quotas and markets of the clouds' types."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun import catalog
from vmrun.catalog.packaged import packaged

GIB = 2**30


@pytest.mark.parametrize(
    ("on", "name", "vcpus", "arch", "cores"),
    [
        ("ec2", "r6a.32xlarge", 128, "x86_64", 64),
        ("ec2", "r6i.32xlarge", 128, "x86_64", 64),
        ("ec2", "r7a.32xlarge", 128, "x86_64", 128),
        ("ec2", "m8azn.24xlarge", 96, "x86_64", 96),
        ("ec2", "x8aedz.24xlarge", 96, "x86_64", 96),
        ("ec2", "r8g.48xlarge", 192, "arm64", 192),
        ("ec2", "u7in-32tb.224xlarge", 896, "x86_64", 448),
        ("ec2", "u-6tb1.56xlarge", 224, "x86_64", 224),
        ("gce", "c4-highmem-144", 144, "x86_64", 72),
        ("gce", "t2d-standard-60", 60, "x86_64", 60),
        ("gce", "h4d-standard-192", 192, "x86_64", 192),
        ("gce", "c4a-highmem-72", 72, "arm64", 72),
        ("ibm", "mx2-128x1024", 128, "x86_64", 64),
    ],
)
def test_cores_behind_vcpus(on: str, name: str, vcpus: int, arch: str, cores: int) -> None:
    assert catalog.physical_cores(on, name, vcpus, arch) == cores


def test_cores_of_every_type_of_ec2_are_those_that_its_own_api_tells() -> None:
    moto = pytest.importorskip("moto")
    file = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
    told = json.loads(gzip.decompress(file.read_bytes()))
    rows = {row.instance_type: row.cores for row in packaged("ec2").rows}
    assert len(rows) > 700
    assert {name: told[name]["VCpuInfo"]["DefaultCores"] for name in rows} == rows


def test_a_terabyte_fits_where_1024_gib_are_sold() -> None:
    assert catalog.usable("ec2", 1024 * GIB) >= 10**12
    # What a comparable system found usable on such a machine, after all that it reserves itself.
    assert catalog.usable("ec2", 1024 * GIB) > 930 * GIB
    assert catalog.usable("ec2", 1024 * GIB) < 1000 * GIB


@given(st.sampled_from(catalog.CLOUDS), st.integers(0, 1 << 46), st.integers(0, 1 << 40))
def test_usable_memory_is_a_part_of_what_is_sold_and_grows_with_it(on: str, sold: int, more: int) -> None:
    usable = catalog.usable(on, sold)
    assert 0 <= usable <= sold
    assert usable <= catalog.usable(on, sold + more)
    assert sold * 0.93 - 1 <= usable


@pytest.mark.parametrize(
    ("on", "name", "on_demand", "spot"),
    [
        ("ec2", "r6a.32xlarge", "L-1216C47A", "L-34B43A08"),
        ("ec2", "m7i-flex.xlarge", "L-1216C47A", "L-34B43A08"),
        ("ec2", "x2idn.32xlarge", "L-7295265B", "L-E3A00192"),
        ("ec2", "u7i-12tb.224xlarge", "L-43DA4232", ""),
        ("ec2", "u-6tb1.56xlarge", "L-43DA4232", ""),
        ("ec2", "p5.48xlarge", "", ""),
        ("gce", "e2-standard-16", "CPUS", "PREEMPTIBLE_CPUS"),
        ("gce", "n2-highmem-128", "N2_CPUS", "PREEMPTIBLE_CPUS"),
        ("gce", "c4-highmem-144", "CPUS_PER_VM_FAMILY/C4", "PREEMPTIBLE_CPUS"),
        ("ibm", "mx2-128x1024", "vCPU per region", "spot instances per region"),
        ("docker", "docker", "", ""),
    ],
)
def test_the_quota_that_a_type_counts_against(on: str, name: str, on_demand: str, spot: str) -> None:
    assert catalog.bucket(on, name) == on_demand
    assert catalog.bucket(on, name, spot=True) == spot


def test_every_type_of_the_catalogue_has_a_quota_with_a_name() -> None:
    for on in catalog.CLOUDS:
        for row in packaged(on).rows:
            bucket = catalog.bucket(on, row.instance_type)
            assert bucket, row.instance_type
            assert on != "ec2" or bucket in catalog.EC2_QUOTA_NAMES


@pytest.mark.parametrize(
    ("on", "name", "sold"),
    [
        ("ec2", "r6a.32xlarge", True),
        ("ec2", "u7in-32tb.224xlarge", False),
        ("gce", "c4-highmem-144", True),
        ("gce", "m2-ultramem-208", False),
        ("ibm", "bxf-16x64", True),
        ("ibm", "mx2-128x1024", False),
        ("local", "local", False),
    ],
)
def test_which_types_are_sold_at_spot_prices(on: str, name: str, sold: bool) -> None:
    assert catalog.has_spot(on, name) is sold


def test_what_has_a_spot_price_is_sold_at_spot_prices() -> None:
    for on in catalog.CLOUDS:
        for row in packaged(on).rows:
            assert row.spot_usd_per_hour is None or catalog.has_spot(on, row.instance_type), row.instance_type
