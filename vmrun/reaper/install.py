"""What starts the reaper by itself: a systemd user unit, a line for cron, a workflow of GitHub Actions. Only texts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NAME = "vmrun-reaper"
#: At the end of our line among those of cron, by which it is found again.
MARK = f"# {NAME}"


@dataclass(frozen=True, slots=True)
class Setup:
    """How the reaper is started here. Holds no secret: what is secret stays where it is."""

    #: The words that start vmrun, absolute.
    program: tuple[str, ...]
    #: Where its vmrun.toml is, or any directory that stays.
    directory: str
    #: Between passes, as on the command line.
    every: str = "60s"
    #: Variables that it needs, none of them secret.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The version of vmrun, and the extras of the clouds in use.
    version: str = ""
    extras: tuple[str, ...] = ()


def systemd_unit(setup: Setup) -> str:
    """A user unit that is restarted when it fails, and watched."""
    words = [*setup.program, "reap", "--every", setup.every]
    lines = [
        "[Unit]",
        "Description=Gives back the VMs of vmrun that nobody needs any more",
        "Documentation=man:systemd.service(5)",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={' '.join(_unit_word(word) for word in words)}",
        f"WorkingDirectory={_unit_path(setup.directory)}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(setup.environment.items())),
        "Restart=on-failure",
        "RestartSec=30",
        "WatchdogSec=600",
        "TimeoutStopSec=120",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _unit_word(word: str) -> str:
    """A word of ExecStart=, where a dollar sign would begin a variable."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    """A word in quotes that means itself."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _unit_path(path: str) -> str:
    """A path on its own, which is not quoted."""
    return path.replace("\\", "\\\\").replace("%", "%%")


def cron_line(setup: Setup) -> str:
    """A line that runs every five minutes, long enough to tell a dead VM from a silent one. Any number may overlap."""
    words = [*setup.program, "reap", "--every", "30s", "--for", "4m30s"]
    variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(setup.environment.items())]
    command = " ".join([*variables, shlex.join(words)])
    line = f"cd {shlex.quote(setup.directory)} && {command} >/dev/null"
    return f"*/5 * * * * {line.replace('%', chr(92) + '%')} {MARK}\n"


def with_line(table: str, line: str) -> str:
    """A table of cron with our line in it, once."""
    kept = [each for each in table.splitlines() if not each.rstrip().endswith(MARK)]
    return "".join(f"{each}\n" for each in kept) + line


#: Secrets that a workflow takes from its repository, by cloud or kind of store.
_SECRETS: dict[str, Sequence[str]] = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "ec2": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "ibm": ("IBMCLOUD_API_KEY",),
}


def github_workflow(setup: Setup, store: str) -> str:
    """A workflow that runs every fifteen minutes; what is secret stands in the repository's secrets, by name only."""
    kinds = (store.partition(":")[0], *setup.extras)
    google = bool({"gce", "gs"} & set(kinds))
    secrets = sorted({name for kind in kinds for name in _SECRETS.get(kind, ())})
    extras = f"[{','.join(setup.extras)}]" if setup.extras else ""
    version = f"=={setup.version}" if setup.version else ""
    lines = [
        "# Before the first run, from the computer that submits jobs:",
        "#   gh secret set VMRUN_CLIENT_KEY < CONFIGURATION_DIRECTORY/keys/client.key",
        *(f"#   gh secret set {name}" for name in secrets),
        *(("# For Google, put google-github-actions/auth before the last step.",) if google else ()),
        "# and commit the vmrun.toml of the project, without secrets in it.",
        f"name: {NAME}",
        "on:",
        "  schedule:",
        '    - cron: "*/15 * * * *"',
        "  workflow_dispatch:",
        "permissions:",
        "  contents: read",
        "concurrency:",
        f"  group: {NAME}",
        "jobs:",
        "  reap:",
        "    runs-on: ubuntu-latest",
        "    timeout-minutes: 14",
        "    steps:",
        "      - uses: actions/checkout@v4",
        "      - uses: actions/setup-python@v5",
        "        with:",
        '          python-version: "3.12"',
        f'      - run: pip install "vmrun{extras}{version}"',
        "      - name: Put the deployment's key where vmrun looks for it",
        "        env:",
        "          VMRUN_CLIENT_KEY: ${{ secrets.VMRUN_CLIENT_KEY }}",
        "        run: |",
        "          umask 077",
        '          mkdir -p "$RUNNER_TEMP/vmrun/keys"',
        """          printf '%s\\n' "$VMRUN_CLIENT_KEY" > "$RUNNER_TEMP/vmrun/keys/client.key\"""",
        "      - name: Give back the VMs that nobody needs any more",
        "        env:",
        f"          VMRUN_STORE: {_yaml(store)}",
        *(f"          {name}: ${{{{ secrets.{name} }}}}" for name in secrets),
        '        run: VMRUN_CONFIG_DIR="$RUNNER_TEMP/vmrun" vmrun reap --every 30s --for 5m',
    ]
    return "\n".join(lines) + "\n"


def _yaml(text: str) -> str:
    """A text in single quotes."""
    return "'" + text.replace("'", "''") + "'"
