"""`vmrun doctor`, and `vmrun init` of a cloud."""

from __future__ import annotations

import io

import pytest

from vmrun.account import Checked
from vmrun.cli import run
from vmrun.core.clouds import CloudError, Fault, Market, Need
from vmrun.core.errors import ConfigError
from vmrun.core.estates import Finding, Grade
from vmrun.rendering.findings import finding_lines
from vmrun.rendering.text import Style

QUOTA = Checked("ec2", Finding("quota L-1216C47A", Grade.bad, "32 of 128 vCPUs", "ask for more"))
RIGHT = Checked("ec2", Finding("permission ec2:RunInstances", Grade.bad, "not allowed", "vmrun doctor --policy"))


def test_findings_come_by_area_with_their_next_steps(vmrun, client) -> None:
    done = vmrun("doctor")
    assert done.code == 0
    assert done.out.splitlines() == [
        "here",
        "  ok      store: file:///s keeps its promises",
        "  warning uv: uv is not installed",
        "      pip install uv",
    ]
    assert done.err == "2 checks, 1 warning\n"
    assert client.calls == [("check", None, Need())]


def test_what_a_job_would_ask_for_is_handed_on(vmrun, client) -> None:
    asked = ["--cpus", "128", "--memory", "1TB", "--disk", "200GB", "--arch", "arm64", "--region", "west", "--spot"]
    assert vmrun("doctor", "--on", "ec2", *asked, "--instance-type", "x8g.32xlarge").code == 0
    need = Need(128, 10**12, 0, 200 * 10**9, "arm64", "x8g.32xlarge", "west", market=Market.spot)
    assert client.calls == [("check", "ec2", need)]


@pytest.mark.parametrize(
    ("found", "code", "kind"), [([QUOTA], 2, "config"), ([QUOTA, RIGHT], 9, "denied"), ([RIGHT], 9, "denied")]
)
def test_what_is_bad_decides_the_exit_code(vmrun, client, found, code, kind) -> None:
    client.account.checked = found
    done = vmrun("doctor", "--on", "ec2")
    assert done.code == code
    assert done.err == f"{len(found)} check{'s' if len(found) > 1 else ''}, {len(found)} bad\n"
    document = vmrun("doctor", "--on", "ec2", "--json").document
    assert document["error"]["code"] == kind
    assert document["findings"][0] == {
        "area": "ec2",
        "what": found[0].finding.what,
        "grade": "bad",
        "message": found[0].finding.message,
        "hint": found[0].finding.hint,
    }


def test_what_is_unclear_is_no_failure(vmrun, client) -> None:
    client.account.checked = [Checked("gce", Finding("quota", Grade.unclear, "the API did not answer"))]
    done = vmrun("doctor", "--json")
    assert (done.code, [each["grade"] for each in done.document["findings"]]) == (0, ["unclear"])
    client.account.checked = client.account.checked[:0]
    assert vmrun("doctor").err == "0 checks, all good\n"


def test_findings_are_shown_as_they_come(vmrun, client, monkeypatch, capsys) -> None:
    seen: list[str] = []

    def check(on, need):
        yield QUOTA
        seen.append(capsys.readouterr().out)
        yield RIGHT

    monkeypatch.setattr(client.account, "check", check)
    vmrun("doctor")
    assert "quota" in seen[0]
    assert "permission" not in seen[0]


def test_a_configuration_that_cannot_be_read_is_a_finding(clock, here, capsys) -> None:
    def connect():
        raise ConfigError("vmrun.toml: store.urll is not known", hint="did you mean store.url?")

    assert run(["doctor"], connect=connect, clock=clock) == 2
    out, err = capsys.readouterr()
    assert "bad     configuration: vmrun.toml: store.urll is not known" in out
    assert "error" not in err


@pytest.mark.parametrize("arguments", [["--on", "nowhere"], ["--memory", "much"], ["--spot", "--on-demand"]])
def test_what_cannot_be_asked(vmrun, client, arguments) -> None:
    assert vmrun("doctor", *arguments).code == 2
    assert client.calls == []


@pytest.mark.parametrize("grade", list(Grade))
def test_on_a_terminal_there_are_signs_and_elsewhere_words(grade) -> None:
    found = Finding("x\x1b[2J", grade, "m\nn", "h")
    (line, hint) = finding_lines(found, Style(unicode=True, width=80))
    assert line[2] in "✓!✗?"
    assert (line[4:], hint) == ("x\\x1b[2J: m\\nn", "      h")
    assert finding_lines(found, Style(unicode=True))[0].split()[0] in ("ok", "warning", "bad", "unclear")
    assert finding_lines(found, Style(unicode=False, width=80))[0].isascii()


# --- policies ---


def test_the_policy_of_one_cloud_is_printed_as_it_is(vmrun, client) -> None:
    done = vmrun("doctor", "--on", "ec2", "--policy")
    assert (done.code, done.out) == (0, '{"Version": "2012-10-17"}\n')
    assert client.calls == [("policies", "ec2")]


def test_several_policies_have_headings(vmrun, client) -> None:
    client.account.rights = {"ec2": "one", "gce": "two\n"}
    assert vmrun("doctor", "--policy").out == "# ec2\none\n# gce\ntwo\n"
    assert vmrun("doctor", "--policy", "--json").document["policies"] == {"ec2": "one", "gce": "two\n"}


# --- init of a cloud ---


def test_a_cloud_is_prepared_step_by_step(vmrun, client) -> None:
    done = vmrun("init", "ec2", "--yes")
    assert done.code == 0
    assert done.out.splitlines() == [
        "made the network vmrun-x",
        "made the group vmrun-x",
        "ec2 is ready; `vmrun doctor --on ec2` checks it",
    ]
    assert "made the network" in done.err
    assert client.calls == [("establish", "ec2")]


def test_a_cloud_is_dismantled(vmrun, client) -> None:
    done = vmrun("init", "gce", "--dismantle", "--yes", "--json")
    assert done.document == {
        "schema": 1,
        "ok": True,
        "on": "gce",
        "dismantled": True,
        "steps": ["made the network vmrun-x", "made the group vmrun-x"],
    }
    assert client.calls == [("dismantle", "gce")]
    assert vmrun("init", "gce", "--dismantle", "-y").out.endswith("gce holds nothing of this deployment any more\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "calls"), [("y\n", [("establish", "ibm")]), ("\n", []), ("", [])])
def test_a_person_is_asked_first(vmrun, client, monkeypatch, answer, calls) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    done = vmrun("init", "ibm")
    assert (done.code, client.calls) == (0, calls)
    assert "make in your ibm account" in done.err
    assert calls or done.err.endswith("nothing was changed\n")


@pytest.mark.parametrize("arguments", [["ec2"], ["ec2", "--json"], ["ec2", "--dismantle"]])
def test_without_a_person_nothing_is_changed(vmrun, client, arguments) -> None:
    done = vmrun("init", *arguments)
    assert (done.code, client.calls) == (2, [])


@pytest.mark.parametrize(
    "arguments", [["azure"], ["docker", "--dismantle"], ["--dismantle"], ["ec2", "--user"], ["local", "-y"]]
)
def test_what_cannot_be_prepared(vmrun, client, arguments) -> None:
    done = vmrun("init", *arguments)
    assert (done.code, client.calls) == (2, [])
    assert "hint:" in done.err


@pytest.mark.parametrize(("fault", "code"), [(Fault.permission, 9), (Fault.config, 2), (Fault.unavailable, 4)])
def test_a_cloud_that_refuses_half_way_says_so(vmrun, client, fault, code) -> None:
    client.account.breaks = CloudError("no right to make a group", fault=fault, hint="ask for it")
    done = vmrun("init", "ec2", "--yes")
    assert done.code == code
    assert "made the network vmrun-x" in done.err
    assert done.err.endswith("error: no right to make a group\nhint: ask for it\n")
