"""Public addresses: floating IPs, resources of their own that are named like their machine and outlive it."""

from __future__ import annotations

from typing import Any

from vmrun.core.clouds import Fault

from . import request, views
from .api import Api
from .errors import IbmError
from .places import Places


class Addresses:
    """The floating IPs of all regions.

    One is reserved in the call that binds it, so there is none that nobody uses, but when its machine goes first. As
    it bears the machine's name, it is found again whatever answer was lost.
    """

    def __init__(self, api: Api, places: Places) -> None:
        self._api = api
        self._places = places

    def listed(self, region: str) -> list[dict[str, Any]]:
        """All of a region that may be vmrun's."""
        return self._api.pages(region, "list_floating_ips", "floating_ips", **self._places.in_group())

    def of_interface(self, region: str, interface: str) -> str:
        """The address bound to a network interface; "" if none is."""
        found = self._api.pages(region, "list_floating_ips", "floating_ips", target_id=interface)
        return views.public_address(found, interface)

    def give(self, region: str, name: str, interface: str) -> str:
        """Reserve an address for a machine and bind it, once; "" where that cannot be done or known just yet.

        Raises IbmError for what time does not mend: quota, permission.
        """
        body = request.floating_ip(name, interface, self._places.resource_group())
        try:
            made = self._api.change(region, "create_floating_ip", floating_ip_prototype=body)
            return str(made.get("address", ""))
        except IbmError as error:
            if error.name_taken:
                return self._bind(region, name, interface)
            if error.fault in (Fault.unavailable, Fault.throttle):
                return ""  # perhaps it is there already: whoever looks next sees it, or gives another
            raise

    def drop(self, region: str, name: str) -> None:
        """Release every address with this name; none is success."""
        for each in self.listed(region):
            if each.get("name") == name:
                self.release(region, str(each["id"]))

    def release(self, region: str, id: str) -> None:
        """Release one address; one that is gone is success."""
        try:
            self._api.change(region, "delete_floating_ip", id=id)
        except IbmError as error:
            if error.status != 404:
                raise

    def _bind(self, region: str, name: str, interface: str) -> str:
        """Bind the address that has the machine's name already."""
        found = next((each for each in self.listed(region) if each.get("name") == name), None)
        if found is None:
            return ""  # being released, or not yet listed
        target = str((found.get("target") or {}).get("id", ""))
        if not target:
            bound = self._api.change(
                region,
                "add_network_interface_floating_ip",
                virtual_network_interface_id=interface,
                id=str(found["id"]),
            )
            return str(bound.get("address", ""))
        return str(found.get("address", "")) if target == interface else ""
