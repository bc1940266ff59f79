"""A real S3-compatible server in a process of its own, whose requests can be counted."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.shell import Shell, until

ROOT = Path(__file__).resolve().parents[2]

_REQUEST = re.compile(r'"([A-Z]+) (/\S*) HTTP')
BUCKET = "vmrun-test"


@dataclass
class S3Server:
    """One server with an empty bucket."""

    endpoint: str
    log: Path

    def requests(self) -> Counter[str]:
        """How many requests of each method came in so far."""
        return Counter(match[1] for match in _REQUEST.finditer(self.log.read_text()))

    def objects(self) -> dict[str, bytes]:
        """All that is in the bucket."""
        client = _client(self.endpoint)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in found}

    def configure(self, shell: Shell, more: str = "") -> None:
        """Make it the store of a shell."""
        shell.write(
            "vmrun.toml",
            f"""
            [store]
            url = "s3://{BUCKET}/deployment"
            endpoint = "{self.endpoint}"
            region = "us-east-1"
            access_key_id = "testing"
            secret_access_key = "canary-secret-key"
            {more}
            """,
        )


@contextlib.contextmanager
def s3_server(host: str, log: Path) -> Iterator[S3Server]:
    """Start the server on an address of this machine; it ends with the block."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.support.s3_app", host, str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    endpoint = f"http://{host}:{port}"
    try:
        until(lambda: _answers(host, port), 60, "the server answers")
        _client(endpoint).create_bucket(Bucket=BUCKET)
        yield S3Server(endpoint, log)
    finally:
        server.kill()
        server.wait()


def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
