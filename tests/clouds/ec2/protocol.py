"""AWS on the wire: which operation a request is, and how each kind of service says that it went wrong."""

from __future__ import annotations

import json
import re
import urllib.parse
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.clouds.server import Reply, Request

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_SCOPE = re.compile(r"Credential=([^/, ]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
Parameters = dict[str, str]


class Refused(Exception):
    """The call is answered with an error of the cloud."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


@dataclass
class Call:
    """A request, understood."""

    request: Request
    #: `ec2`, `sts`, `ssm`, …: the name that the request is signed for; "" when it is not signed.
    service: str
    region: str
    access_key: str
    #: `RunInstances`; "" for services that say it with a path.
    operation: str
    #: Of the query protocols, flat, as they came: `Filter.1.Name`.
    parameters: Parameters = field(default_factory=dict)

    def members(self, name: str) -> Iterator[Mapping[str, str]]:
        """The structures of a list: for `Filter`, the parameters below `Filter.1.`, `Filter.2.`, … without that."""
        number = 1
        while below := self.below(f"{name}.{number}."):
            yield below
            number += 1

    def below(self, prefix: str) -> Parameters:
        return {key.removeprefix(prefix): value for key, value in self.parameters.items() if key.startswith(prefix)}

    def values(self, name: str) -> list[str]:
        """The plain values of a list: `InstanceId.1`, `InstanceId.2`, …"""
        return values(self.parameters, name)


def values(parameters: Mapping[str, str], name: str) -> list[str]:
    """The plain values of a list in flat parameters."""
    found, number = [], 1
    while (key := f"{name}.{number}") in parameters:
        found.append(parameters[key])
        number += 1
    return found


def understand(request: Request) -> Call:
    """Which call this is."""
    signed = _SCOPE.search(request.headers.get("authorization", ""))
    key, region, service = signed.groups() if signed else ("", "", "")
    target = request.headers.get("x-amz-target", "")
    if target:
        return Call(request, service, region, key, target.rpartition(".")[2])
    kind = request.headers.get("content-type", "")
    if service == "s3" or not (kind.startswith("application/x-www-form-urlencoded") or "Action" in request.query):
        return Call(request, service, region, key, "")
    given = urllib.parse.parse_qs(request.body.decode(), keep_blank_values=True) or request.query
    parameters = {name: found[0] for name, found in given.items()}
    return Call(request, service, region, key, parameters.get("Action", ""), parameters)


def error_reply(call: Call, refused: Refused) -> Reply:
    """An error as the service of the call says it."""
    if call.request.headers.get("x-amz-target"):
        body = json.dumps({"__type": refused.code, "message": refused.message, "Message": refused.message}).encode()
        return Reply(refused.status, body, {"Content-Type": "application/x-amz-json-1.1"})
    if call.service == "ec2":
        root = ET.Element("Response")
        error = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
        ET.SubElement(root, "RequestID").text = str(uuid.uuid4())
    else:
        root = ET.Element("ErrorResponse")
        error = ET.SubElement(root, "Error")
        ET.SubElement(error, "Type").text = "Sender" if refused.status < 500 else "Receiver"
        ET.SubElement(root, "RequestId").text = str(uuid.uuid4())
    ET.SubElement(error, "Code").text = refused.code
    ET.SubElement(error, "Message").text = refused.message
    return Reply(refused.status, ET.tostring(root), {"Content-Type": "text/xml;charset=UTF-8"})


def code_of(reply: Reply) -> str:
    """The cloud's code of the error in a reply; "" if it is none."""
    if reply.status < 400:
        return ""
    text = reply.body.decode("utf-8", "replace")
    found = re.search(r"<Code>([^<]+)</Code>", text) or re.search(r'"__type":\s*"(?:[^"]*#)?([^"]+)"', text)
    return found[1] if found else str(reply.status)


def xml_reply(operation: str, *children: ET.Element) -> Reply:
    """The answer of EC2 to an operation."""
    root = ET.Element(f"{operation}Response", xmlns=NAMESPACE)
    ET.SubElement(root, "requestId").text = str(uuid.uuid4())
    root.extend(children)
    body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)
    return Reply(200, body, {"Content-Type": "text/xml;charset=UTF-8"})


def json_11(value: object) -> Reply:
    """The answer of a service that speaks JSON."""
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/x-amz-json-1.1"})


def element(tag: str, *children: ET.Element, text: str | None = None) -> ET.Element:
    """An element with its content."""
    made = ET.Element(tag)
    made.text = text
    made.extend(children)
    return made


def parse(body: bytes) -> ET.Element:
    """XML without its namespaces."""
    root = ET.fromstring(body)
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
    return root


def put(parent: ET.Element, path: str, text: str | None) -> None:
    """Set the text at a path below an element, making what is missing; None removes it."""
    *above, last = path.split("/")
    for tag in above:
        found = parent.find(tag)
        parent = ET.SubElement(parent, tag) if found is None else found
    found = parent.find(last)
    if text is None:
        if found is not None:
            parent.remove(found)
        return
    (ET.SubElement(parent, last) if found is None else found).text = text
