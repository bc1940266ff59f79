"""Remote object storage: S3 and its compatibles, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from vmrun.core.errors import KeyExists, KeyNotFound, StoreError
from vmrun.core.storage import PIECE, Listed

from .checks import check_key, check_prefix, check_range, is_key
from .files import FilePieces
from .object_clients import Clients, Limits
from .object_errors import Refusal, translated
from .options import StoreOptions

if TYPE_CHECKING:
    from .object_clients import Client

#: What the client library raises for refusals and broken connections.
_FAILURES = (BaseError, FileNotFoundError, NotImplementedError)

#: Bytes of one part of a large upload. Object stores take 10,000 parts.
PART = 16 * 1024 * 1024
MAX_OBJECT = 10_000 * PART
#: Parts under way at once: this many times PART is the memory of an upload.
_UPLOADS = 4
_PAGE = 1000
#: The characters of keys in the order in which they sort.
_ALPHABET = "-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


class ObjectStore:
    """Objects in a bucket, below a prefix. Safe between threads, not across a fork.

    A create is one PUT with `If-None-Match: *` (or its like) that is never repeated: 412 is KeyExists, and 409, 5xx,
    a timeout or a broken connection is StoreUnavailable. All other requests are repeated within `limits`.
    An upload holds at most four parts of 16 MiB, a download at most a few MiB.
    """

    def __init__(
        self, scheme: str, bucket: str, prefix: str, options: StoreOptions, *, limits: Limits | None = None
    ) -> None:
        self._scheme = scheme
        self._base = f"{prefix}/" if prefix else ""
        self._where = f"{scheme}://{bucket}" + (f" at {options.endpoint}" if options.endpoint else "")
        self._clients = Clients(scheme, bucket, options, limits or Limits())

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        # No server takes an empty range: one byte tells whether there is the object.
        stop = start + 1 if end == start else end
        try:
            body = bytes(self._fetch(self._small, key, start, stop).bytes())
        except _FAILURES as error:
            if Refusal.of(error).status == 416:
                return b""
            raise self._translated(error, "read", key) from None
        return b"" if end == start else body

    def create(self, key: str, body: bytes) -> None:
        check_key(key)
        try:
            obstore.put(self._once, self._base + key, bytes(body), mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            refusal = Refusal.of(error)
            if refusal.status == 412 or (self._scheme == "az" and refusal.code == "BlobAlreadyExists"):
                raise KeyExists(f"{key} exists") from None
            raise self._translated(error, "create", key) from None
        except _FAILURES as error:
            raise self._translated(error, "create", key) from None

    def replace(self, key: str, body: bytes) -> None:
        check_key(key)
        try:
            obstore.put(self._small, self._base + key, bytes(body), use_multipart=False)
        except _FAILURES as error:
            raise self._translated(error, "write", key) from None

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        check_prefix(prefix)
        check_prefix(after, "position in a listing")
        return self._listing(prefix, after)

    def delete(self, key: str) -> None:
        check_key(key)
        try:
            obstore.delete(self._small, self._base + key)
        except _FAILURES as error:
            refused = self._translated(error, "delete", key)
            if not isinstance(refused, KeyNotFound):
                raise refused from None

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        check_key(key)
        source = _Source(key, chunks)
        path = self._base + key
        try:
            whole = source.if_one_part()
            if whole is not None:
                obstore.put(self._upload, path, whole, use_multipart=False)
            else:
                obstore.put(self._upload, path, iter(source), chunk_size=PART, max_concurrency=_UPLOADS)
        except _FAILURES as error:
            if source.failure is not None:
                raise source.failure from None
            raise self._translated(error, "write", key) from None

    def write_file(self, key: str, path: str) -> None:
        # What fits into one part is read in one go, and not joined from pieces.
        self.write(key, FilePieces(path, PART))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, end)
        return self._pieces(key, start, end)

    def _pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        if end == start:
            self.get(key, start, end)
            return
        try:
            yield from self._fetch(self._download, key, start, end).stream(min_chunk_size=PIECE)
        except _FAILURES as error:
            if Refusal.of(error).status != 416:
                raise self._translated(error, "read", key) from None

    def _fetch(self, client: Client, key: str, start: int, end: int | None) -> obstore.GetResult:
        path = self._base + key
        if end is not None:
            return obstore.get(client, path, options={"range": (start, end)})
        if start:
            return obstore.get(client, path, options={"range": {"offset": start}})
        return obstore.get(client, path)

    def _listing(self, prefix: str, after: str) -> Iterator[Listed]:
        # The library lists whole path segments: list the directory, from just before the prefix on.
        directory = self._base + prefix[: prefix.rfind("/") + 1]
        start = max(after.rstrip("/"), _below(prefix))
        offset = self._base + start if is_key(start) else None
        try:
            for page in obstore.list(self._small, directory or None, offset=offset, chunk_size=_PAGE):
                for entry in page:
                    key = entry["path"][len(self._base) :]
                    if key.startswith(prefix):
                        if key > after and is_key(key):
                            yield Listed(key, entry["size"])
                    elif key > prefix:
                        return
        except _FAILURES as error:
            raise self._translated(error, "list", prefix) from None

    def _translated(self, error: Exception, doing: str, key: str) -> StoreError:
        return translated(error, doing, key, self._where)

    @cached_property
    def _once(self) -> Client:
        return self._clients.once()

    @cached_property
    def _small(self) -> Client:
        return self._clients.small()

    @cached_property
    def _upload(self) -> Client:
        return self._clients.upload()

    @cached_property
    def _download(self) -> Client:
        return self._clients.download()


def _below(prefix: str) -> str:
    """A key smaller than every key with this prefix, and close to it; empty where there is no simple one."""
    if not prefix or prefix.endswith("/"):
        return ""
    rank = _ALPHABET.index(prefix[-1])
    return f"{prefix[:-1]}{_ALPHABET[rank - 1]}zzz" if rank else ""


class _Source:
    """The chunks of an upload: bounded in sum, their own errors kept apart from the store's."""

    def __init__(self, key: str, chunks: Iterable[bytes]) -> None:
        self._key = key
        self._chunks = iter(chunks)
        self._begun: list[bytes] = []
        self._size = 0
        #: What the chunks raised, if they did.
        self.failure: Exception | None = None

    def if_one_part(self) -> bytes | None:
        """All of it, if it fits into one part."""
        for chunk in self._guarded():
            self._begun.append(chunk)
            if self._size > PART:
                return None
        return self._begun[0] if len(self._begun) == 1 else b"".join(self._begun)

    def __iter__(self) -> Iterator[bytes]:
        begun, self._begun = self._begun, []
        return chain(begun, self._guarded())

    def _guarded(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self._size += len(chunk)
                if self._size > MAX_OBJECT:
                    raise StoreError(
                        f"{self._key} is larger than {MAX_OBJECT // 2**30} GiB, the most that one object can hold",
                        hint="split the data into several files",
                    )
                yield chunk
        except Exception as error:
            self.failure = error
            raise
