"""The metadata server as a machine asks it: which machine asks shows in the address that it asks from."""

from __future__ import annotations

from tests.clouds.server import Reply, Request, json_reply

from .identity import Tokens
from .project import Project
from .store import Resource

PREFIX = "/computeMetadata/v1/"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: The project's number, which the real paths have in the place of its id.
_NUMBER = "123456789012"


def answer(project: Project, tokens: Tokens, request: Request) -> Reply | None:
    """The reply to a machine; None for what is no question to the metadata server. Its owner holds the lock."""
    if not request.path.startswith(PREFIX):
        return None
    what = request.path.removeprefix(PREFIX)
    project.script.record(f"metadata {what}", peer=request.client).outcome = "asked"
    if request.headers.get("metadata-flavor") != "Google":
        return Reply(403)
    if what == "project/project-id":
        return _text(project.store.project)
    guest = _guest(project, request.client)
    if guest is None:
        return Reply(404)
    name, zone = str(guest["name"]), str(guest["zone"]).rpartition("/")[2]
    if what == "instance/name":
        return _text(name)
    if what == "instance/zone":
        return _text(f"projects/{_NUMBER}/zones/{zone}")
    if what == "instance/service-accounts/default/token" and guest.get("serviceAccounts"):
        return json_reply(200, tokens.give(frozenset({_SCOPE})))
    return Reply(404)


def _guest(project: Project, address: str) -> Resource | None:
    """The instance with this address, which none has that does not run."""
    for _, one in project.store.of("instances"):
        if one["status"] == "RUNNING" and any(nic.get("networkIP") == address for nic in one["networkInterfaces"]):
            return one
    return None


def _text(text: str) -> Reply:
    return Reply(200, text.encode(), {"Metadata-Flavor": "Google", "Content-Type": "application/text"})
