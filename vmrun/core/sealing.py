"""The sealed form of entries: what lies in the store.

A sealed entry is three parts: one line of canonical JSON that says what, where (journal and number), who, and the
hash of the attachment; one line with the signature of the first; the attachment. Place and hash are under the
signature, so an entry can neither be moved to another slot nor be given other bytes.
"""

from __future__ import annotations

from typing import Any

from . import codec, keys
from .errors import Corrupt, SchemaError, StoreError
from .records import SCHEMA, TYPES, Entry
from .signing import Signer, Verifier

#: Bytes of an entry's first line; larger is damage.
_HEAD_MAX = 8 * 1024 * 1024


def seal(journal: str, entry: Entry, signer: Signer) -> bytes:
    """The bytes of `entry`, to be stored as number `entry.n` of `journal`."""
    assert entry.body is not None
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "type": entry.body.TYPE,
        "journal": journal,
        "n": entry.n,
        "writer": signer.name,
        "nonce": entry.nonce,
        "at": round(entry.at, 3),
        "data": codec.to_data(entry.body),
    }
    if entry.attachment:
        head["attachment"] = {"size": len(entry.attachment), "sha256": codec.sha256(entry.attachment)}
    line = codec.canonical(head)
    if len(line) >= _HEAD_MAX:
        raise StoreError(
            f"an entry for {journal} is {len(line)} bytes without its attachment; nobody would read it",
            hint="let each task write fewer files, or put them into one archive",
        )
    return b"".join((line, b"\n", signer.sign(line).hex().encode(), b"\n", entry.attachment))


def authentic(data: bytes, writer: str, verifier: Verifier) -> bool:
    """Whether readers who trust what `verifier` trusts would take the sealed entry as `writer`'s."""
    line, signature, _ = _split(data)
    return verifier.verify(writer, line, signature)


def unseal(journal: str, n: int | None, data: bytes, verifier: Verifier) -> Entry:
    """The entry in `data`, which stood as number `n` of `journal` (None: any number, for what is overwritten).

    Raises Corrupt when place, hash or signature is wrong, SchemaError when written in a newer format.
    """
    where = journal if n is None else keys.entry(journal, n)
    try:
        line, signature, attachment = _split(data)
        head = codec.parse(line)
    except Corrupt as error:
        raise Corrupt(f"{where}: {error.message}") from error
    if not isinstance(head, dict):
        raise Corrupt(f"{where}: not an entry")
    writer = str(head.get("writer", ""))
    if not verifier.verify(writer, line, signature):
        raise Corrupt(f"{where}: the signature is not {writer[:40] or 'anybody'}'s; nothing of it was used")
    # Only now: what nobody signed must not pass for the work of a newer version.
    if isinstance(schema := head.get("schema"), int) and schema > SCHEMA:
        raise SchemaError(f"{where} was written in format {schema}; this vmrun knows {SCHEMA}", hint="upgrade vmrun")
    found = head.get("n")
    if head.get("journal") != journal or not isinstance(found, int) or n not in (None, found):
        raise Corrupt(f"{where}: the entry belongs to {head.get('journal')}, number {found}")
    _check_attachment(where, head.get("attachment"), attachment)
    kind = TYPES.get(str(head.get("type")))
    body = None if kind is None else codec.from_data(kind, head.get("data"))
    at = codec.from_data(float, head.get("at", 0.0))
    return Entry(found, writer, str(head.get("nonce")), at, body, attachment)


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    first = data.find(b"\n", 0, _HEAD_MAX)
    second = data.find(b"\n", first + 1, first + 1 + 1024) if first >= 0 else -1
    if second < 0:
        raise Corrupt("not a sealed entry")
    text = data[first + 1 : second]
    try:
        signature = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise Corrupt("an entry's signature is not hexadecimal") from error
    if signature.hex().encode() != text:
        raise Corrupt("an entry's signature is not in lower-case hexadecimal")
    return data[:first], signature, data[second + 1 :]


def _check_attachment(where: str, declared: object, attachment: bytes) -> None:
    if declared is None:
        if attachment:
            raise Corrupt(f"{where}: bytes follow that nobody signed for")
        return
    if not isinstance(declared, dict) or declared.get("sha256") != codec.sha256(attachment):
        raise Corrupt(f"{where}: the attachment is not the one that was signed")
