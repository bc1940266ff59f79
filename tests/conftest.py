"""What holds for every test: an environment of its own, a seed, no skip that must not be, nothing left behind.

Environment variables:

- `VMRUN_MUST_RUN=docker,store`: in these suites a skip is a failure, and so is having no test at all. A suite is a
  marker, a folder under `tests/`, or a test file without its `test_`.
- `VMRUN_TEST_SEED=7`: another seed than the default one.
- `VMRUN_REAL=ec2,gce`: clouds on which tests that are marked `real` may rent machines, with the environment, and so
  the configuration and the credentials, of whoever runs them. Needs `-m real`, and one process.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import hypothesis
import pytest

from tests.support.leftovers import end_leftovers, left_containers, new_containers

#: Variables of the person who runs the tests that must not reach them, in addition to all of vmrun's own.
PERSONAL = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BUILD_NUMBER",  # with this or the next one pytest shows all of what it compares, in hundreds of lines
    "CI",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "IBMCLOUD_API_KEY",
    "NO_COLOR",
    "PYTHONDONTWRITEBYTECODE",  # each process would compile all of its modules anew, which takes most of its time
    "PY_COLORS",
    "SSH_AUTH_SOCK",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)
#: What the tests themselves are told.
KEPT = ("VMRUN_MUST_RUN", "VMRUN_REAL", "VMRUN_TEST_SEED", "VMRUN_TEST_RUN")
DEFAULT_SEED = "20130101"

#: So that the tests' own modules are rewritten once, and not by each worker of each run.
sys.dont_write_bytecode = False

hypothesis.settings.register_profile("vmrun", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("vmrun")


#: Seconds for a test that is marked as slow and says nothing itself: a loaded computer takes several times as long.
SLOW = 1200


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have more time than the others."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW))


# --- an environment of its own ---


def pytest_configure(config: pytest.Config) -> None:
    """Cut the whole run off from the person's home and settings; what tests start inherits that."""
    home = Path.home()
    config.stash[given] = dict(os.environ) if real_clouds() else {}
    #: Wheels are the same for everyone, and fetching them again for each test would take minutes.
    os.environ.setdefault("UV_CACHE_DIR", os.environ.get("XDG_CACHE_HOME", str(home / ".cache")) + "/uv")
    for name in personal_variables():
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in the background of a shell script: whatever tests start would not hear of Ctrl-C either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[homes] = Path(tempfile.mkdtemp(prefix="vmrun-t-"))
    use_home(config.stash[homes] / "0")
    if not hasattr(config, "workerinput"):
        os.environ["VMRUN_TEST_RUN"] = uuid.uuid4().hex
        config.stash[containers] = new_containers(frozenset())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the homes."""
    shutil.rmtree(config.stash[homes], ignore_errors=True)


homes = pytest.StashKey[Path]()
given = pytest.StashKey[dict[str, str]]()
containers = pytest.StashKey[frozenset[str]]()
counter = itertools.count(1)


def personal_variables() -> list[str]:
    """Names of the variables to be taken away."""
    return [name for name in os.environ if name in PERSONAL or (name.startswith("VMRUN_") and name not in KEPT)]


def real_clouds() -> set[str]:
    """Clouds on which tests may cost money."""
    return {name.strip() for name in os.environ.get("VMRUN_REAL", "").split(",")} - {""}


def given_environment(config: pytest.Config) -> dict[str, str]:
    """The environment of whoever runs the tests: for tests of real clouds alone, and empty unless they are to run."""
    return {name: value for name, value in config.stash[given].items() if name not in KEPT}


def use_home(home: Path) -> None:
    """Make `home` the home directory, for this process and for those it starts."""
    home.mkdir(parents=True)
    os.environ["HOME"] = str(home)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> Path:
    """An empty home directory, and nothing of vmrun's in the environment.

    Its path is short, because sockets below it have at most 107 characters.
    """
    home = pytestconfig.stash[homes] / str(next(counter))
    home.mkdir()
    for name in personal_variables():
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    return home


# --- a seed ---


def pytest_report_header() -> str:
    """The seed, where a failure's reader looks first."""
    return f"seed: {base_seed()} (VMRUN_TEST_SEED)"


def base_seed() -> str:
    return os.environ.get("VMRUN_TEST_SEED", DEFAULT_SEED)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This test's own seed: the same in every run, whatever else runs beside it, until VMRUN_TEST_SEED changes."""
    digest = hashlib.sha256(f"{base_seed()} {request.node.nodeid}".encode()).digest()
    value = int.from_bytes(digest[:4], "big")
    print(f"seed: {value}")  # shown when the test fails
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Randomness from this test's seed."""
    return random.Random(seed)


@pytest.fixture(autouse=True)
def global_randomness(request: pytest.FixtureRequest) -> None:
    """Code that draws from the module-wide generator gets the same draws in every run."""
    random.seed(f"{base_seed()} {request.node.nodeid}")


# --- no skip that must not be ---


def must_run() -> set[str]:
    """Names of the suites that may not skip."""
    return {name.strip() for name in os.environ.get("VMRUN_MUST_RUN", "").split(",")} - {""}


def suites(nodeid: str, keywords: object = ()) -> set[str]:
    """The suites that a test belongs to."""
    path = PurePosixPath(nodeid.split("::", 1)[0])
    return {*path.parts[:-1], path.stem.removeprefix("test_"), *keywords}  # type: ignore[misc]


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, names: set[str]) -> None:
    """Turn a skip into a failure when one of `names` must run."""
    broken = names & must_run()
    if report.skipped and broken and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, but {', '.join(sorted(broken))} must run here (VMRUN_MUST_RUN): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Skipped tests."""
    report = yield
    refuse_skip(report, suites(item.nodeid, item.keywords))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Whole files that skip themselves."""
    report = yield
    refuse_skip(report, suites(collector.nodeid))
    return report


seen: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember which suites had a test at all."""
    seen.update(must_run() & suites(report.nodeid, report.keywords))


# --- nothing left behind ---


@pytest.fixture(autouse=True, scope="session")
def no_leftover_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test, no process that a test started is alive; one that is ends here and fails the run."""
    worker = f"{os.environ['VMRUN_TEST_RUN']}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    os.environ["VMRUN_TEST_RUN"] = worker
    yield
    left = end_leftovers(worker, str(tmp_path_factory.getbasetemp()), os.environ["HOME"].rsplit("/", 1)[0])
    assert not left, "processes outlived the tests that started them:\n" + "\n".join(left)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Once, after all workers: every suite that must run had a test, and no machine is left."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    problems = [f"VMRUN_MUST_RUN names {name}, and no test of that suite ran" for name in sorted(must_run() - seen)]
    if "docker" in must_run():
        problems += [f"container {name} is left" for name in left_containers(config.stash[containers])]
    if problems:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        config.stash[complaints] = problems


complaints = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the session check found, right above the closing line."""
    for problem in config.stash.get(complaints, []):
        terminalreporter.write_line(f"FAILED session check: {problem}", red=True)
