"""Secrets are where they must be, and nowhere else: canaries are planted, jobs run, and everything is searched."""

from __future__ import annotations

import base64
import functools
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.canaries import Canaries
from tests.support.s3 import s3_server
from tests.support.shell import Shell, processes, until
from tests.unit.environment.wheels import make_wheel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PASSWORD = "canary-index-password"
#: What is planted in the environment of whoever runs vmrun, beside what vmrun itself is told.
PERSONAL = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-another-account",
    "AWS_ACCESS_KEY_ID": "AKIAANOTHERACCOUNT",
    "GITHUB_TOKEN": "canary-github-token",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON": "canary-google-credentials",
    "IBMCLOUD_API_KEY": "canary-ibm-key",
}
STORE_SECRET = "canary-secret-key"


# --- a package index that asks for a password ---


@dataclass
class Index:
    """A package index on loopback."""

    url: str
    #: Status of all answers; 0: what is right.
    status: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "canarypackage")
    (wheel,) = folder.iterdir()
    expected = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            running.asked.append(self.path)
            body = b""
            if running.status:
                status = running.status
            elif self.headers.get("Authorization") != expected:
                status = 401
            elif self.path.endswith(".whl"):
                status, body = 200, wheel.read_bytes()
            elif self.path.rstrip("/").endswith("/canarypackage"):
                status, body = 200, f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
            else:
                status = 404
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Type", "text/html" if b"<a" in body else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = Index(f"http://user:{PASSWORD}@127.0.0.1:{server.server_port}/simple")
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05))
        thread.start()
        yield running
        server.shutdown()
        thread.join()


# --- searching ---


@contextmanager
def watched_processes(canaries: Canaries) -> Iterator[Callable[[], int]]:
    """Look at the command lines of all processes that start meanwhile; gives how many were seen so far."""
    before = {entry.name for entry in Path("/proc").iterdir()}
    seen: dict[str, bytes] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            for name in os.listdir("/proc"):
                if name.isdigit() and name not in before:
                    try:
                        line = Path("/proc", name, "cmdline").read_bytes()
                    except OSError:
                        continue
                    if line:
                        seen[f"{name} {line[:60]!r}"] = line

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: len(seen)
    finally:
        ended.set()
        thread.join()
        for name, line in seen.items():
            canaries.check(f"the command line of process {name}", line)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what is searched ---


def shell_with_secrets(home: Path, **told: str) -> Shell:
    return Shell(home, {"UV_CACHE_DIR": str(home / "uv-cache"), **PERSONAL, **told})


def planted() -> Canaries:
    texts = {name: text.encode() for name, text in PERSONAL.items() if text.startswith("canary")}
    return Canaries({**texts, "index password": PASSWORD.encode(), "store secret": STORE_SECRET.encode()})


JOB = """
    import os, pathlib, time
    import canarypackage
    import vmrun

    @vmrun.job(over=range(3))
    def f(x):
        print("the package is", canarypackage.VERSION)
        while not pathlib.Path({flag!r}).exists():
            time.sleep(0.02)
        return dict(os.environ)
"""


def test_secrets_are_nowhere_else_than_they_must_be(isolated: Path, index: Index, tmp_path: Path) -> None:
    home, canaries = isolated, planted()
    shell, flag = shell_with_secrets(home), home / "flag"
    shell.write("job.py", JOB.format(flag=str(flag)))
    with s3_server("127.0.0.1", tmp_path / "s3.log") as server:
        server.configure(shell)
        with (home / "vmrun.toml").open("a") as file:
            file.write(f'[environment]\nindex_url = "{index.url}"\n')
        shell.run("status")
        canaries.add_key("client key", home / ".config" / "vmrun" / "keys" / "client.key")
        with watched_processes(canaries) as seen:
            # When a job runs whose packages come from an index with a password, and whose results go to a bucket
            submitted = shell.run("submit", "--detach", "--json", "--with", "canarypackage", "job.py")
            job = json.loads(submitted.stdout)["job"]["id"]
            machines = home / ".local" / "state" / "vmrun" / "local" / "machines"
            until(lambda: list(machines.glob("*/work/*")), 90, "the job is prepared")
            (machine,) = [path for path in machines.iterdir() if not path.name.startswith(".")]
            canaries.add_key("agent key", machine / "agent.key")
            until(lambda: shell.ask("status", job)["job"]["tasks"]["running"] > 0, 90, "tasks run")
            # Then what the agent needs is in the files that are meant for it
            check_machine(machine, canaries)
            shown = shell.run("status", "--json").stdout + shell.run("status", job).stdout
            flag.touch()
            waited = shell.run("wait", job)
            result, logs = shell.run("result", job, "--json"), shell.run("logs", job)
            assert seen() > 5
        # While it ends, it still has what it was given.
        machine_has_ended(home)
        stored = server.objects()
    # And nowhere else: not in what is said, not in the store, not in the tasks' environment, not in what stays
    assert logs.stdout.count("the package is 1.0") == 3
    for what in (submitted, waited, result, logs):
        canaries.check("what is printed", what.stdout + what.stderr)
    canaries.check("the status", shown)
    assert len(stored) > 10
    for key, body in stored.items():
        canaries.check(f"the object {key}", body)
    canaries.check("the server's log", (tmp_path / "s3.log").read_bytes())
    left = canaries.files(home)
    assert left.pop("vmrun.toml") == ["index password", "store secret"]
    assert left.pop(".config/vmrun/keys/client.key") == ["client key (PEM)"]
    # uv keeps its own cache.
    assert not {path: names for path, names in left.items() if not path.startswith("uv-cache/")}


def machine_has_ended(home: Path) -> None:
    """Wait until nothing runs below `home`, nor changes there."""
    until(lambda: not processes(str(home)), 30, "the machine ends by itself")


def check_machine(machine: Path, canaries: Canaries) -> None:
    """Secrets are in two files of a machine that runs, and nobody else may read them."""
    found = canaries.files(machine)
    assert found == {"secrets.json": ["index password", "store secret"], "agent.key": ["agent key (PEM)"]}
    assert {mode_of(machine / name) for name in found} == {0o600}
    assert mode_of(machine) == 0o700
    assert (machine / "agent.log").stat().st_size > 0
    config = json.loads((machine / "agent.json").read_bytes())
    assert config["secrets_file"] == str(machine / "secrets.json")


def test_an_index_that_fails_does_not_make_its_password_known(isolated: Path, index: Index) -> None:
    home, canaries = isolated, planted()
    shell = shell_with_secrets(home, UV_INDEX=index.url, UV_DEFAULT_INDEX=index.url)
    shell.write("job.py", "import canarypackage\nprint(canarypackage.VERSION)\n")
    # A package that is not there: found out on the client
    with watched_processes(canaries):
        done = shell.run("submit", "--with", "no-such-canary", "job.py", exit_code=2)
    assert "no-such-canary" in done.stderr
    canaries.check("the error", done.stderr)
    # Versions are chosen, and then the index refuses: found out on the machine
    shell.run("submit", "--dry-run", "--with", "canarypackage", "job.py")
    index.status = 403
    try:
        with watched_processes(canaries):
            failed = shell.run("submit", "--with", "canarypackage", "job.py", exit_code=6)
    finally:
        index.status = 0
    assert "installing the job's environment" in failed.stderr
    canaries.check("the error", failed.stdout + failed.stderr)
    canaries.check("the status", shell.run("status", "--json").stdout)
    machine_has_ended(home)
    found = canaries.files(home)
    assert not {path: names for path, names in found.items() if not path.startswith("uv-cache/")}
    # And with an index that works again, so does the job
    assert shell.run("submit", "--with", "canarypackage", "job.py").stdout == "1.0\n"


def test_a_password_in_what_a_job_asks_for_is_refused(shell: Shell) -> None:
    shell.write("job.py", "print(1)\n")
    shell.write("requirements.txt", f"--index-url https://user:{PASSWORD}@127.0.0.1/simple\nsix\n")
    asked = ["--with", f"six @ https://user:{PASSWORD}@127.0.0.1/six.whl"]
    for options in (asked, ["--requirements", "requirements.txt"]):
        done = shell.run("submit", *options, "job.py", exit_code=2)
        assert "holds a password" in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    assert not list((shell.home / ".local").rglob("journal"))


def test_what_env_gives_to_tasks_is_in_the_submission_and_nowhere_else(shell: Shell) -> None:
    """That it is there is documented: variables of a job are part of what was submitted."""
    canaries = Canaries({"variable": b"canary-env"})
    shell.write("job.py", "import os\nprint(len(os.environ['TOKEN']))\n")
    done = shell.run("submit", "--env", "TOKEN=canary-env", "job.py")
    assert done.stdout == "10\n"
    (job,) = shell.ask("status")["jobs"]
    canaries.check("what is printed", done.stdout + done.stderr + json.dumps(job))
    machine_has_ended(shell.home)
    assert set(canaries.files(shell.home)) == {f".local/share/vmrun/store/jobs/{job['id']}/journal/000000"}
    for slip in ("TOKEN canary-env", "TOKEN: canary-env", "TOKEN canary-env=1"):
        refused = shell.run("submit", "--env", slip, "job.py", exit_code=2)
        assert "--env: 'TOKEN' is not NAME=VALUE" in refused.stderr
        canaries.check("an error", refused.stdout + refused.stderr)


def test_what_vmrun_makes_is_for_its_user_only(shell: Shell) -> None:
    shell.write("job.py", "print(1)\n")
    os.umask(previous := os.umask(0o022))
    assert previous in (0o022, 0o002, 0o077)
    shell.run("submit", "job.py")
    home = shell.home
    machine_has_ended(home)
    assert mode_of(home / ".config" / "vmrun" / "keys") == 0o700
    assert mode_of(home / ".config" / "vmrun" / "keys" / "client.key") == 0o600
    assert mode_of(home / ".local" / "state" / "vmrun" / "local") == 0o700
    store = home / ".local" / "share" / "vmrun" / "store"
    assert {mode_of(path) for path in store.rglob("*") if path.is_dir()} | {mode_of(store)} == {0o700}
    assert {mode_of(path) for path in store.rglob("*") if path.is_file()} == {0o600}
