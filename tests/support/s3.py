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

from tests.support.shell import Shell

ROOT = Path(__file__).resolve().parents[2]

_REQUEST = re.compile(r'"([A-Z]+) (/\S*) HTTP')
BUCKET = "vmrun-test"


@dataclass
class S3Server:
    """One server with an empty bucket."""

    endpoint: str
    log: Path

    def requests(self, but: str = " ") -> Counter[str]:
        """How many requests of each method came in so far, without those whose path has `but` in it."""
        return Counter(match[1] for match in _REQUEST.finditer(self.log.read_text()) if but not in match[2])

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
    with socket.create_server((host, 0), backlog=128) as listening, log.open("wb") as out:
        endpoint = f"http://{host}:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "tests.support.s3_app", str(listening.fileno())]
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, pass_fds=[listening.fileno()])
    try:
        # Who comes before it is up waits.
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
