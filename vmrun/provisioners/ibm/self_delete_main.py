#!/usr/bin/python3
"""Deletes this machine at IBM Cloud, its floating IP first, by the rights of its trusted profile."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

ENDPOINT = ""
PROFILE = ""
METADATA = os.environ.get("VMRUN_METADATA", "http://169.254.169.254")
CONSOLE = os.environ.get("VMRUN_CONSOLE", "/dev/console")
PAUSE = float(os.environ.get("VMRUN_PAUSE", "1"))
DATE = "?version=2025-08-26"
# Straight to the cloud, whatever proxies the machine has.
SEND = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def call(method: str, url: str, token: str = "", body: object = None) -> Any:
    """The decoded answer, {} for none."""
    headers = {"Metadata-Flavor": "ibm", "Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = "Bearer " + token
    data = None if body is None else json.dumps(body).encode()
    wanted = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - addresses are ours
    with SEND(wanted, timeout=8) as answer:
        return json.loads(answer.read() or b"{}")


def drop(url: str, token: str) -> None:
    """Delete; gone already is as good."""
    try:
        call("DELETE", url, token)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise


def main(api: str) -> None:
    """One attempt; {} in the path is the region."""
    own = call("PUT", METADATA + "/identity/v1/token" + DATE, body={"expires_in": 3600})["access_token"]
    me = call("GET", METADATA + "/metadata/v1/instance" + DATE, own)
    profile = {"trusted_profile": {"id": PROFILE}}
    token = call("POST", METADATA + "/identity/v1/iam_tokens" + DATE, own, profile)["access_token"]
    api = api.format(me["zone"]["name"].rpartition("-")[0]) + "/v1"
    version, start, more = "?version=2026-06-30&generation=2", "", "more"
    while more:
        page = call("GET", api + "/floating_ips" + version + "&limit=100" + start, token)
        for each in page["floating_ips"]:
            if each["name"] == me["name"]:
                drop(api + "/floating_ips/" + each["id"] + version, token)
        _, more, start = page.get("next", {}).get("href", "").partition("start=")
        start = "&start=" + start.partition("&")[0]
    drop(api + "/instances/" + me["id"] + version, token)


def say(text: str) -> None:
    """To the console, which outlives the machine's disk."""
    try:
        with open(CONSOLE, "a") as console:
            console.write("vmrun-self-delete: " + text + "\n")
    except OSError:
        pass


APIS = [ENDPOINT] if ENDPOINT else ["https://{}.private.iaas.cloud.ibm.com", "https://{}.iaas.cloud.ibm.com"]
for attempt in range(5):
    for each in APIS:
        try:
            main(each)
            say("deleted")
            sys.exit(0)
        except urllib.error.HTTPError as error:
            say(f"{error.code} {error.url.partition('?')[0]}: {error.read(300).decode(errors='replace')}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{each}: {error}")
    time.sleep(PAUSE * 2**attempt)  # noqa: TID251 - runs alone on the machine
sys.exit(1)
