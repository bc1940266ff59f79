"""What forbids the job's user the way to the cloud's metadata service."""

from __future__ import annotations

import os
import pwd
import subprocess

import pytest

from vmrun.agent import metadata
from vmrun.agent.metadata import close_metadata, rule

USER = pwd.getpwuid(os.getuid()).pw_name


class Tool:
    """Stands in for `ip`: answers what it was told to, and remembers what it was asked."""

    def __init__(self, code: int = 0, stderr: str = "", error: Exception | None = None) -> None:
        self.answer, self.error = (code, stderr), error
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        if self.error is not None:
            raise self.error
        return subprocess.CompletedProcess(command, self.answer[0], "", self.answer[1])


def test_the_rule_is_about_one_user_and_one_port() -> None:
    text = "ip -4 rule add pref 4220 uidrange 999-999 to 169.254.169.254/32 ipproto 6 dport 80 prohibit"
    assert rule(999, "169.254.169.254", 80) == text.split()
    assert rule(1, "fd00:ec2::254", 443)[1] == "-6"
    assert "fd00:ec2::254/128" in rule(1, "fd00:ec2::254", 443)


@pytest.mark.parametrize(
    ("tool", "closed"),
    [
        (Tool(), True),
        (Tool(2, "RTNETLINK answers: File exists"), True),
        (Tool(2, "RTNETLINK answers: Address family not supported by protocol"), True),
        (Tool(2, "RTNETLINK answers: Operation not permitted"), False),
        (Tool(error=FileNotFoundError("ip")), False),
        (Tool(error=subprocess.TimeoutExpired("ip", 10)), False),
    ],
)
def test_every_way_is_closed_or_said_to_be_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tool: Tool, closed: bool
) -> None:
    monkeypatch.setattr(metadata.subprocess, "run", tool)
    assert close_metadata(USER) is closed
    assert {tuple(command) for command in tool.asked} == {
        tuple(rule(os.getuid(), address, port)) for address in metadata.ADDRESSES for port in metadata.PORTS
    }
    assert ("event=metadata-open" in caplog.text) is not closed
