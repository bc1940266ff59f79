"""What must be in place before a job can run, here and in the accounts of the clouds: found out, made, removed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .core.clock import CLOCK_GOOD
from .core.clouds import CloudError, Fault, Need
from .core.errors import ConfigError, Denied, StoreAbsent, StoreDenied, StoreUnavailable, VmrunError
from .core.estates import Finding, Grade
from .core.units import format_duration, format_size
from .crypto import load_private_key, public_key
from .environment.uv import find_uv
from .fleet.explain import nothing_fits
from .registry import AUTO, CLOUDS
from .settings.configured import configured
from .settings.directories import check_directories
from .store.deployment import read_deployment
from .store.probe import probe
from .wiring import Wiring

#: Seconds beyond which clouds refuse the requests of a clock that is off.
CLOCK_BAD = 300.0
#: What to do where keys of the user's are placed on machines.
KEYS_HINT = "give vmrun keys that can do nothing but use this bucket"
#: The area of what is not a driver's.
HERE = "here"
_NOT_ALLOWED = (Fault.permission, Fault.billing)
#: Faults after which nothing is known.
_PASSING = (Fault.throttle, Fault.unavailable)


@dataclass(frozen=True, slots=True)
class Checked:
    """A finding, and what it is about: `here`, or the name of a driver."""

    area: str
    finding: Finding


class Account:
    """One deployment's surroundings."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._settings = wiring.settings

    def check(self, on: str | None, need: Need) -> Iterator[Checked]:
        """All that a job with `need` on `on` depends on (None: on any driver in use here), as it is found out.

        Leaves nothing behind, here or anywhere. Raises UsageError for a driver that there is none of.
        """
        areas = self._wiring.clouds(on) if on else self._in_use()
        parts = (self._configuration, self._keys, self._store, self._clock, _packages)
        for part in parts:
            yield Checked(HERE, part())
        for area in areas:
            for finding in self._cloud(area, need) if area in CLOUDS else self._machines(area, need):
                yield Checked(area, finding)
            if told := self._wiring.lender.warning(area):
                yield Checked(area, Finding("store keys", Grade.warning, told, KEYS_HINT))

    def policies(self, on: str | None) -> dict[str, str]:
        """The least rights that vmrun needs, by cloud. Raises ConfigError when no cloud is configured."""
        return {name: self._wiring.estate(name).policy() for name in self._wiring.clouds(on or AUTO)}

    def establish(self, on: str) -> Iterator[str]:
        """Make what jobs on a cloud need there beside machines, telling each step. Raises CloudError."""
        return self._wiring.estate(on).establish(self._wiring.deployment.id)

    def dismantle(self, on: str) -> Iterator[str]:
        """Remove what `establish` made, telling each step. Raises CloudError."""
        return self._wiring.estate(on).dismantle(self._wiring.deployment.id)

    def _in_use(self) -> tuple[str, ...]:
        chosen = self._settings.defaults.on
        names = [chosen] if chosen != AUTO else []
        names += ["docker"] if shutil.which("docker") else []
        names += ["ssh"] if self._settings.ssh.hosts else []
        names += [name for name in CLOUDS if configured(name, self._settings, os.environ)]
        return tuple(dict.fromkeys(names))

    # --- here ---

    def _configuration(self) -> Finding:
        def look() -> str:
            check_directories(self._settings)
            return ", ".join(str(path) for path in self._settings.source) or "no file; the defaults hold"

        return _found("configuration", look)

    def _keys(self) -> Finding:
        path = self._settings.config_dir / "keys" / "client.key"
        if not path.exists():
            return Finding("keys", Grade.good, f"none yet; {path} is made at the first use")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding("keys", Grade.warning, f"{path} can be read by others", f"chmod 600 {path}")

        def look() -> str:
            load_private_key(path)
            return str(path)

        return _found("keys", look)

    def _store(self) -> Finding:
        return _found("store", self._probe)

    def _probe(self) -> str:
        wiring, url = self._wiring, self._settings.store.url
        probe(wiring.blobs, wiring.clock, wiring.rng)
        record = read_deployment(wiring.blobs)
        if record is None:
            return f"{url} keeps its promises, and is not in use yet"
        if not _same_key(self._settings.config_dir / "keys" / "client.key", record.public_key):
            raise ConfigError(
                f"{url} belongs to another deployment ({record.id}), whose key is not in {self._settings.config_dir}",
                hint="copy the configuration directory of the computer that set it up, or choose another store.url",
            )
        return f"{url} keeps its promises; deployment {record.id}"

    def _clock(self) -> Finding:
        try:
            told = self._wiring.store_time()
        except StoreUnavailable as error:
            return Finding("clock", Grade.unclear, error.message, "see whether the store can be reached from here")
        if told is None:
            return Finding("clock", Grade.good, "nothing to compare it with: the store has no server of its own")
        off = self._wiring.clock.now() - told
        side = f"{format_duration(abs(off))} {'ahead of' if off > 0 else 'behind'} the store's"
        if abs(off) <= CLOCK_GOOD:
            return Finding("clock", Grade.good, "agrees with the store's")
        grade = Grade.bad if abs(off) > CLOCK_BAD else Grade.warning
        return Finding("clock", grade, side, "set this computer's clock, for instance by `timedatectl set-ntp true`")

    # --- where jobs run ---

    def _cloud(self, on: str, need: Need) -> Iterator[Finding]:
        url = self._settings.store.url
        if url.startswith("file://"):
            hint = "set store.url to object storage, for instance s3://bucket/prefix"
            yield Finding("store", Grade.bad, f"its machines cannot see {url}, a directory of this computer", hint)
        try:
            yield from self._wiring.estate(on).check(need)
        except VmrunError as error:
            yield _refused("account", error)

    def _machines(self, on: str, need: Need) -> Iterator[Finding]:
        yield _found("machines", lambda: self._offered(on, need))

    def _offered(self, on: str, need: Need) -> str:
        provisioner = self._wiring.provisioner(on)
        offers = list(provisioner.offers(need))
        if not offers:
            raise nothing_fits(on, need)
        # That it can be listed means that it can be used: no machine is made to find out.
        list(provisioner.instances("doctor"))
        largest = max(offers, key=lambda offer: offer.vcpus)
        return f"{largest.vcpus} vCPUs, {format_size(largest.memory)} of memory"


def _packages() -> Finding:
    try:
        return Finding("uv", Grade.good, find_uv())
    except VmrunError as error:
        return Finding("uv", Grade.warning, f"{error.message}: jobs that need packages cannot run", error.hint)


def _found(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, Grade.good, look())
    except VmrunError as error:
        return _refused(what, error)


def _refused(what: str, error: VmrunError) -> Finding:
    """An error as a finding; one of rights is called so, whatever was looked at."""
    not_allowed = isinstance(error, Denied | StoreDenied) and not isinstance(error, StoreAbsent)
    not_allowed = not_allowed or (isinstance(error, CloudError) and error.fault in _NOT_ALLOWED)
    unclear = isinstance(error, StoreUnavailable) or (isinstance(error, CloudError) and error.fault in _PASSING)
    name = f"permission ({what})" if not_allowed else what
    return Finding(name, Grade.unclear if unclear else Grade.bad, error.message, error.hint)


def _same_key(path: Path, expected: str) -> bool:
    return path.exists() and public_key(load_private_key(path)).hex() == expected
