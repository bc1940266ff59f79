"""From a URL to a store."""

from __future__ import annotations

import os
import re
import threading
from urllib.parse import unquote, urlsplit

from vmrun.core.errors import ConfigError
from vmrun.core.storage import BlobStore

from .checks import is_key
from .directory import DirectoryStore
from .memory import MemoryStore
from .options import StoreOptions

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_NAME = re.compile(r"[A-Za-z0-9._-]{0,64}")
_HINT = (
    "store.url (VMRUN_STORE) is a directory (/PATH or file:///PATH), s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX] "
    "or az://CONTAINER[/PREFIX]"
)

_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(url: str, options: StoreOptions | None = None) -> BlobStore:
    """The store at `url`; a directory is made when it is not there, a bucket is not.

    `memory://NAME` is one store per name and process, for tests. Nothing is sent yet: a wrong bucket or key shows
    with the first request. Raises ConfigError for a URL or options that cannot be right, StoreDenied for a
    directory that cannot be used.
    """
    options = options or StoreOptions()
    if url.startswith(("/", "~/")):
        return DirectoryStore(os.path.expanduser(url), fsync=options.fsync)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _malformed(url, "it is no URL") from None
    if "@" in parts.netloc:
        raise ConfigError("the store's URL carries credentials", hint="put them into store.access_key_id and its like")
    if parts.query or parts.fragment:
        raise _malformed(url, "it has a `?` or `#` part")
    if parts.scheme == "file":
        return DirectoryStore(_directory(url, parts.netloc, parts.path), fsync=options.fsync)
    if parts.scheme == "memory":
        return _in_memory(url, parts.netloc + parts.path)
    if parts.scheme in {"s3", "gs", "az"}:
        return _remote(url, options)
    raise _malformed(url, f"the scheme {parts.scheme!r} is not known" if parts.scheme else "it is no absolute path")


def _directory(url: str, host: str, path: str) -> str:
    if host not in {"", "localhost"} or not path.startswith("/"):
        raise _malformed(url, "a file URL has three slashes")
    if "\0" in (plain := unquote(path)):
        raise _malformed(url, "it holds a zero byte")
    return plain


def _in_memory(url: str, name: str) -> MemoryStore:
    if _NAME.fullmatch(name) is None:
        raise _malformed(url, "the name of a store in memory is of A-Z a-z 0-9 . _ -")
    with _memory_lock:
        return _memory.setdefault(name, MemoryStore())


def _remote(url: str, options: StoreOptions) -> BlobStore:
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise _malformed(url, "there is no bucket name after the scheme")
    if prefix and not is_key(prefix):
        raise _malformed(url, "its path is not of segments of A-Z a-z 0-9 . _ -")
    from .object import ObjectStore  # loads the client library

    return ObjectStore(parts.scheme, bucket, prefix, options)


def _malformed(url: str, why: str) -> ConfigError:
    return ConfigError(f"{url!r} is not the URL of a store: {why}", hint=_HINT)
