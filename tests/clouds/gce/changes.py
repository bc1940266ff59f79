"""Methods that make, change and remove; each answers with an operation."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.clouds.trouble import Trouble

from . import links, world
from .building import Built, build, check_labels, fingerprint
from .faults import Failure, Refusal, exists, in_use, invalid, not_found, say
from .project import Call, Project, add_network, add_subnetwork
from .reads import Handler
from .store import Key, Resource

#: What may go wrong with creating an instance besides what may with every call.
_TROUBLES = (Trouble.stockout, Trouble.quota, Trouble.not_offered, Trouble.config)


def _operation(project: Project, key: Key) -> Resource:
    found = project.store.find(key)
    assert found is not None, key
    return found


def _start(project: Project, call: Call, target: Key | None = None) -> Key:
    return project.operations.start(call.method.verb, target or call.key, request_id=call.request_id, asked=call.asked)


def _there(project: Project, key: Key) -> tuple[Key, Resource]:
    """The resource, known by its name. Raises Refusal when there is none, or none is shown yet."""
    found = project.store.find(key)
    if found is None:
        raise not_found(project.store.path(key))
    key = Key(key.collection, key.scope, found["name"])
    if project.life.hidden(key):
        raise not_found(project.store.path(key))
    return key, found


def _do(project: Project, call: Call, change: Callable[[], None]) -> Resource:
    """Change at once, and be done with it a little later, as the real service is with small things."""
    operation = _start(project, call)
    change()
    project.life.later(lambda: project.operations.finish(operation))
    return _operation(project, operation)


# --- instances ---


def insert_instance(project: Project, call: Call) -> Resource:
    if call.parameters.get("sourceInstanceTemplate") or call.parameters.get("sourceMachineImage"):
        raise invalid("sourceInstanceTemplate", "", "This double knows no templates.")
    key = call.key
    if project.store.find(key):
        raise exists(project.store.path(key))
    zone = call.parameters["zone"]
    built = build(project.store, zone, call.body)
    failure = _refused(project, call, built)
    rule = None if failure else call.rule(project.script, Trouble.accepted_then_failed)
    late = None if failure or rule else call.rule(project.script, Trouble.late)
    operation = _start(project, call)
    if rule:
        failed = say(rule, call.about)
        assert isinstance(failed, Failure)
        project.life.create_in_vain(key, built, operation, failed, rule.seconds or project.pace)
    elif failure:
        project.life.later(lambda: project.operations.finish(operation, failure))
    else:
        hidden_until = project.store.now() + late.seconds if late else 0.0
        project.life.create(key, built, operation, hidden_until)
    return _operation(project, operation)


def _refused(project: Project, call: Call, built: Built) -> Failure | None:
    """How the operation is to fail; raises Refusal when there is to be none."""
    if rule := call.rule(project.script, *_TROUBLES, Trouble.throttle, Trouble.unknown):
        said = say(rule, call.about)
        if isinstance(said, Refusal):
            raise said
        return said
    return project.quotas.refusal(built, world.region_of(call.parameters["zone"]))


def delete_instance(project: Project, call: Call) -> Resource:
    key, instance = _there(project, call.key)
    if instance["deletionProtection"]:
        message = f"Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion. {key.name}'"
        raise Refusal(400, "invalidResourceUsage", message)
    operation = _start(project, call, key)
    project.life.delete(key, operation)
    return _operation(project, operation)


def stop_instance(project: Project, call: Call) -> Resource:
    key, instance = _there(project, call.key)
    operation = _start(project, call, key)
    if instance["status"] == "TERMINATED":
        project.operations.finish(operation)
    else:
        project.life.stop(key, operation)
    return _operation(project, operation)


def start_instance(project: Project, call: Call) -> Resource:
    key, _ = _there(project, call.key)
    operation = _start(project, call, key)
    project.life.start(key, operation)
    return _operation(project, operation)


def set_labels(project: Project, call: Call) -> Resource:
    key, resource = _there(project, call.key)
    labels = check_labels("labels", call.body.get("labels", {}))
    _same_fingerprint(call.body.get("labelFingerprint"), resource.get("labelFingerprint"), "Labels")
    return _do(
        project, call, lambda: _put(project, key, labels=labels, labelFingerprint=fingerprint((labels, resource)))
    )


def set_metadata(project: Project, call: Call) -> Resource:
    key, resource = _there(project, call.key)
    before = resource["metadata"]["fingerprint"]
    _same_fingerprint(call.body.get("fingerprint"), before, "Metadata")
    metadata = {"kind": "compute#metadata", **call.body, "fingerprint": fingerprint((before, call.body))}
    return _do(project, call, lambda: _put(project, key, metadata=metadata))


def _same_fingerprint(given: str | None, present: str | None, what: str) -> None:
    """Changing what somebody else has changed since is refused."""
    if given != present:
        message = f"{what} fingerprint either invalid or resource {what.lower()} have changed"
        raise Refusal(412, "conditionNotMet", message)


def _put(project: Project, key: Key, **changes: Any) -> None:
    if project.store.find(key):
        project.store.update(key, **changes)


# --- networks ---


def insert_network(project: Project, call: Call) -> Resource:
    key = _free(project, call)
    if "IPv4Range" in call.body:
        raise invalid("resource.IPv4Range", call.body["IPv4Range"], "Legacy networks cannot be made any more.")
    more = {name: value for name, value in call.body.items() if name not in ("autoCreateSubnetworks", "name")}
    automatic = call.body.get("autoCreateSubnetworks", True)
    return _do(project, call, lambda: add_network(project.store, key.name, automatic=automatic, **more))


def delete_network(project: Project, call: Call) -> Resource:
    key, network = _there(project, call.key)
    own = _automatic_subnetworks(project, key, network)
    for user in _users_of_network(project, key, own):
        raise in_use(project.store.path(key), project.store.path(user))

    def change() -> None:
        for subnet in own:
            project.store.remove(subnet)
        project.store.remove(key)

    return _do(project, call, change)


def _automatic_subnetworks(project: Project, key: Key, network: Resource) -> list[Key]:
    link = project.store.link(key)
    subnets = [subnet for subnet, one in project.store.of("subnetworks") if one["network"] == link]
    return subnets if network["autoCreateSubnetworks"] else []


def _users_of_network(project: Project, key: Key, own: list[Key]) -> Iterator[Key]:
    link = project.store.link(key)
    for collection in ("firewalls", "subnetworks"):
        for user, one in project.store.of(collection):
            if one["network"] == link and user not in own:
                yield user
    for user, one in project.store.of("instances"):
        if any(interface.get("network") == link for interface in one["networkInterfaces"]):
            yield user


def insert_subnetwork(project: Project, call: Call) -> Resource:
    key = _free(project, call)
    network = _network(project, call)
    cidr = call.body.get("ipCidrRange", "")
    _check_cidr("resource.ipCidrRange", cidr)
    for other, one in project.store.of("subnetworks"):
        if one["network"] == project.store.link(network) and _overlap(cidr, one["ipCidrRange"]):
            why = f"IP CIDR range '{cidr}' conflicts with the one of {other.path}."
            raise invalid("resource.ipCidrRange", cidr, why)
    more = {name: value for name, value in call.body.items() if name not in ("network", "ipCidrRange", "name")}

    def change() -> None:
        add_subnetwork(project.store, key, project.store.link(network), cidr, **more)
        there = project.store.find(network)
        if there is not None:
            links_ = [*there.get("subnetworks", ()), project.store.link(key)]
            project.store.update(network, subnetworks=links_)

    return _do(project, call, change)


def delete_subnetwork(project: Project, call: Call) -> Resource:
    key, subnet = _there(project, call.key)
    link = project.store.link(key)
    for user, one in project.store.of("instances"):
        if any(interface.get("subnetwork") == link for interface in one["networkInterfaces"]):
            raise in_use(project.store.path(key), project.store.path(user))

    def change() -> None:
        project.store.remove(key)
        network = links.read("network", subnet["network"], "networks").key
        if there := project.store.find(network):
            rest = [one for one in there.get("subnetworks", ()) if one != link]
            project.store.update(network, subnetworks=rest or None)

    return _do(project, call, change)


def insert_firewall(project: Project, call: Call) -> Resource:
    key = _free(project, call)
    rule = _rule(project, call, call.body)
    return _do(project, call, lambda: _add(project, key, rule, "firewall"))


def patch_firewall(project: Project, call: Call) -> Resource:
    key, before = _there(project, call.key)
    if call.body.get("name", key.name) != key.name:
        raise invalid("resource.name", call.body["name"], "A rule cannot be renamed.")
    rule = _rule(project, call, {**before, **call.body})
    return _do(project, call, lambda: _put(project, key, **rule))


def _rule(project: Project, call: Call, body: Mapping[str, Any]) -> dict[str, Any]:
    if bool(body.get("allowed")) == bool(body.get("denied")):
        raise invalid("resource.allowed", "", "Exactly one of 'allowed' and 'denied' must be specified.")
    for number, cidr in enumerate(body.get("sourceRanges", ())):
        _check_cidr(f"resource.sourceRanges[{number}]", cidr)
    incoming = body.get("direction", "INGRESS") == "INGRESS"
    sources = (
        {}
        if any(body.get(f"source{what}") for what in ("Ranges", "Tags", "ServiceAccounts"))
        else {"sourceRanges": ["0.0.0.0/0"]}
    )
    return {
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "logConfig": {"enable": False},
        **(sources if incoming else {}),
        **body,
        "network": project.store.link(_network(project, call, body)),
    }


def _network(project: Project, call: Call, body: Mapping[str, Any] | None = None) -> Key:
    text = (body or call.body).get("network", "global/networks/default")
    link = links.read("resource.network", text, "networks")
    if link.project not in ("", project.store.project) or project.store.find(link.key) is None:
        raise not_found(project.store.path(link.key))
    return link.key


# --- anything ---


def insert_address(project: Project, call: Call) -> Resource:
    key = _free(project, call)
    count = sum(1 for _ in project.store.of("addresses"))
    fields = {
        "addressType": "EXTERNAL",
        "networkTier": "PREMIUM",
        **call.body,
        "address": f"203.0.113.{count + 1}",
        "status": "RESERVED",
        "region": project.store.link(key).partition("/addresses/")[0],
        "labels": check_labels("resource.labels", call.body.get("labels", {})),
        "labelFingerprint": fingerprint(call.body.get("labels", {})),
    }
    return _do(project, call, lambda: _add(project, key, fields, "address"))


def delete(project: Project, call: Call) -> Resource:
    """A thing that has no life of its own, and that nothing uses."""
    key, resource = _there(project, call.key)
    for user in resource.get("users", ()):
        raise in_use(project.store.path(key), user)
    return _do(project, call, lambda: project.store.remove(key))


def _add(project: Project, key: Key, resource: Resource, kind: str) -> None:
    project.store.add(key, resource, kind)


def _free(project: Project, call: Call) -> Key:
    if project.store.find(call.key):
        raise exists(project.store.path(call.key))
    return call.key


def _check_cidr(field: str, text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise invalid(field, text, f"It must be a CIDR range without host bits: {error}") from error


def _overlap(a: str, b: str) -> bool:
    one, other = ipaddress.ip_network(a), ipaddress.ip_network(b)
    return one.version == other.version and one.overlaps(other)  # type: ignore[arg-type]


HANDLERS: Mapping[str, Handler] = {
    "compute.instances.insert": insert_instance,
    "compute.instances.delete": delete_instance,
    "compute.instances.stop": stop_instance,
    "compute.instances.start": start_instance,
    "compute.instances.setLabels": set_labels,
    "compute.instances.setMetadata": set_metadata,
    "compute.disks.setLabels": set_labels,
    "compute.disks.delete": delete,
    "compute.networks.insert": insert_network,
    "compute.networks.delete": delete_network,
    "compute.subnetworks.insert": insert_subnetwork,
    "compute.subnetworks.delete": delete_subnetwork,
    "compute.firewalls.insert": insert_firewall,
    "compute.firewalls.patch": patch_firewall,
    "compute.firewalls.delete": delete,
    "compute.addresses.insert": insert_address,
    "compute.addresses.delete": delete,
}
