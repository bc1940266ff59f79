"""What starts the reaper by itself: texts that their readers understand, whatever stands in paths."""

from __future__ import annotations

import configparser
import re
import shlex

import pytest
import yaml

from vmrun.reaper.install import MARK, Setup, cron_line, github_workflow, systemd_unit, with_line

NASTY = '/home/a b/100% "q" $HOME/it\'s'
SETUP = Setup(
    ("/opt/v env/bin/vmrun",), NASTY, "90s", {"VMRUN_STORE": "s3://b/p%20", "VMRUN_CONFIG_DIR": NASTY}, "1.2", ("ec2",)
)


def test_the_unit_starts_this_vmrun_with_its_settings() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(systemd_unit(Setup(("/opt/v env/bin/vmrun",), "/srv/x", "90s", {"VMRUN_STORE": "s3://b"})))
    service = unit["Service"]
    assert service["ExecStart"] == '"/opt/v env/bin/vmrun" "reap" "--every" "90s"'
    assert service["WorkingDirectory"] == "/srv/x"
    assert service["Environment"] == '"VMRUN_STORE=s3://b"'
    assert (service["Type"], service["Restart"]) == ("notify", "on-failure")
    assert int(service["WatchdogSec"]) > 0
    assert unit["Install"]["WantedBy"] == "default.target"


def test_what_means_something_to_systemd_is_escaped() -> None:
    text = systemd_unit(SETUP)
    assert f"WorkingDirectory={NASTY.replace('%', '%%')}\n" in text
    assert '"VMRUN_CONFIG_DIR=/home/a b/100%% \\"q\\" $HOME/it\'s"' in text
    assert '"VMRUN_STORE=s3://b/p%%20"' in text


def test_the_line_of_cron_is_one_command_that_a_shell_reads_back() -> None:
    line = cron_line(SETUP)
    assert line.count("\n") == 1
    assert line.startswith("*/5 * * * * ")
    assert not re.search(r"(?<!\\)%", line)
    command = line.removeprefix("*/5 * * * * ").replace("\\%", "%")
    words = shlex.split(command, comments=True)
    assert words[:3] == ["cd", NASTY, "&&"]
    assert f"VMRUN_CONFIG_DIR={NASTY}" in words
    assert words[-7:] == ["/opt/v env/bin/vmrun", "reap", "--every", "30s", "--for", "4m30s", ">/dev/null"]


def test_our_line_is_in_the_table_once_and_others_stay() -> None:
    table = "MAILTO=me\n0 1 * * * backup\n"
    once = with_line(table, cron_line(SETUP))
    assert once == table + cron_line(SETUP)
    changed = cron_line(Setup(("/bin/vmrun",), "/"))
    assert with_line(once, changed) == table + changed
    assert with_line("", changed).count(MARK) == 1


@pytest.mark.parametrize(
    ("store", "extras", "secrets"),
    [
        ("s3://bucket/x", (), {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}),
        ("gs://bucket", ("ibm",), {"IBMCLOUD_API_KEY"}),
        ("s3://it's", ("ec2", "ibm"), {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "IBMCLOUD_API_KEY"}),
    ],
)
def test_the_workflow_names_secrets_and_holds_none(store: str, extras: tuple[str, ...], secrets: set[str]) -> None:
    text = github_workflow(Setup(("x",), "/", version="1.2", extras=extras), store)
    assert set(re.findall(r"\$\{\{ secrets\.(\w+) \}\}", text)) == secrets | {"VMRUN_CLIENT_KEY"}
    wanted = f"vmrun[{','.join(extras)}]==1.2" if extras else "vmrun==1.2"
    assert f'pip install "{wanted}"' in text
    quoted = store.replace("'", "''")
    assert f"VMRUN_STORE: '{quoted}'" in text
    assert "\t" not in text
    steps = yaml.safe_load(text)["jobs"]["reap"]["steps"]
    assert steps[-1]["run"].endswith("vmrun reap --every 30s --for 5m")
    assert steps[-1]["env"]["VMRUN_STORE"] == store
    # Whose store is Google's needs its credentials as well
    assert ("google-github-actions/auth" in text) is store.startswith("gs:")
