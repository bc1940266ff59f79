"""What `vmrun doctor` finds out and `vmrun init CLOUD` does, over a real store and configuration and a fake account."""

from __future__ import annotations

import email.utils
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.estates import FakeEstate
from tests.unit.core.world import ManualClock
from vmrun import account as module
from vmrun.account import CLOCK_BAD, Account, Checked
from vmrun.core.clock import CLOCK_GOOD
from vmrun.core.clouds import CloudError, Fault, Need
from vmrun.core.errors import ConfigError, StoreAbsent, StoreDenied, StoreUnavailable
from vmrun.core.estates import Finding, Grade
from vmrun.settings import Settings, load_settings
from vmrun.store.dates import server_of, server_time
from vmrun.wiring import Wiring


class World:
    """A configuration, and an account at a cloud."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.estate = FakeEstate()
        self.settings: Settings = load_settings(
            {"store.url": f"file://{folder}/store", **settings},
            environ={f"VMRUN_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE")},
            cwd=folder,
        )
        self.wiring = Wiring(self.settings)
        self.wiring.estate = lambda name: self.estate  # type: ignore[method-assign,assignment]
        self.account = Account(self.wiring)

    def check(self, on: str | None = "local", need: Need | None = None) -> list[Checked]:
        return list(self.account.check(on, need or Need()))

    def of(self, what: str, on: str | None = "local", area: str = "here") -> Finding:
        (found,) = [each.finding for each in self.check(on) if (each.area, each.finding.what) == (area, what)]
        return found

    @property
    def key(self) -> Path:
        return self.settings.config_dir / "keys" / "client.key"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    for name in ("HOME", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "IBMCLOUD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return World(tmp_path)


def test_a_fresh_computer_is_well_and_nothing_is_left_behind(world: World) -> None:
    found = world.check()
    assert [each.finding.what for each in found] == ["configuration", "keys", "store", "clock", "uv", "machines"]
    assert {each.finding.grade for each in found} == {Grade.good}
    assert not world.key.exists()
    assert [path for path in (world.folder / "store").rglob("*") if path.is_file() and "probe" in str(path)] == []
    assert not (world.folder / "store" / "deployment.json").exists()


def test_a_store_in_use_is_recognised_by_its_key(world: World, tmp_path: Path) -> None:
    identifier = world.wiring.deployment.id
    assert identifier in world.of("store").message
    assert world.of("keys") == Finding("keys", Grade.good, str(world.key))
    os.rename(world.key, tmp_path / "elsewhere")
    foreign = world.of("store")
    assert foreign.grade is Grade.bad
    assert "another deployment" in foreign.message


def test_a_key_that_others_can_read_is_a_warning_and_a_damaged_one_is_bad(world: World) -> None:
    assert world.wiring.deployment
    world.key.chmod(0o644)
    assert (world.of("keys").grade, world.of("keys").hint) == (Grade.warning, f"chmod 600 {world.key}")
    world.key.chmod(0o600)
    world.key.write_bytes(b"rubbish")
    assert world.of("keys").grade is Grade.bad


def test_a_directory_that_cannot_be_used_is_bad(tmp_path: Path, world: World) -> None:
    (tmp_path / "cache").write_bytes(b"")
    found = world.of("configuration")
    assert found.grade is Grade.bad
    assert "VMRUN_CACHE_DIR" in found.hint


def test_uv_that_is_missing_is_a_warning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ConfigError("uv is not installed", hint="pip install uv")

    monkeypatch.setattr(module, "find_uv", missing)
    assert (world.of("uv").grade, world.of("uv").hint) == (Grade.warning, "pip install uv")


def test_a_machine_that_no_driver_has_is_bad(world: World) -> None:
    found = world.check(need=Need(cpus=90_000))[-1]
    assert (found.area, found.finding.grade) == ("local", Grade.bad)
    assert "90000 CPUs" in found.finding.message


def test_an_account_tells_what_it_finds_as_it_finds_it(world: World) -> None:
    world.estate.findings = [Finding("quota", Grade.bad, "32 of 128 vCPUs", "ask for more"), *world.estate.findings]
    found = world.check("ec2", Need(cpus=128))
    own = [each.finding for each in found if each.area == "ec2"]
    # Its machines could not see a directory of this computer
    assert [(each.what, each.grade) for each in own] == [
        ("store", Grade.bad),
        ("quota", Grade.bad),
        ("credentials", Grade.good),
    ]
    assert world.estate.needs == [Need(cpus=128)]


@pytest.mark.parametrize(
    ("fault", "what", "grade"),
    [
        (Fault.permission, "permission (account)", Grade.bad),
        (Fault.config, "account", Grade.bad),
        (Fault.unavailable, "account", Grade.unclear),
    ],
)
def test_what_stops_the_look_at_an_account_is_a_finding(world: World, fault: Fault, what: str, grade: Grade) -> None:
    world.estate.trouble = CloudError("no", fault=fault, hint="do this")
    assert world.check("ec2")[-1] == Checked("ec2", Finding(what, grade, "no", "do this"))


def test_without_a_word_all_that_is_in_use_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {each.area for each in world.check(None)} == {"here", "local"}
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert {each.area for each in world.check(None)} == {"here", "local", "ec2"}


def test_all_configured_clouds_have_a_policy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        world.account.policies(None)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert world.account.policies(None) == world.account.policies("ec2") == {"ec2": "rights on ec2\n"}


def test_what_is_made_is_made_once_and_removed_once(world: World) -> None:
    identifier = world.wiring.deployment.id
    assert list(world.account.establish("ec2")) == ["network: made", "group: made", "role: made"]
    assert list(world.account.establish("ec2")) == ["network: found", "group: found", "role: found"]
    assert set(world.estate.held) == {identifier}
    assert len(list(world.account.dismantle("ec2"))) == 3
    assert list(world.account.dismantle("ec2")) == []


# --- the clock ---


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that tells a time; its address, and what it is to say."""
    monkeypatch.setattr("vmrun.store.dates.TIMEOUT", 60.0)
    says: dict[str, Any] = {"status": 403, "date": 1_700_000_000}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(says["status"])
            if says["date"] is not None:
                told = says["date"]
                self.send_header("Date", told if isinstance(told, str) else email.utils.formatdate(told, usegmt=True))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", says
    listening.shutdown()
    listening.server_close()
    thread.join(60)


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_server_tells_the_time_with_whatever_it_answers(server: tuple[str, dict[str, Any]], status: int) -> None:
    address, says = server
    says["status"] = status
    assert server_time(address) == 1_700_000_000


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_server_that_does_not_tell_the_time(server: tuple[str, dict[str, Any]], date: str | None) -> None:
    address, says = server
    says["date"] = date
    with pytest.raises(StoreUnavailable, match="does not tell the time"):
        server_time(address)


@pytest.mark.parametrize("address", ["", "file:///etc/passwd", "http://127.0.0.1:1", "http://[bad"])
def test_what_is_no_server_or_does_not_answer(address: str) -> None:
    with pytest.raises(StoreUnavailable):
        server_time(address)


@pytest.mark.parametrize(
    ("off", "grade"),
    [
        (0.0, Grade.good),
        (CLOCK_GOOD, Grade.good),
        (-CLOCK_GOOD - 1, Grade.warning),
        (CLOCK_BAD, Grade.warning),
        (CLOCK_BAD + 1, Grade.bad),
        (-86400.0, Grade.bad),
    ],
)
def test_a_clock_that_is_off_is_told_by_how_much(
    tmp_path: Path, server: tuple[str, dict[str, Any]], off: float, grade: Grade
) -> None:
    clock = ManualClock()
    address, says = server
    says["date"] = round(clock.now())
    world = World(tmp_path, **{"store.url": "s3://bucket/prefix", "store.endpoint": address})
    clock.time += off
    world.wiring.clock = clock
    found = world.account._clock()
    assert found.grade is grade
    assert (found.hint != "") is (grade is not Grade.good)
    assert grade is Grade.good or ("ahead of" if off > 0 else "behind") in found.message


@pytest.mark.parametrize(
    ("url", "endpoint", "server"),
    [
        ("file:///s", "", ""),
        ("s3://b/p", "", "https://s3.amazonaws.com"),
        ("s3://b/p", "http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("gs://b", "", "https://storage.googleapis.com"),
        ("az://c", "", ""),
    ],
)
def test_the_server_behind_a_store(url: str, endpoint: str, server: str) -> None:
    assert server_of(url, endpoint) == server


def test_a_bucket_that_is_not_there_is_no_matter_of_rights(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def answering(error: Exception) -> None:
        def probe(*_: object) -> None:
            raise error

        monkeypatch.setattr(module, "probe", probe)

    answering(StoreAbsent("cannot list: NoSuchBucket", hint="make the bucket"))
    assert world.of("store").hint == "make the bucket"
    answering(StoreDenied("cannot list: AccessDenied", hint="grant it"))
    assert world.of("permission (store)").hint == "grant it"


def test_keys_of_the_user_on_machines_are_warned_of(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.of("store").grade is Grade.good
    monkeypatch.setattr(Account, "_store", lambda self: Finding("store", Grade.good, "well"))
    monkeypatch.setattr(Account, "_clock", lambda self: Finding("clock", Grade.good, "well"))

    def warnings() -> list[Finding]:
        made = World(tmp_path, **{"store.url": "s3://bucket/x", "store.endpoint": "http://127.0.0.1:9"})
        return [each.finding for each in made.check("ec2") if each.finding.what == "store keys"]

    assert warnings() == []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (found,) = warnings()
    assert found.grade is Grade.warning
    assert "on each machine of ec2" in found.message
    assert "http://127.0.0.1:9 lends none" in found.message
