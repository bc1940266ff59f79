"""The error tree: every error that a user can meet has a code, an exit code and a hint that names the next step."""

from __future__ import annotations

from typing import Any, ClassVar


class VmrunError(Exception):
    """Something vmrun could not do, said so that a person or a program can act on it."""

    #: Stable identifier, as in the `--json` document of an error.
    code: ClassVar[str] = "unexpected"
    #: Exit code of the command line (DESIGN of the CLI: one code per family).
    exit_code: ClassVar[int] = 1
    #: Whether the same call may succeed later without any change by the user.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        #: What else there is to tell, as JSON values by their name in the `--json` document of the error.
        self.data: dict[str, Any] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.data))


def _rebuild(kind: type[VmrunError], message: str, hint: str, data: dict[str, Any]) -> VmrunError:
    error = kind.__new__(kind)
    VmrunError.__init__(error, message, hint=hint)
    error.data = data
    return error


class UsageError(VmrunError):
    """An option, argument, script or input that cannot be used as it is."""

    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """A configuration file, key or environment variable that is wrong."""

    code = "config"


class StoreError(VmrunError):
    """The object store refused or failed."""

    code = "store"
    exit_code = 3


class KeyNotFound(StoreError):
    """No object under this key."""

    code = "store-not-found"


class KeyExists(StoreError):
    """A create-only write found an object under this key; nothing was written by this call's last attempt."""

    code = "store-exists"


class StoreUnavailable(StoreError):
    """No answer, or an answer that decides nothing: the write may or may not have happened."""

    code = "store-unavailable"
    retryable = True


class StoreDenied(StoreError):
    """Credentials are missing or lack a permission, or the bucket is not there."""

    code = "store-denied"


class StoreAbsent(StoreDenied):
    """There is no store at the configured address: its bucket, region or endpoint is wrong."""

    code = "store-absent"


class StoreUnsafe(StoreError):
    """The store does not honour create-only writes, so it cannot carry a journal."""

    code = "store-unsafe"


class Corrupt(StoreError):
    """Stored bytes are not what their hash, signature or number says. Nothing of them was unpickled."""

    code = "store-corrupt"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or _CORRUPT)


_CORRUPT = (
    "somebody without this deployment's keys wrote to the store, or an object was damaged: "
    "what it is about cannot be trusted any more, run it again"
)


class SchemaError(StoreError):
    """Written by a version of vmrun whose format this one does not know."""

    code = "store-schema"


class CapacityError(VmrunError):
    """No offer could be rented: capacity, quota, or nothing fits."""

    code = "capacity"
    exit_code = 4
    retryable = True


class Unreachable(VmrunError):
    """A VM was made, and could not be reached or made ready."""

    code = "unreachable"
    exit_code = 5
    retryable = True


class JobFailed(VmrunError):
    """The user's code failed."""

    code = "job-failed"
    exit_code = 6


class BudgetError(VmrunError):
    """It would cost, or has cost, more than allowed."""

    code = "budget"
    exit_code = 7


def failed_as_a_whole(message: str, hint: str, code: str) -> VmrunError:
    """The error of a job that failed as a whole; `code` is the word that it gave for it, "" for none."""
    return (BudgetError if code == BudgetError.code else JobFailed)(message, hint=hint)


class JobCancelled(VmrunError):
    """The job was cancelled."""

    code = "cancelled"
    exit_code = 8


class Denied(VmrunError):
    """Credentials or a permission are missing."""

    code = "denied"
    exit_code = 9
