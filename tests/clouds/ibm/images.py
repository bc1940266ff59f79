"""Images, regions and zones: what is there without anybody having made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import lists, shapes
from .profiles import ZONES
from .refusals import bad_field, not_found
from .requests import Answer, Ask, Handler
from .world import Account


@dataclass(frozen=True)
class Image:
    """A stock image."""

    id: str
    name: str
    system: str
    #: ISO, with a time.
    created: str
    architecture: str = "amd64"
    status: str = "available"


def _stock(number: int, name: str, system: str, created: str, **more: str) -> Image:
    return Image(f"r006-00000000-0000-4000-8000-{number:012}", name, system, f"{created}T09:00:00Z", **more)


#: As named and dated in IBM's own style; the newest Ubuntu 24.04 is not the first.
IMAGES = (
    _stock(1, "ibm-ubuntu-22-04-5-minimal-amd64-8", "ubuntu-22-04-amd64", "2026-07-02"),
    _stock(2, "ibm-ubuntu-24-04-2-minimal-amd64-6", "ubuntu-24-04-amd64", "2026-03-11", status="deprecated"),
    _stock(3, "ibm-ubuntu-24-04-3-minimal-amd64-9", "ubuntu-24-04-amd64", "2026-09-17"),
    _stock(4, "ibm-ubuntu-24-04-3-minimal-amd64-4", "ubuntu-24-04-amd64", "2026-06-18"),
    _stock(5, "ibm-ubuntu-24-04-3-minimal-s390x-4", "ubuntu-24-04-s390x", "2026-09-17", architecture="s390x"),
    _stock(6, "ibm-debian-12-11-minimal-amd64-3", "debian-12-amd64", "2026-08-20"),
)


def find_image(account: Account, identity: dict[str, Any]) -> Image:
    """The image that a field `image` refers to. Refusal when there is none."""
    del account
    wanted = str(identity.get("id") or identity.get("crn") or identity.get("href") or "")
    for image in IMAGES:
        if wanted.endswith(image.id):
            return image
    raise bad_field("image.id", wanted, f"Image not found: '{wanted}'")


def image_reference(account: Account, id: str) -> dict[str, Any]:
    """As other resources tell of it."""
    name = next(image.name for image in IMAGES if image.id == id)
    return {
        "id": id,
        "name": name,
        "href": f"{account.base}/images/{id}",
        "crn": account.crn("image", id),
        "resource_type": "image",
    }


def _body(account: Account, image: Image) -> dict[str, Any]:
    family, *version = image.system.split("-")
    return {
        **image_reference(account, image.id),
        "allowed_use": {"api_version": "2025-07-01", "bare_metal_server": "true", "instance": "true"},
        "catalog_offering": {"managed": False},
        "created_at": image.created,
        "encryption": "none",
        "file": {"size": 1, "checksums": {"sha256": "0" * 64}},
        "minimum_provisioned_size": 10,
        "operating_system": {
            "allow_user_image_creation": True,
            "architecture": image.architecture,
            "dedicated_host_only": False,
            "display_name": f"{family.title()} {'.'.join(version[:-1])} ({image.architecture})",
            "family": f"{family.title()} Linux",
            "href": f"{account.base}/operating_systems/{image.system}",
            "name": image.system,
            "user_data_format": "cloud_init",
            "vendor": family.title(),
            "version": ".".join(version[:-1]),
        },
        "resource_group": shapes.resource_group(account, account.default_resource_group()),
        "status": image.status,
        "status_reasons": [],
        "user_data_format": "cloud_init",
        "visibility": "public",
        "zones": [],
    }


def list_images(ask: Ask) -> Answer:
    return lists.page(ask, "images", [(at, _body(ask.account, one)) for at, one in enumerate(IMAGES, 1)])


def get_image(ask: Ask) -> Answer:
    for image in IMAGES:
        if image.id == ask.path["id"]:
            return Answer(200, _body(ask.account, image))
    raise not_found("image", ask.path["id"])


def _region(account: Account, name: str) -> dict[str, Any]:
    # Elsewhere each region has an address of its own; here all have the same.
    return {
        "name": name,
        "href": f"{account.base}/regions/{name}",
        "endpoint": account.endpoint,
        "status": "available",
    }


def list_regions(ask: Ask) -> Answer:
    return Answer(200, {"regions": [_region(ask.account, name) for name in ZONES]})


def get_region(ask: Ask) -> Answer:
    if ask.path["name"] not in ZONES:
        raise not_found("region", ask.path["name"])
    return Answer(200, _region(ask.account, ask.path["name"]))


def list_region_zones(ask: Ask) -> Answer:
    region = ask.path["region_name"]
    if region not in ZONES:
        raise not_found("region", region)
    home = {"name": region, "href": f"{ask.account.base}/regions/{region}"}
    zones = [
        {**shapes.zone(ask.account, zone), "region": home, "status": "available", "data_center": f"dc{zone[-1]}"}
        for zone in ZONES[region]
    ]
    return Answer(200, {"zones": zones})


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler for handler in (get_image, get_region, list_images, list_region_zones, list_regions)
}
