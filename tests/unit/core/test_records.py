from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import OTHER_VM, VM
from vmrun.core import codec, records, sealing
from vmrun.core.errors import Corrupt, SchemaError, StoreError
from vmrun.core.heartbeats import read_heartbeat, write_heartbeat
from vmrun.core.records import Claim, Entry, Heartbeat, Record, Release
from vmrun.core.sealing import seal, unseal
from vmrun.core.signing import Signer

from .world import ScriptedStore

PREFIX = f"jobs/{'j' * 26}/shards/000000/"
CLIENT = FakeSigner("client")
RING = fake_keyring(f"vm:{VM}")


def an_entry(n: int = 3, body: Record | None = None, attachment: bytes = b"") -> Entry:
    return Entry(n, "client", "abc123", 1_700_000_000.25, body or Claim(VM), attachment)


def resign(head: dict[str, object], attachment: bytes = b"", signer: Signer = CLIENT) -> bytes:
    """What somebody with a key could write who does not keep to the format."""
    line = json.dumps(head).encode()
    return b"\n".join((line, signer.sign(line).hex().encode(), attachment))


def head_of(data: bytes) -> dict[str, object]:
    return dict(json.loads(data.split(b"\n")[0]))


@given(st.binary(max_size=40), st.integers(0, 10**7), st.text(max_size=10))
def test_an_entry_comes_back_as_it_was_sealed(attachment: bytes, n: int, reason: str) -> None:
    entry = an_entry(n, Release(VM, reason), attachment)

    assert unseal(PREFIX, n, seal(PREFIX, entry, CLIENT), RING) == entry
    assert unseal(PREFIX, None, seal(PREFIX, entry, CLIENT), RING) == entry


@pytest.mark.parametrize("attachment", [b"", b"some\nbytes\n"])
@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_no_byte_can_be_changed(attachment: bytes, mask: int) -> None:
    sealed = seal(PREFIX, an_entry(attachment=attachment), CLIENT)

    for at in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[at] ^= mask
        # A changed format number is told apart: it may be a newer vmrun's, and is refused all the same.
        with pytest.raises((Corrupt, SchemaError)) as caught:
            unseal(PREFIX, 3, bytes(damaged), RING)
        if caught.type is SchemaError:
            assert sealed[at - 9 : at + 1] == b'"schema":1'


@settings(max_examples=50)
@given(st.data())
def test_no_byte_can_be_added_or_taken_away(data: st.DataObject) -> None:
    sealed = seal(PREFIX, an_entry(attachment=b"some bytes"), CLIENT)
    at = data.draw(st.integers(0, len(sealed) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=3))

    for damaged in (sealed[:at], sealed[:at] + sealed[at + 1 :], sealed + extra, extra + sealed):
        with pytest.raises(Corrupt):
            unseal(PREFIX, 3, damaged, RING)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_entry_or_corrupt(data: bytes) -> None:
    for damaged in (data, data + b"\n\n", b"{}\n\n" + data, data + b"\n" + data.hex().encode() + b"\n"):
        with pytest.raises(Corrupt):
            unseal(PREFIX, 3, damaged, RING)


@pytest.mark.parametrize(
    ("prefix", "n"),
    [
        (PREFIX, 2),
        (PREFIX, 4),
        (PREFIX.replace("j", "k", 1), 3),
        (PREFIX.replace("000000", "000001"), 3),
        (f"vms/{VM}/", 3),
        ("", 3),
    ],
)
def test_an_entry_counts_in_its_own_place_only(prefix: str, n: int) -> None:
    with pytest.raises(Corrupt, match="belongs to"):
        unseal(prefix, n, seal(PREFIX, an_entry(), CLIENT), RING)


def test_an_entry_counts_under_its_writers_key_only() -> None:
    stranger = FakeSigner("client", b"another key")
    unknown = FakeSigner(f"vm:{OTHER_VM}")
    other = FakeSigner(f"vm:{VM}")
    for signer in (stranger, unknown, FakeSigner("", b"k"), FakeSigner("reader")):
        with pytest.raises(Corrupt, match="signature"):
            unseal(PREFIX, 3, seal(PREFIX, an_entry(), signer), RING)
    # A key that is known signs for its own name only.
    with pytest.raises(Corrupt, match="signature"):
        unseal(PREFIX, 3, seal(PREFIX, an_entry(), FakeSigner("client", other.key)), RING)


def test_an_attachment_belongs_to_its_entry() -> None:
    one, two = (seal(PREFIX, an_entry(attachment=data), CLIENT) for data in (b"one", b"two"))
    bare = seal(PREFIX, an_entry(), CLIENT)

    for mixed in (one[:-3] + two[-3:], one[:-3], one + b"x", bare + b"x"):
        with pytest.raises(Corrupt):
            unseal(PREFIX, 3, mixed, RING)


def test_a_type_of_a_newer_version_has_no_body() -> None:
    head = {**head_of(seal(PREFIX, an_entry(), CLIENT)), "type": "TELEPORT", "data": {"to": "mars"}}

    entry = unseal(PREFIX, 3, resign(head), RING)

    assert entry.body is None
    assert (entry.n, entry.writer) == (3, "client")


def test_fields_of_a_newer_version_are_ignored() -> None:
    head = head_of(seal(PREFIX, an_entry(), CLIENT))
    head = {**head, "colour": "red", "data": {"vm": VM, "colour": "red"}}

    assert unseal(PREFIX, 3, resign(head), RING).body == Claim(VM)


def test_a_newer_format_is_refused_as_such() -> None:
    head = {**head_of(seal(PREFIX, an_entry(), CLIENT)), "schema": 2}
    with pytest.raises(SchemaError) as caught:
        unseal(PREFIX, 3, resign(head), RING)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"at": "noon"},
        {"at": None},
        {"at": {}},
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": 10**400},
        {"n": "3"},
        {"n": None},
        {"n": [3]},
        {"journal": None},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"vm": 1}},
        {"attachment": {"sha256": None}},
        {"attachment": []},
        {"attachment": "yes"},
    ],
)
def test_a_trusted_writer_without_manners_is_corrupt_and_nothing_worse(change: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        unseal(PREFIX, 3, resign({**head_of(seal(PREFIX, an_entry(), CLIENT)), **change}), RING)


@pytest.mark.parametrize("line", [b"[]", b"1", b"null", b'"x"', b"", b"[" * 50_000])
def test_a_head_that_is_no_object_is_corrupt(line: bytes) -> None:
    with pytest.raises(Corrupt):
        unseal(PREFIX, 3, b"\n".join((line, CLIENT.sign(line).hex().encode(), b"")), RING)


def test_what_no_reader_would_take_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_HEAD_MAX", 1000)
    longest = next(size for size in range(1000, 0, -1) if _sealable(an_entry(body=Release(VM, "x" * size))))

    sealed = seal(PREFIX, an_entry(body=Release(VM, "x" * longest)), CLIENT)

    assert unseal(PREFIX, 3, sealed, RING).body == Release(VM, "x" * longest)
    assert longest > 500


def _sealable(entry: Entry) -> bool:
    try:
        seal(PREFIX, entry, CLIENT)
    except StoreError:
        return False
    return True


def test_all_types_have_a_word_of_their_own() -> None:
    defined = [kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Record)]
    words = {kind.TYPE: kind for kind in defined if kind is not Record}

    assert len(words) == len(defined) - 1
    assert words == records.TYPES
    assert all(word == word.upper() for word in words)


# --- heartbeats: sealed the same way, overwritten, and read by nobody as anything but a sign of life ---


def test_a_heartbeat_is_its_own_vms_only() -> None:
    store = ScriptedStore()
    beat = Heartbeat(counter=7, boot_id="b", seen=3)
    ring = fake_keyring(f"vm:{VM}", f"vm:{OTHER_VM}")
    write_heartbeat(store, VM, an_entry(7, beat), FakeSigner(f"vm:{VM}"))

    assert read_heartbeat(store, VM, ring) == beat
    assert read_heartbeat(store, OTHER_VM, ring) is None

    # Copied to another VM's place, written by another VM, by the client, by nobody, or no heartbeat at all:
    store.objects[f"heartbeats/{OTHER_VM}"] = store.objects[f"heartbeats/{VM}"]
    assert read_heartbeat(store, OTHER_VM, ring) is None
    for signer in (FakeSigner(f"vm:{VM}"), CLIENT, FakeSigner(f"vm:{OTHER_VM}", b"forged")):
        write_heartbeat(store, OTHER_VM, an_entry(7, beat), signer)
        assert read_heartbeat(store, OTHER_VM, ring) is None
    write_heartbeat(store, VM, an_entry(7), FakeSigner(f"vm:{VM}"))
    assert read_heartbeat(store, VM, ring) is None
    store.objects[f"heartbeats/{VM}"] = b"garbage"
    assert read_heartbeat(store, VM, ring) is None


def test_hashes_are_of_the_bytes() -> None:
    assert codec.sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert codec.sha256(memoryview(b"ab")[:1]) == codec.sha256(b"a")
