"""How the image comes to be, and what a missing, mute or failing Docker says; `docker` is mostly a stand-in here."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.machines import CLOCK, Machines
from vmrun.core.clouds import CloudError, Fault, Need
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.docker import image as image_module
from vmrun.provisioners.docker.api import Docker
from vmrun.provisioners.docker.driver import DockerProvisioner, open_driver
from vmrun.provisioners.docker.image import OWN_BASE, PUBLIC_BASE, MachineImage, context_hash, context_tar

#: Seconds for which what hangs does so: whoever gives it up is a good deal faster, however busy this computer is.
HANGS = 200
#: Knows images as files in its directory; what `pull` and `build` do is read from there, too.
STAND_IN = """#!/bin/sh
cd {place}
echo "$*" >> calls
name() {{ echo "$1" | tr ':/' '__'; }}
case $1 in
  inspect)
    [ -e "image-$(name "$4")" ] && {{ echo '[{{"Id": "x"}}]'; exit 0; }}
    echo '[]'; echo "Error: No such image: $4" >&2; exit 1 ;;
  pull)
    [ -e pull-hangs ] && exec sleep {hangs}
    [ -e registry ] || {{ echo 'dial tcp: lookup registry-1.docker.io: no such host'; exit 1; }}
    echo "bookworm-slim: Pulling from library/debian"; : > "image-$(name "$2")" ;;
  build)
    cat > context-of-build
    echo 'DEPRECATED: The legacy builder is deprecated'
    echo 'Step 1/2 : ARG BASE'; echo '#5 [2/4] RUN apt-get'; echo 'noise'
    [ -e build-fails ] && {{ echo 'E: Unable to fetch some archives'; exit 100; }}
    echo "$4" > base-of-build
    : > "image-$(name "$6")" ;;
  info) echo '{{"NCPU": 2, "MemTotal": 1, "Architecture": "x86_64"}}' ;;
esac
"""


class Engine:
    def __init__(self, place: Path) -> None:
        self.place = place / "engine"
        self.place.mkdir()
        self.program = place / "docker"
        self.program.write_text(STAND_IN.format(place=self.place, hangs=HANGS))
        self.program.chmod(0o755)
        self.cache = place / "cache" / "docker"
        self.lines: list[str] = []

    def image(self) -> MachineImage:
        return MachineImage(Docker(str(self.program)), CLOCK, self.cache, self.lines.append)

    def has(self, *flags: str) -> None:
        for flag in flags:
            (self.place / flag).touch()

    def calls(self, command: str) -> list[str]:
        calls = self.place / "calls"
        return [line for line in calls.read_text().splitlines() if line.startswith(command)] if calls.exists() else []


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    # A registry that is only slow, because this computer is busy, is not one that does not answer.
    monkeypatch.setattr(image_module, "_REGISTRY_ANSWERS", HANGS / 2)
    return Engine(tmp_path)


def test_the_image_is_built_once_on_the_registrys_base(engine: Engine) -> None:
    engine.has("registry")
    image = engine.image()
    assert image.ensure() == image.tag == f"vmrun-machine:{context_hash()}"
    assert engine.image().ensure() == image.tag
    assert len(engine.calls("build")) == len(engine.calls("pull")) == 1
    assert (engine.place / "base-of-build").read_text() == f"BASE={PUBLIC_BASE}\n"
    # The whole context went in, as it is.
    with tarfile.open(fileobj=io.BytesIO((engine.place / "context-of-build").read_bytes())) as tar:
        assert sorted(tar.getnames()) == ["Dockerfile", "cloud.cfg"]
    # A person sees steps and the end, and none of the noise.
    assert any("Step 1/2" in line for line in engine.lines)
    assert any("[2/4]" in line for line in engine.lines)
    assert not any("noise" in line or "DEPRECATED" in line for line in engine.lines)
    assert "ready" in engine.lines[-1]


def test_an_image_that_is_there_is_taken_at_once(engine: Engine) -> None:
    engine.has(f"image-{engine.image().tag.replace(':', '_')}")
    engine.image().ensure()
    assert len(engine.calls("")) == 1
    assert engine.lines == []
    assert not engine.cache.exists()


@pytest.mark.parametrize("base", [PUBLIC_BASE, OWN_BASE])
def test_a_base_that_is_there_is_not_pulled(engine: Engine, base: str) -> None:
    engine.has(f"image-{base.replace(':', '_')}")
    engine.image().ensure()
    assert engine.calls("pull") == []
    assert (engine.place / "base-of-build").read_text() == f"BASE={base}\n"


def test_another_context_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before, content = context_hash(), dict(image_module.context_files())
    assert context_tar() == context_tar()
    content["Dockerfile"] += b"\n"
    monkeypatch.setattr(image_module, "context_files", lambda: content)
    assert context_hash() != before


def test_two_that_need_the_image_at_once_build_it_once(engine: Engine) -> None:
    engine.has("registry")
    together = threading.Barrier(3)

    def ensure(_: int) -> str:
        image = engine.image()
        together.wait(timeout=30)
        return image.ensure()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(ensure, range(3)))) == 1
    assert len(engine.calls("build")) == 1


def test_without_registry_and_debootstrap_it_says_what_to_do(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(CloudError) as caught:
        engine.image().ensure()
    assert caught.value.fault is Fault.config
    assert "debootstrap is not installed" in caught.value.message
    assert "apt-get install debootstrap" in caught.value.hint
    assert engine.calls("build") == []


def test_debootstrap_needs_root_and_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module.shutil, "which", lambda *_, **__: "/usr/sbin/debootstrap")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CloudError) as caught:
        engine.image().ensure()
    assert caught.value.fault is Fault.config
    assert "only root" in caught.value.message


def test_a_registry_that_does_not_answer_is_given_up_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.has("pull-hangs")
    monkeypatch.setattr(image_module, "_REGISTRY_ANSWERS", 0.3)
    monkeypatch.setattr(image_module.shutil, "which", lambda *_, **__: None)
    start = time.monotonic()
    with pytest.raises(CloudError):
        engine.image().ensure()
    assert time.monotonic() - start < HANGS / 2


def test_a_build_that_fails_shows_its_last_lines(engine: Engine) -> None:
    engine.has("registry", "build-fails")
    with pytest.raises(CloudError) as caught:
        engine.image().ensure()
    assert "Unable to fetch some archives" in caught.value.message
    # The next one tries again.
    (engine.place / "build-fails").unlink()
    engine.image().ensure()


# --- a missing, mute or forbidden engine ---


def driver(program: Path | str) -> DockerProvisioner:
    docker = Docker(str(program))
    return DockerProvisioner(docker, MachineImage(docker, CLOCK, Path("unused"), print), CLOCK)


def program(place: Path, text: str) -> Path:
    path = place / "docker"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


ABSENT = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
FORBIDDEN = "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"


def calls(driver: DockerProvisioner, machines: Machines) -> dict:
    """Every verb of a provisioner."""
    spec = machines.plan().spec
    return {
        "offers": lambda: list(driver.offers(Need())),
        "create": lambda: driver.create(spec),
        "get": lambda: driver.get("x"),
        "instances": lambda: list(driver.instances(spec.owner)),
        "delete": lambda: driver.delete("x"),
        "leftovers": lambda: list(driver.leftovers(spec.owner)),
    }


@pytest.mark.parametrize("verb", ["offers", "create", "get", "instances", "delete", "leftovers"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"echo '{ABSENT}' >&2; exit 1", Fault.config),
        (f"echo '[]'; echo '{ABSENT}' >&2; exit 1", Fault.config),
        (f"echo '{FORBIDDEN}' >&2; exit 1", Fault.permission),
        ("echo 'Error response from daemon: something new' >&2; exit 1", Fault.unknown),
    ],
    ids=["absent", "absent, empty answer", "forbidden", "failing"],
)
def test_no_verb_takes_a_broken_engine_for_an_empty_one(
    tmp_path: Path, machines: Machines, verb: str, text: str, fault: Fault
) -> None:
    """Above all: a list is complete, or an error."""
    with pytest.raises(CloudError) as caught:
        calls(driver(program(tmp_path, text)), machines)[verb]()
    assert caught.value.fault is fault
    assert caught.value.hint


def test_an_old_command_that_reports_the_missing_engine_with_success(tmp_path: Path) -> None:
    answer = '{"ServerErrors": ["Cannot connect to the Docker daemon"], "NCPU": 0}'
    with pytest.raises(CloudError) as caught:
        list(driver(program(tmp_path, f"echo '{answer}'")).offers(Need()))
    assert caught.value.fault is Fault.config


def test_no_docker_command_at_all() -> None:
    with pytest.raises(CloudError) as caught:
        list(driver("/no/such/docker").offers(Need()))
    assert (caught.value.fault, caught.value.exit_code) == (Fault.config, 4)
    assert "--on local" in caught.value.hint


def test_an_engine_that_hangs_is_given_up_on(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(CloudError) as caught:
        Docker(str(program(tmp_path, f"exec sleep {HANGS}"))).run("info", timeout=0.3)
    assert caught.value.fault is Fault.unavailable
    assert time.monotonic() - start < HANGS / 2


def test_the_real_command_without_an_engine(monkeypatch: pytest.MonkeyPatch, provisioner: DockerProvisioner) -> None:
    list(provisioner.offers(Need()))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(CloudError) as caught:
        list(provisioner.instances("0" * 26))
    assert caught.value.fault is Fault.config
    with pytest.raises(CloudError):
        provisioner.delete("x")


def test_the_driver_opens_without_asking_the_engine(tmp_path: Path, rng) -> None:
    opened = open_driver(ProvisionerContext(tmp_path / "state", tmp_path / "cache", CLOCK, rng))
    assert opened.name == "docker"
    assert os.listdir(tmp_path) == []
