"""Failures as data: what is told of a task that did not return, in words that its author can act on."""

from __future__ import annotations

import base64
import errno
import json
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from vmrun.core.blocks import Status, failure

#: Characters of a message, and of a traceback, that are kept; of a longer one both ends.
MESSAGE_MAX = 16 * 1024
TRACEBACK_MAX = 64 * 1024
#: Characters of the name of a type.
TYPE_MAX = 1024
#: Bytes of a pickled exception that travel with its text.
EXCEPTION_MAX = 128 * 1024
#: Parts of a value that are tried in search of the one that cannot be pickled, and how deep.
PROBES_MAX, DEPTH_MAX = 200, 5
_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
#: What vmrun loads under the job's interpreter on its behalf is not the user's code either.
_LOADERS = ("<frozen importlib", "<frozen runpy")


def describe(error: BaseException, dumps: Callable[[Any], bytes]) -> tuple[Status, bytes]:
    """Status and payload for a task that ended with `error`."""
    if isinstance(error, SystemExit):
        return Status.exited, _exited(error)
    text = _traceback(error)
    document = failure(
        Status.raised,
        clip(_message(error), MESSAGE_MAX),
        type_name=type_name(type(error)),
        traceback=clip(text, TRACEBACK_MAX),
        exception=_pickled(error, dumps),
    )
    return Status.raised, document


def unpicklable(value: object, error: BaseException, dumps: Callable[[Any], bytes]) -> bytes:
    """The payload for a result that cannot be pickled; names the part that cannot."""
    try:
        where, what = culprit(value, dumps)
    except BaseException:  # noqa: BLE001  the search asks the value's parts what they are, and they may refuse
        where, what = "result", value
    message = (
        f"the result cannot be pickled: {where} is a {type_name(type(what))} "
        f"({type(error).__name__}: {_message(error)}); return data instead"
    )
    return failure(
        Status.unpicklable,
        clip(message, MESSAGE_MAX),
        type_name=type_name(type(error)),
        traceback=clip(_traceback(error), TRACEBACK_MAX),
    )


def no_space(error: BaseException | None, depth: int = 20) -> bool:
    """Whether a full disk, or a used-up quota, is what an exception comes from."""
    while error is not None and depth:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error, depth = error.__cause__ or error.__context__, depth - 1
    return False


def unkept(error: BaseException) -> bytes:
    """The payload for a result that could not be written to disk, above all because there was no space."""
    why = "the disk of the machine is full" if no_space(error) else "it could not be written to the machine's disk"
    return failure(
        Status.raised,
        f"the result was lost, because {why} ({_message(error)})",
        type_name=type_name(type(error)),
        traceback=clip(_traceback(error), TRACEBACK_MAX),
    )


def foreign_python(what: str, python: str) -> bytes:
    """The payload for tasks that another Python version pickled; nothing of them was opened."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    message = (
        f"{what} was pickled by Python {python}, and this worker runs Python {ours}: it was not opened. "
        f"Submit with --python {python}, or from Python {ours}"
    )
    return failure(Status.unpicklable, message)


def by_exit_code(code: int) -> bytes:
    """The payload for a process that ended by itself."""
    return failure(Status.exited, f"the process ended with exit code {code}", type_name="SystemExit", code=code)


def by_signal(number: int, *, why: str = "", last: str = "") -> bytes:
    """The payload for a process that a signal ended; `last` is the end of what it wrote to stderr."""
    message = f"killed by {signal_name(number)}{why}"
    return failure(Status.signalled, message, traceback=last, code=number)


def by_system(peak: int, limit: int, *, last: str = "") -> bytes:
    """The payload for a process that the system ended for lack of memory.

    `peak` are the most bytes that it had, `limit` those that all tasks together may take; 0: not known.
    """
    most = f", and all tasks together may take {size(limit)}" if limit else ""
    message = f"killed by the system, which was out of memory; its memory peaked at {size(peak)}{most}"
    return failure(Status.oom, message, traceback=last, code=int(signal.SIGKILL))


def prefixed(document: bytes, words: str) -> bytes:
    """A failure document whose message begins with `words`."""
    said = json.loads(document)
    return json.dumps({**said, "message": words + str(said["message"])}).encode()


def signal_name(number: int) -> str:
    """As people know it: SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def type_name(kind: type) -> str:
    """The class as its author would write it."""
    return clip(_safely(_type_name, kind), TYPE_MAX)


def _type_name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def clip(text: str, limit: int) -> str:
    """`text`, its middle left out if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def culprit(value: object, dumps: Callable[[Any], bytes]) -> tuple[str, object]:
    """(path, part) of the smallest part of `value` that `dumps` refuses, as far as a short search finds it."""
    path, left = "result", PROBES_MAX
    for _ in range(DEPTH_MAX):
        for label, part in _parts(value):
            left -= 1
            if left < 0:
                return path, value
            if not _dumps(part, dumps):
                path, value = path + label, part
                break
        else:
            break
    return path, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r:.60}]", part) for key, part in list(value.items()))
    elif isinstance(value, list | tuple):
        yield from ((f"[{at}]", part) for at, part in enumerate(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f".{name}", part) for name, part in list(vars(value).items()))


def _dumps(value: object, dumps: Callable[[Any], bytes]) -> bool:
    try:
        dumps(value)
    except BaseException:  # noqa: BLE001  the value's own code runs here, and may raise anything
        return False
    return True


def _exited(error: SystemExit) -> bytes:
    if error.code is None or isinstance(error.code, int):
        code = int(error.code or 0)
        message = f"the task called sys.exit({'' if error.code is None else code})"
    else:
        code, message = 1, f"the task called sys.exit: {_safely(str, error.code)}"
    text = clip(_traceback(error), TRACEBACK_MAX)
    return failure(Status.exited, clip(message, MESSAGE_MAX), type_name="SystemExit", traceback=text, code=code)


def _message(error: BaseException) -> str:
    return _safely(str, error)


def _safely(render: Callable[[Any], str], value: object) -> str:
    try:
        return render(value)
    except BaseException as second:  # noqa: BLE001  the user's own __str__
        return f"<no text: {type(second).__name__} in __str__ of {type_name(type(value))}>"


def _traceback(error: BaseException) -> str:
    try:
        summary = traceback.TracebackException.from_exception(error, max_group_width=30)
        _trim(summary)
        return "".join(summary.format())
    except BaseException as second:  # noqa: BLE001  formatting calls the user's __str__, __repr__ and __getattr__
        return f"<no traceback: {type(second).__name__} while it was formatted>"


def _trim(summary: traceback.TracebackException, depth: int = 50) -> None:
    """Take out the frames that called the user's code: they are vmrun's."""
    own = 0
    for frame in summary.stack:
        if not frame.filename.startswith((_OWN, *_LOADERS)):
            break
        own += 1
    del summary.stack[:own]
    if depth:
        for other in (summary.__cause__, summary.__context__, *(summary.exceptions or ())):
            if other is not None:
                _trim(other, depth - 1)


def _pickled(error: BaseException, dumps: Callable[[Any], bytes]) -> str:
    """The exception in base64, if it survives a round trip here; "" otherwise."""
    try:
        data = dumps(error)
        if len(data) > EXCEPTION_MAX or type(pickle.loads(data)) is not type(error):
            return ""
    except BaseException:  # noqa: BLE001  the exception's own code runs here; its text is enough then
        return ""
    return base64.b64encode(data).decode()
