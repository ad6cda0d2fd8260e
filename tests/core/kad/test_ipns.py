"""IPNS records: signed names, whose copies for old readers must not lie."""

import itertools

import pytest
from hypothesis import given, strategies as st
from node_pair import CRYPTO, make_key

from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.kad import cbor
from anyp2p_core.kad.ipns import (
    ENTRY,
    LIFETIME,
    MAX_RECORD,
    TTL,
    Entry,
    IpnsRecord,
    IpnsValidator,
    key_for,
    name_of,
    open_,
    seal,
)
from anyp2p_core.kad.rfc3339 import SECOND, parse

KEY = make_key()
RSA = make_key(kind=KeyType.RSA)
OTHER = make_key()
NAME = KEY.peer_id
PATH = b"/ipfs/bafkqaddwgevxmmraojswg33smq"
WALL = 1_700_000_000.0
VALIDATOR = IpnsValidator(CRYPTO)


def resealed(record, **changes):
    """The same record with other fields around the signed data."""
    entry = ENTRY.decode(record)
    for name, value in changes.items():
        setattr(entry, name, value)
    return ENTRY.encode(entry)


def signed(values, key=KEY):
    data = cbor.encode(values)
    return ENTRY.encode(Entry(data=data, signature_v2=key.sign(b"ipns-signature:" + data)))


GOOD = {
    "Value": PATH, "Validity": b"2100-01-01T00:00:00Z", "ValidityType": 0, "Sequence": 1, "TTL": 0,
}  # fmt: skip


@pytest.mark.parametrize("key", [KEY, RSA], ids=lambda key: key.kind.name)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_sealed_is_opened(key, legacy):
    record = seal(key, PATH, 7, WALL, legacy=legacy)
    said = open_(key.peer_id, record, CRYPTO)
    expires = int((WALL + LIFETIME) * SECOND)
    assert said == IpnsRecord(PATH, 7, expires, int(TTL * SECOND))
    entry = ENTRY.decode(record)
    assert (entry.value == PATH) is legacy
    assert (entry.signature_v1 is not None) is legacy
    # An inlined key is in the name already.
    assert (entry.public_key is not None) is (key is RSA)
    VALIDATOR.validate(key_for(key.peer_id), record, WALL)


def test_the_signed_data_is_canonical():
    data = ENTRY.decode(seal(KEY, PATH, 0, WALL)).data
    assert list(cbor.decode(data)) == ["TTL", "Value", "Sequence", "Validity", "ValidityType"]
    assert cbor.decode(data)["Validity"] == b"2023-11-16T22:13:20.000000000Z"


def test_keys_and_names():
    assert key_for(NAME) == b"/ipns/" + bytes(NAME)
    assert name_of(key_for(NAME)) == NAME
    for key in (b"", b"/pk/" + bytes(NAME), b"/ipns/", b"/ipns/abc"):
        with pytest.raises(DecodeError):
            name_of(key)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), signature_v2=None, data=None),
        resealed(seal(KEY, PATH, 0, WALL), signature_v2=b""),
        resealed(seal(KEY, PATH, 0, WALL), data=b""),
        resealed(seal(KEY, PATH, 0, WALL), signature_v2=bytes(64)),
        resealed(seal(KEY, PATH, 0, WALL), data=cbor.encode(GOOD)),
        seal(OTHER, PATH, 0, WALL),
        resealed(seal(OTHER, PATH, 0, WALL), public_key=OTHER.public.encode()),
        resealed(seal(KEY, PATH, 0, WALL), public_key=b"\x08\x01\x12\x01x"),
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), value=b"/ipfs/other"),
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), value=None),
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), validity=b"2100-01-01T00:00:00Z"),
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), validity=None),
        resealed(seal(KEY, PATH, 0, WALL, legacy=True), validity_type=1),
        resealed(seal(KEY, PATH, 1, WALL, legacy=True), sequence=2),
        resealed(seal(KEY, PATH, 1, WALL, legacy=True), ttl=None),
        resealed(seal(KEY, PATH, 1, WALL), value=PATH),
        signed({**GOOD, "ValidityType": 1}),
        signed({**GOOD, "Value": 1}),
        signed({**GOOD, "Validity": 1}),
        signed({**GOOD, "Validity": b"\xff" * 20}),
        signed({**GOOD, "Validity": b"9999999999-13-40"}),
        signed({**GOOD, "Sequence": b"1"}),
        signed({**GOOD, "TTL": b""}),
        signed({name: value for name, value in GOOD.items() if name != "TTL"}),
        signed({**GOOD, "Value": bytes(MAX_RECORD)}),
    ],
    ids=itertools.count(),
)
def test_records_that_are_not_valid(record):
    with pytest.raises(DecodeError):
        open_(NAME, record, CRYPTO)


def test_a_broken_first_signature_does_not_matter():
    record = resealed(seal(KEY, PATH, 0, WALL, legacy=True), signature_v1=b"junk")
    assert open_(NAME, record, CRYPTO).value == PATH


def test_a_name_that_is_a_hash_needs_the_key():
    record = resealed(seal(RSA, PATH, 0, WALL), public_key=None)
    with pytest.raises(DecodeError, match="lacks the public key"):
        open_(RSA.peer_id, record, CRYPTO)


def test_row_87_expiry():
    record = seal(KEY, PATH, 0, WALL, lifetime=10)
    key = key_for(NAME)
    VALIDATOR.validate(key, record, WALL + 9.9)
    for wall in (WALL + 10, WALL + 1e9, 2.0**63):
        with pytest.raises(DecodeError, match="expired"):
            VALIDATOR.validate(key, record, wall)
    # Before the year 1: a time that has no text.
    early = signed({**GOOD, "Validity": b"0001-01-01T00:00:00+23:59"})
    with pytest.raises(DecodeError, match="expired"):
        VALIDATOR.validate(key, early, WALL)
    for sequence in (0, 2**31, 2**63, 2**64 - 1):
        late = signed({**GOOD, "Sequence": sequence, "TTL": 2**64 - 1})
        VALIDATOR.validate(key, late, WALL)
        assert open_(NAME, late, CRYPTO).ttl == 2**64 - 1


@pytest.mark.parametrize(
    "options",
    [{"lifetime": -1}, {"lifetime": 2.0**64}, {"lifetime": float("nan")}, {"ttl": -1},
     {"ttl": float("inf")}],
)  # fmt: skip
def test_sealing_nonsense(options):
    with pytest.raises(LocalError):
        seal(KEY, PATH, 0, WALL, **options)


def test_sealing_what_does_not_fit():
    with pytest.raises(LocalError):
        seal(KEY, bytes(MAX_RECORD), 0, WALL)
    for sequence in (-1, 2**64):
        with pytest.raises(LocalError):
            seal(KEY, PATH, sequence, WALL)


def test_the_best_of_several():
    key = key_for(NAME)
    old = seal(KEY, PATH, 1, WALL, lifetime=9e8)
    new = seal(KEY, PATH, 2, WALL, lifetime=5)
    newer = seal(KEY, PATH, 2, WALL, lifetime=6)
    assert VALIDATOR.select(key, [old, new]) == 1
    assert VALIDATOR.select(key, [newer, new, old]) == 0
    # The bytes decide what nothing else decides, wherever a record stands.
    same = seal(KEY, PATH, 2, WALL, lifetime=6, legacy=True)
    best = max(newer, same)
    assert VALIDATOR.select(key, [newer, same]) == [newer, same].index(best)
    assert VALIDATOR.select(key, [same, newer]) == [same, newer].index(best)


@given(st.binary(max_size=300))
def test_garbage(data):
    with pytest.raises(DecodeError):
        open_(NAME, data, CRYPTO)


@given(st.data())
def test_every_changed_bit_is_noticed(data):
    record = bytearray(seal(KEY, PATH, 3, WALL))
    bit = data.draw(st.integers(0, len(record) * 8 - 1))
    record[bit // 8] ^= 1 << bit % 8
    try:
        said = open_(NAME, bytes(record), CRYPTO)
    except DecodeError:
        return
    # Only what is not signed can have changed: the number of a field that nobody reads.
    assert said == open_(NAME, seal(KEY, PATH, 3, WALL), CRYPTO)


def test_times_are_exact():
    assert open_(NAME, signed(GOOD), CRYPTO).expires == parse("2100-01-01T00:00:00Z")
