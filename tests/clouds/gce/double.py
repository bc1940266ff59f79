"""The double of Compute Engine as tests hold it: an address, credentials, an inventory, and hands."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clouds import control
from tests.clouds.double import Inventory
from tests.clouds.machines import Machines, Power
from tests.clouds.metadata import GceMetadata
from tests.clouds.server import Reply, Request, Server
from tests.clouds.trouble import Script
from vmrun.core.clock import Clock, SystemClock
from vmrun.core.clouds import CloudError

from . import world
from .building import fingerprint
from .identity import Tokens, key_file
from .project import CALLER, DEFAULT_NETWORK, DEFAULT_RULES, ID, Project
from .service import Service
from .store import ROOT, Key

#: Seconds between two looks at the machines.
_LOOK = 0.1


class GceDouble:
    """Plays one project of Compute Engine until it is closed."""

    def __init__(
        self, machines: Machines, host: str, script: Script, port: int, *, now: Callable[[], float], pace: float
    ) -> None:
        self.script = script
        self._machines = machines
        failures: list[str] = []
        self._project = Project(machines, script, now=now, pace=pace, report=failures.append)
        tokens = Tokens(lambda: self.endpoint, CALLER, now)
        self._service = Service(self._project, tokens)
        self._server = Server(self._answer, host, port)
        self.endpoint = self._server.endpoint
        self.metadata: GceMetadata | None = None
        self._failures = failures
        self._files = tempfile.TemporaryDirectory(prefix="vmrun-gce-double-")
        self._key_file = Path(self._files.name) / "key.json"
        self._key_file.touch(0o600)
        self._key_file.write_text(key_file(self.endpoint, ID, CALLER))
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="gce-watch", daemon=True)
        self._watch.start()

    # --- to be reached ---

    def settings(self) -> dict[str, object]:
        return {
            "endpoint": self.endpoint,
            # Never the address of the real service, which this computer may have, too.
            "metadata_endpoint": self.endpoint if self.metadata is None else self.metadata.endpoint,
            "project": ID,
            "regions": ["us-central1"],
            "credentials_file": str(self._key_file),
        }

    def environment(self) -> dict[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self._key_file), "GOOGLE_CLOUD_PROJECT": ID}

    # --- to be looked at ---

    def inventory(self) -> Inventory:
        """Instances, disks and addresses as `place/name`; firewall rules are the groups; what all projects have is not
        there."""
        with self._project.lock:
            self._project.life.settle()
            store = self._project.store
            return Inventory(
                instances={_id(key): str(one["status"]) for key, one in store.of("instances")},
                disks=[_id(key) for key, _ in store.of("disks")],
                addresses=[_id(key) for key, _ in store.of("addresses")],
                groups=[key.name for key, _ in store.of("firewalls") if key.name not in DEFAULT_RULES],
                networks=[key.name for key, _ in store.of("networks") if key.name != DEFAULT_NETWORK],
            )

    def instance(self, name: str) -> dict[str, Any]:
        """An instance as the API gives it, whatever the script says; KeyError if there is none."""
        with self._project.lock:
            self._project.life.settle()
            return dict(self._project.store.find(self._key(name)) or {})

    # --- hands: an instance by its name, or as zone/name ---

    def power_off(self, name: str) -> None:
        with self._project.lock:
            key = self._key(name)
            machine = self._project.life.hosts[key].machine
        if machine:
            self._machines.stop(machine)
        with self._project.lock:
            self._project.life.noticed(key, self._power(machine))

    def delete_by_hand(self, name: str) -> None:
        with self._project.lock:
            self._project.life.delete(self._key(name))

    def stop_by_hand(self, name: str) -> None:
        with self._project.lock:
            self._project.life.stop(self._key(name))

    def preempt(self, name: str) -> None:
        """ValueError when it is not a spot instance that runs."""
        with self._project.lock:
            self._project.life.settle()
            self._project.life.preempt(self._key(name))

    def open_metadata(self, host: str) -> None:
        self.metadata = GceMetadata(self._at, host)

    def announce(self, name: str, *, likely: bool = False) -> None:
        """ValueError for a machine that is not a spot one, and for `likely`, which Google never says."""
        with self._project.lock:
            key = self._key(name)
            scheduling = (self._project.store.find(key) or {}).get("scheduling", {})
            machine = self._project.life.hosts[key].machine
        if scheduling.get("provisioningModel") != "SPOT" or self.metadata is None or likely:
            raise ValueError(f"{name} is not a spot machine with metadata that could say so")
        self.metadata.announce(machine)

    def _at(self, address: str) -> str:
        """The machine that has this address."""
        with self._project.lock:
            running = self._project.life.running()
        return next((machine for _, machine in running if self._machines.address(machine) == address), "")

    def plant(self, name: str, *, tags: dict[str, str] | None = None, region: str = "", zone: str = "") -> str:
        """It is an instance on paper, with a disk and an address; `tags` are its labels."""
        zone = zone or f"{region or 'us-central1'}-{world.REGIONS[region or 'us-central1'][0]}"
        key, disk = Key("instances", f"zones/{zone}", name), Key("disks", f"zones/{zone}", name)
        with self._project.lock:
            store = self._project.store
            place = f"{ROOT}projects/{ID}/zones/{zone}"
            common = {"zone": place, "labels": dict(tags or {}), "labelFingerprint": fingerprint(tags)}
            size = {"sizeGb": "10", "type": f"{place}/diskTypes/pd-standard", "architecture": "X86_64"}
            store.add(disk, {**common, **size, "status": "READY", "users": [store.link(key)]}, "disk")
            self._project.life.plant(key, {**common, **_planted(store.link(disk), place)})
        return _id(key)

    # --- hands that only this double has ---

    def deny(self, *permissions: str) -> None:
        """The caller has these permissions no more, as the calls that need them and testIamPermissions will say."""
        with self._project.lock:
            self._project.denied.update(permissions)

    def grant_only(self, *permissions: str) -> None:
        """The caller has these permissions and no others: whether a policy is enough shows in what fails."""
        with self._project.lock:
            self._project.granted = frozenset(permissions)

    def limit(self, metric: str, limit: float, region: str = "") -> None:
        """Set a quota; region "" for those of the whole project, `CPUS_PER_VM_FAMILY:C4` for that of a family."""
        with self._project.lock:
            self._project.quotas.limit(region, metric, limit)

    def set_metadata(self, key: str, value: str) -> None:
        """An entry of the project's own metadata, such as `enable-oslogin`."""
        with self._project.lock:
            self._project.metadata[key] = value

    def close(self) -> None:
        """Raises what went wrong in the double itself, if anything did."""
        self._over.set()
        self._watch.join()
        try:
            if self.metadata is not None:
                self.metadata.close()
            self._server.close()
        finally:
            self._project.life.close()
            self._files.cleanup()
        assert not self._failures, "the double itself failed:\n" + "\n".join(self._failures)

    # --- inside ---

    def _answer(self, request: Request) -> Reply:
        return control.answer(self, request) or self._service.answer(request)

    def _look(self) -> None:
        """Time passes and machines power themselves off, whether anybody calls or not."""
        while not self._over.wait(_LOOK):
            with self._project.lock:
                self._project.life.settle()
                running = self._project.life.running()
            for key, machine in running:
                try:
                    power = self._power(machine)
                except CloudError as error:
                    self._failures.append(f"{machine} cannot be looked at: {error}")
                    continue
                with self._project.lock:
                    self._project.life.noticed(key, power)

    def _power(self, machine: str) -> Power:
        return self._machines.power(machine) if machine else Power.off

    def _key(self, name: str) -> Key:
        zone, _, plain = name.rpartition("/")
        for key in self._project.life.hosts:
            if key.name == plain and zone in ("", key.scope.partition("/")[2]):
                return key
        raise KeyError(f"instance {name}")


def open_double(
    machines: Machines,
    host: str,
    script: Script,
    port: int = 0,
    *,
    clock: Clock | None = None,
    pace: float = 0.2,
) -> GceDouble:
    """Start it.

    Run times end by `clock`; None: this computer's. `pace` is how many of its seconds pass at least before an operation
    is done.
    """
    return GceDouble(machines, host, script, port, now=(clock or SystemClock()).now, pace=pace)


def _id(key: Key) -> str:
    return f"{key.scope.rpartition('/')[2]}/{key.name}"


def _planted(disk: str, place: str) -> dict[str, Any]:
    region = place.replace("/zones/", "/regions/").rpartition("-")[0]
    return {
        "machineType": f"{place}/machineTypes/e2-standard-2",
        "metadata": {"kind": "compute#metadata", "fingerprint": fingerprint(disk)},
        "disks": [
            {
                "kind": "compute#attachedDisk",
                "type": "PERSISTENT",
                "mode": "READ_WRITE",
                "source": disk,
                "index": 0,
                "boot": True,
                "autoDelete": True,
            }
        ],
        "networkInterfaces": [
            {
                "kind": "compute#networkInterface",
                "name": "nic0",
                "network": f"{place.partition('/zones/')[0]}/global/networks/default",
                "subnetwork": f"{region}/subnetworks/default",
                "networkIP": "10.128.0.99",
            }
        ],
        "scheduling": {"automaticRestart": True, "provisioningModel": "STANDARD"},
        "startRestricted": False,
        "deletionProtection": False,
    }
