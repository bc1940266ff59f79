"""What EC2 answers: its own operations on instances, and moto's on all else."""

from __future__ import annotations

import base64
import functools
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable

import botocore.session

from tests.clouds.machines import Machines
from tests.clouds.server import Reply
from tests.clouds.trouble import Script, Trouble

from . import listing
from .backend import Moto
from .beside import Beside
from .launch import Launcher
from .pages import Pages, list_in
from .protocol import Call, Refused, element, parse, xml_reply
from .records import PENDING, RUNNING, SHUTTING_DOWN, STOPPED, STOPPING, Record, Records

_PAGING = (Trouble.small_pages, Trouble.half_a_list)


class Answers:
    """Answers the calls that are signed for `ec2`."""

    def __init__(
        self,
        moto: Moto,
        records: Records,
        machines: Machines,
        script: Script,
        now: Callable[[], float],
    ) -> None:
        self._moto = moto
        self._records = records
        self._machines = machines
        self._script = script
        self._now = now
        self._pages = Pages()
        self.launcher = Launcher(moto, records, machines, script, now)
        self.beside = Beside(self.launcher.quotas, moto)
        self._operations: dict[str, Callable[[Call], Reply]] = {
            "RunInstances": self._run,
            "DescribeInstances": self._describe,
            "TerminateInstances": self._terminate,
            "StopInstances": self._stop,
            "StartInstances": self._start,
            "GetConsoleOutput": self._console,
            "DescribeSpotPriceHistory": self._spot_prices,
            "DeleteSecurityGroup": self._delete_group,
        }

    def answer(self, call: Call) -> Reply:
        """The reply to a call. Raises Refused or Answered."""
        if call.operation not in _operations_of_ec2():
            raise Refused("InvalidAction", f"The action {call.operation} is not valid for this web service.")
        self._moto.region(call.region)
        self._records.settle()
        if call.parameters.get("DryRun") == "true":
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        answer = self._operations.get(call.operation)
        return answer(call) if answer else self._forward(call)

    def _run(self, call: Call) -> Reply:
        reservation, new = self.launcher.run(call)
        with self._moto.lock:
            found = list(listing.reservations(self._moto, self._records, call.region, float("inf")))
            shown = next(one for one in found if one.findtext("reservationId") == reservation)
            if new:
                for instance in shown.findall("instancesSet/item"):
                    record = self._records.find(str(instance.findtext("instanceId")))
                    assert record is not None
                    listing.show(instance, record, PENDING)
            return xml_reply("RunInstances", *shown)

    def _describe(self, call: Call) -> Reply:
        ids = call.values("InstanceId")
        if ids and "MaxResults" in call.parameters:
            message = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise Refused("InvalidParameterCombination", message)
        at = self._now()
        if not ids and (rule := self._script.pick(call.operation, Trouble.list_lag, region=call.region)):
            at -= rule.seconds
        return self._paged(call, "reservationSet", lambda: self._found(call, ids, at), spoil=not ids)

    def _found(self, call: Call, ids: list[str], at: float) -> list[ET.Element]:
        found = list(listing.reservations(self._moto, self._records, call.region, at))
        if ids:
            found = listing.only_these(found, ids)
        return listing.filtered(found, call)

    def _paged(self, call: Call, tag: str, find: Callable[[], list[ET.Element]], *, spoil: bool = True) -> Reply:
        page = self._pages.resume(call)
        if page is None:
            rule = self._script.pick(call.operation, *_PAGING, region=call.region) if spoil else None
            page = self._pages.first(call, tag, find(), rule)
        return page.reply(call)

    def _forward(self, call: Call) -> Reply:
        """moto's answer; a list in pages."""
        if not call.operation.startswith("Describe"):
            return self._moto.send(call.request)
        if page := self._pages.resume(call):
            return page.reply(call)
        given = {key: value for key, value in call.parameters.items() if key != "MaxResults"}
        reply = self._moto.query(call.region, call.operation, given)
        listed = list_in(parse(reply.body)) if reply.status < 400 else None
        if listed is None:
            return reply
        rule = self._script.pick(call.operation, *_PAGING, region=call.region)
        page = self._pages.first(call, listed.tag, list(listed), rule)
        return page.reply(call) if page.token else reply

    def _named(self, call: Call) -> list[Record]:
        """The records of the instances that the call names. Refused when there is none of that id, or not yet."""
        ids = call.values("InstanceId") or [call.parameters.get("InstanceId", "")]
        listing.only_these(list(listing.reservations(self._moto, self._records, call.region, self._now())), ids)
        return [record for one in ids if (record := self._records.find(one))]

    def _terminate(self, call: Call) -> Reply:
        done = []
        for record in self._named(call):
            before = record.state
            if record.moto.disable_api_termination:
                message = f"The instance '{record.id}' may not be terminated. Modify its 'disableApiTermination' "
                raise Refused("OperationNotPermitted", message + "instance attribute and try again.")
            self._records.terminate(record, "user")
            done.append((record, before, record.state if before == record.state else SHUTTING_DOWN))
        return xml_reply(call.operation, listing.changes(done))

    def _stop(self, call: Call) -> Reply:
        done = []
        for record in self._named(call):
            before = record.state
            if record.spot:
                message = f"You can't stop the Spot Instance '{record.id}' because it is associated with a one-time "
                raise Refused("UnsupportedOperation", message + "Spot Instance request.")
            if before not in (RUNNING, STOPPED):
                raise _incorrect_state(record, "stopped")
            self._records.stop(record, "user")
            done.append((record, before, STOPPED if before == STOPPED else STOPPING))
        return xml_reply(call.operation, listing.changes(done))

    def _start(self, call: Call) -> Reply:
        done = []
        for record in self._named(call):
            before = record.state
            if before not in (RUNNING, STOPPED):
                raise _incorrect_state(record, "started")
            self._records.start(record)
            done.append((record, before, RUNNING if before == RUNNING else PENDING))
        return xml_reply(call.operation, listing.changes(done))

    def _console(self, call: Call) -> Reply:
        (record,) = self._named(call)
        # A terminated instance has a console for a while; ours is gone with its machine.
        text = self._machines.console(record.id) if record.machine and not record.is_gone else ""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        output = element("output", text=base64.b64encode(text.encode()).decode())
        return xml_reply(call.operation, element("instanceId", text=record.id), element("timestamp", text=now), output)

    def _spot_prices(self, call: Call) -> Reply:
        return self._paged(call, "spotPriceHistorySet", lambda: self.beside.spot_prices(call))

    def _delete_group(self, call: Call) -> Reply:
        group = call.parameters.get("GroupId", "")
        with self._moto.lock:
            for interface in self._moto.region(call.region).enis.values():
                if group in [one.id for one in interface.group_set]:
                    raise Refused("DependencyViolation", f"resource {group} has a dependent object")
            return self._moto.send(call.request)


def _incorrect_state(record: Record, verb: str) -> Refused:
    message = f"The instance '{record.id}' is not in a state from which it can be {verb}."
    return Refused("IncorrectInstanceState", message)


@functools.cache
def _operations_of_ec2() -> frozenset[str]:
    return frozenset(botocore.session.get_session().get_service_model("ec2").operation_names)
