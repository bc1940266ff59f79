"""`vmrun reap --install`: what starts the reaper by itself, printed or put where it takes effect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vmrun import __version__
from vmrun.core.errors import ConfigError, UsageError
from vmrun.core.units import parse_duration
from vmrun.reaper.install import NAME, Setup, cron_line, github_workflow, systemd_unit, with_line
from vmrun.registry import CLOUDS
from vmrun.rendering import documents
from vmrun.rendering.text import visible
from vmrun.settings import Settings, configured, load_settings

from .session import Session

KINDS = ("systemd", "cron", "github")
#: Variables that say where things are, or which of them is meant, and hold no secret.
PLACES = ("VMRUN_CONFIG_DIR", "VMRUN_STATE_DIR", "VMRUN_CACHE_DIR", *configured.PLACES)
WORDS = ("VMRUN_STORE", *configured.WORDS)
#: Seconds that `crontab` may take.
CRONTAB_LIMIT = 30.0


def run(session: Session, kind: str, every: str, *, write: bool, overwrite: bool) -> int:
    """Print, or with `write` put in place, what starts the reaper; the exit code."""
    if kind not in KINDS:
        raise UsageError(f"there is no way to install called {kind[:40]!r}", hint=f"one of: {', '.join(KINDS)}")
    parse_duration(every, "--every")
    settings = load_settings()
    setup = _setup(settings, every)
    text = _text(kind, setup, settings)
    where = ""
    if write:
        where = _put_line(text) if kind == "cron" else _put(_path(kind), text, overwrite=overwrite)
    if session.as_json:
        session.screen.document(documents.document(install=kind, text=text, written=where or None))
    elif write:
        session.screen.lines([f"wrote {visible(where)}", *_next(kind)])
    else:
        session.screen.lines(text.splitlines())
    for name in _left_out():
        session.screen.note(f"{name} is set here and not there: put what it says into vmrun.toml, or set it there too")
    for name in _credentials() if kind != "github" else ():
        where = "a file of credentials, as `aws configure` makes it" if name.startswith("AWS_") else "its environment"
        session.screen.note(f"{name} is set here and not there: without {where}, it cannot see that cloud's machines")
    return 0


def _setup(settings: Settings, every: str) -> Setup:
    # The directory counts only if its own file does; else any that stays.
    source = settings.source[0] if settings.source else None
    directory = Path.cwd() if source is not None and source.parent == Path.cwd() else Path.home()
    environment = {name: os.environ[name] for name in WORDS if os.environ.get(name)}
    environment |= {name: os.path.abspath(os.environ[name]) for name in PLACES if os.environ.get(name)}
    extras = tuple(name for name in CLOUDS if configured.configured(name, settings, os.environ))
    return Setup(_program(), str(directory), every, environment, __version__, extras)


def _program() -> tuple[str, ...]:
    """The words that start this very vmrun from anywhere."""
    script = Path(sys.executable).absolute().with_name("vmrun")
    if script.is_file() and os.access(script, os.X_OK):
        return (str(script),)
    return (str(Path(sys.executable).absolute()), "-P", "-m", "vmrun")


def _text(kind: str, setup: Setup, settings: Settings) -> str:
    if kind == "systemd":
        return systemd_unit(setup)
    if kind == "cron":
        return cron_line(setup)
    store = settings.store.url
    if store.startswith("file://"):
        raise UsageError(
            f"a workflow cannot see the store {store}, a directory of this computer",
            hint="set store.url to object storage, or install it here: --install systemd",
        )
    return github_workflow(setup, store)


def _path(kind: str) -> Path:
    if kind == "github":
        return Path.cwd() / ".github" / "workflows" / f"{NAME}.yml"
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user" / f"{NAME}.service"


def _next(kind: str) -> list[str]:
    """What remains to be done by hand."""
    if kind == "systemd":
        return [
            f"start it: systemctl --user daemon-reload && systemctl --user enable --now {NAME}",
            "keep it while you are logged out: loginctl enable-linger",
            f"see what it does: journalctl --user -u {NAME} -f",
        ]
    return ["commit it, and set the secrets that it names"] if kind == "github" else []


def _put(path: Path, text: str, *, overwrite: bool) -> str:
    """Write the file; one that is there and says something else only with `overwrite`."""
    try:
        there = path.read_text("utf-8") if path.exists() else text
        if there != text and not overwrite:
            raise ConfigError(f"{path} is there, and says something else", hint="say --yes to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="see to the directory's rights"
        ) from error
    return str(path)


def _put_line(line: str) -> str:
    """Put our line into the user's table of cron, in the place of an earlier one."""
    table = _crontab("-l")
    if table.returncode and b"no crontab" not in table.stderr:
        raise ConfigError(f"crontab -l failed: {table.stderr.decode('utf-8', 'replace').strip()[:200]}", hint=_CRON)
    before = table.stdout.decode("utf-8", "surrogateescape") if table.returncode == 0 else ""
    done = _crontab("-", text=with_line(before, line).encode("utf-8", "surrogateescape"))
    if done.returncode:
        raise ConfigError(f"crontab failed: {done.stderr.decode('utf-8', 'replace').strip()[:200]}", hint=_CRON)
    return "the table of cron"


_CRON = "print the line by `vmrun reap --install cron`, and put it where your cron reads it"


def _crontab(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["crontab", *arguments], input=text, capture_output=True, timeout=CRONTAB_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"crontab cannot be run: {error}", hint=_CRON) from error


def _left_out() -> list[str]:
    """Settings in the environment that are not handed on: they may be secrets."""
    known = (*PLACES, *WORDS, *_SWITCHES)
    return sorted(name for name in os.environ if name.startswith("VMRUN_") and name not in known)


def _credentials() -> list[str]:
    """Variables that hold a cloud's credentials: they are secrets, so they are not handed on either."""
    return [name for name in configured.SECRETS if os.environ.get(name)]


_SWITCHES = ("VMRUN_DEBUG", "VMRUN_MUST_RUN", "VMRUN_TEST_RUN", "VMRUN_TEST_SEED")
