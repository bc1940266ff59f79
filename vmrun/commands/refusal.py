"""A cloud's refusal as the error of the command that met it."""

from __future__ import annotations

from vmrun.core.clouds import CloudError, Fault
from vmrun.core.errors import ConfigError, Denied, VmrunError


def as_told(error: VmrunError) -> VmrunError:
    """An error by its kind, so that the exit code says what to see to; what is no cloud's stays as it is."""
    if not isinstance(error, CloudError):
        return error
    if error.fault in (Fault.permission, Fault.billing):
        return Denied(error.message, hint=error.hint)
    return ConfigError(error.message, hint=error.hint) if error.fault is Fault.config else error
