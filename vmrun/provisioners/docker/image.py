"""The image that machines boot from: built once per content of its build context, with or without a registry."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from vmrun.core.clock import Clock
from vmrun.core.clouds import CloudError, Fault, Scope

from .api import Docker, run_lines

REPOSITORY = "vmrun-machine"
#: What a registry has, and what is made in its place where none can be reached.
PUBLIC_BASE, OWN_BASE = "debian:bookworm-slim", "vmrun-base:bookworm"
_SUITE = "bookworm"
#: Debian's words for architectures of the engine.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: Seconds. A registry that is there names the image at once; after that a slow line may take its time.
_REGISTRY_ANSWERS, _PULL, _BOOTSTRAP, _BUILD = 8.0, 600.0, 900.0, 1200.0
#: Seconds to wait for another process that builds the same image.
_OTHERS = 1800.0


class MachineImage:
    """Makes sure that the image is there. `progress` gets lines for people."""

    def __init__(self, docker: Docker, clock: Clock, cache_dir: Path, progress: Callable[[str], None]) -> None:
        self._docker = docker
        self._clock = clock
        self._cache_dir = cache_dir
        self._progress = progress

    @property
    def tag(self) -> str:
        """The image's name: its content decides."""
        return f"{REPOSITORY}:{context_hash()}"

    def ensure(self) -> str:
        """The name of the image, which is built first if it is not there; CloudError if it cannot be."""
        if not self._is_there(self.tag):
            with self._alone():
                if not self._is_there(self.tag):
                    self._build(self._base())
        return self.tag

    def _is_there(self, name: str) -> bool:
        return bool(self._docker.inspect("image", [name]))

    def _build(self, base: str) -> None:
        self._progress(f"building the machine image on {base}, once (a minute or two)")
        with tempfile.TemporaryFile() as context:
            context.write(context_tar())
            context.seek(0)
            self._docker.stream(
                *("build", "--force-rm", "--build-arg", f"BASE={base}", "--tag", self.tag, "-"),
                stdin=context,
                on_line=self._report_build,
                timeout=_BUILD,
            )
        self._progress(f"the machine image {self.tag} is ready")

    def _base(self) -> str:
        """A Debian image: one that is here, else one from the registry, else one made here."""
        for name in (PUBLIC_BASE, OWN_BASE):
            if self._is_there(name):
                return name
        try:
            self._progress(f"asking the registry for {PUBLIC_BASE}")
            self._docker.stream(
                *("pull", PUBLIC_BASE), on_line=_ignore, timeout=_PULL, first_line_within=_REGISTRY_ANSWERS
            )
        except CloudError as refused:
            self._progress("no registry can be reached; making the base with debootstrap")
            self._bootstrap(refused)
            return OWN_BASE
        return PUBLIC_BASE

    def _bootstrap(self, refused: CloudError) -> None:
        program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None or os.geteuid() != 0:
            lacking = "debootstrap is not installed" if program is None else "only root can make one with debootstrap"
            raise CloudError(
                f"the base image {PUBLIC_BASE} cannot be pulled, and {lacking}",
                fault=Fault.config,
                scope=Scope.cloud,
                hint="let Docker reach its registry, or run once as root after `apt-get install debootstrap`",
            ) from refused
        architecture = str(self._docker.info().get("Architecture", ""))
        with self._scratch() as folder:
            tree = str(folder / "root")
            run_lines(
                [
                    program,
                    "--variant=minbase",
                    f"--arch={_ARCHITECTURES.get(architecture, architecture)}",
                    _SUITE,
                    tree,
                ],
                self._report_bootstrap,
                timeout=_BOOTSTRAP,
            )
            self._import(tree)

    def _import(self, tree: str) -> None:
        self._progress(f"importing {OWN_BASE}")
        pack = ["tar", "-C", tree, "--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packing:
            try:
                self._docker.stream("import", "-", OWN_BASE, stdin=packing.stdout, on_line=_ignore, timeout=_BOOTSTRAP)
                whole = packing.wait(timeout=60) == 0
            finally:
                packing.kill()
        if not whole:
            self._docker.run("image", "rm", OWN_BASE)
            raise CloudError("the base image could not be packed whole", hint="see that the disk is not full")

    def _report_build(self, line: str) -> None:
        # Both builders name their steps: `Step 3/9 : RUN …` and `#5 [2/4] RUN …`.
        if line.startswith("Step ") or (line.startswith("#") and "[" in line[:8]):
            self._progress(f"image: {line[:160]}")

    def _report_bootstrap(self, line: str) -> None:
        if line.startswith(("I: Retrieving ", "I: Unpacking ", "I: Configuring ", "E:", "W:")):
            self._progress(f"base: {line[3:160]}")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="debootstrap-", dir=self._cache_dir))
        try:
            yield folder
        finally:
            # Never into what a broken run may have left mounted below.
            subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False, timeout=120)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One builder at a time among the processes that share the cache directory."""
        self._cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_up = self._clock.monotonic() + _OTHERS
        with open(self._cache_dir / "image.lock", "wb") as lock:
            waiting = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._clock.monotonic() > give_up:
                        raise CloudError(
                            f"another process has been building the machine image for {_OTHERS:.0f} s",
                            fault=Fault.unavailable,
                            hint="end it, then try again",
                        ) from None
                    if not waiting:
                        self._progress("waiting for another process that builds the machine image")
                        waiting = True
                    self._clock.sleep(0.2)
            yield


def context_files() -> Mapping[str, bytes]:
    """The build context: name → content, in the order of names."""
    folder = files(__package__).joinpath("image")
    return {
        item.name: item.read_bytes() for item in sorted(folder.iterdir(), key=lambda item: item.name) if item.is_file()
    }


def context_hash() -> str:
    """What names the image: 16 hexadecimal digits of the SHA-256 of its build context."""
    total = hashlib.sha256()
    for name, content in context_files().items():
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def context_tar() -> bytes:
    """The build context as the engine takes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in context_files().items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _ignore(_: str) -> None:
    pass
