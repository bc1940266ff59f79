"""Waiting until an instance that was accepted runs and has an address, or is known to have failed."""

from __future__ import annotations

from vmrun.core.clock import Clock
from vmrun.core.clouds import Address, CloudError, Fault, Instance, InstanceNotFound, InstanceState, Provisioner, Scope
from vmrun.core.errors import Unreachable

#: Seconds between looks: the first, and the longest.
PAUSE, LONGEST = 0.3, 5.0
_PASSING = (Fault.throttle, Fault.unavailable)


def wait_for_address(provisioner: Provisioner, instance: Instance, clock: Clock, timeout: float) -> Address:
    """Where SSH will answer. CloudError if the cloud gave the instance up, Unreachable after `timeout` seconds.

    An instance that is accepted may have its address and fail yet, so it must run. A cloud that does not answer, or
    does not know its own new instance yet, is asked again.
    """
    began, pause, last = clock.monotonic(), PAUSE, instance
    settle = provisioner.capabilities.settle
    while True:
        if (error := fate(last)) is not None:
            raise error
        if last.address is not None and last.state is InstanceState.running:
            return last.address
        if clock.monotonic() - began >= timeout:
            raise Unreachable(
                f"{last.name} did not run with an address within {timeout:.0f} s",
                hint="look at the instance in the cloud's console",
            )
        clock.sleep(pause)
        pause = min(pause * 1.3, LONGEST)
        try:
            last = provisioner.get(instance.id)
        except InstanceNotFound as error:
            if clock.monotonic() - began >= settle:
                raise _taken(f"{instance.name} vanished while it was to start") from error
        except CloudError as error:
            if error.fault not in _PASSING:
                raise


def fate(instance: Instance) -> CloudError | None:
    """The error of an instance that will not run any more; None for one that does, or will."""
    if instance.fault is None and instance.state in (InstanceState.pending, InstanceState.running):
        return None
    said = f": {instance.reason}" if instance.reason else ""
    message = f"{instance.name} went {instance.state.value} while it was made ready{said}"
    # Where a host broke, it is this machine that is lost; the cloud itself answers.
    if instance.fault in (None, Fault.unavailable):
        return _taken(message)
    # The reason begins with the cloud's own code where there is one.
    code = instance.reason.partition(":")[0].strip()
    code = code if " " not in code else ""
    if instance.fault is Fault.quota:
        # What runs out after the acceptance is the limit that the code names, of disks say: not that of the type.
        return CloudError(message, fault=Fault.quota, scope=Scope.region, cloud_code=code, bucket=code)
    return CloudError(message, fault=instance.fault, cloud_code=code)


def lost(provisioner: Provisioner, instance_id: str) -> CloudError | None:
    """What the cloud says of an instance that could not be reached; None if it runs, as far as anybody knows."""
    try:
        return fate(provisioner.get(instance_id))
    except InstanceNotFound as error:
        return _taken(f"{error.message}: it vanished while it was made ready")
    except CloudError:
        return None


def _taken(message: str) -> CloudError:
    return CloudError(message, fault=Fault.preempted)
