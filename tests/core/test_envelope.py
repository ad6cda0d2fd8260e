"""anyp2p_core.envelope"""

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p.providers.crypto import Cryptography
from anyp2p_core import varint
from anyp2p_core.envelope import (
    MAX_ENVELOPE,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    PeerRecord,
    open_,
    open_peer_record,
    seal,
    seal_peer_record,
)
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

CRYPTO = Cryptography()
GO = vectors.load("signed_envelope_peer_record")
JS = vectors.load("signed_envelope_peer_record_js")
SPEC = vectors.load("peer_ids")["keys"]
KEYS = [PrivateKey.decode(bytes.fromhex(key["private"]), CRYPTO) for key in SPEC]
KEY, OTHER = KEYS[:2]
RECORD = GO["computed"][0]
SEALED = bytes.fromhex(RECORD["envelope"])
ADDRESS = Multiaddr("/ip4/192.0.2.1/tcp/4001")
LEGACY_TYPE = b"/libp2p/routing-state-record"
LEGACY_DOMAIN = "libp2p-routing-state"


def record(peer: PeerId, seq: int, *addresses: bytes) -> bytes:
    """A PeerRecord message with any bytes as addresses."""
    infos = (
        b"\x1a" + varint.delimited(b"\x0a" + varint.delimited(address)) for address in addresses
    )
    sequence = b"\x10" + varint.encode(seq) if seq else b""
    return b"\x0a" + varint.delimited(bytes(peer)) + sequence + b"".join(infos)


def sealed(payload: bytes, key: PrivateKey = KEY) -> bytes:
    return seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload)


# Known answers


def test_envelopes_made_by_go() -> None:
    for case in GO["envelopes"]:
        data = bytes.fromhex(case["hex"])
        if case["valid"]:
            envelope = open_(data, case["domain"], CRYPTO)
            assert envelope.payload_type.hex() == case["payloadType"]
            assert envelope.payload.hex() == case["payload"]
        else:
            with pytest.raises(DecodeError, match="signature"):
                open_(data, case["domain"], CRYPTO)


def test_a_peer_record_made_by_go() -> None:
    """Its payload alone is a vector: read it after sealing it as the only key there is does."""
    (case,) = GO["peer_records"]
    payload = bytes.fromhex(case["hex"])
    peer = PeerId.parse(case["peerId"])
    addresses = [bytes(Multiaddr(text)) for text in case["addrs"]]
    assert record(peer, int(case["seq"]), *addresses) == payload
    with pytest.raises(DecodeError, match="somebody else"):
        open_peer_record(sealed(payload), CRYPTO)


@pytest.mark.parametrize("case", JS["cases"], ids=[case["name"] for case in JS["cases"]])
def test_peer_records_made_by_js(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["envelope"])
    keys = JS["keys"][case["key"]]
    addresses = [Multiaddr(text) for text in case["addrs"]]
    expected = PeerRecord(PeerId.parse(keys["peerId"]), int(case["seq"]), addresses)
    assert open_peer_record(data, CRYPTO) == expected
    envelope = open_(data, case["domain"], CRYPTO)
    assert envelope.payload.hex() == case["payload"]
    assert envelope.payload_type.hex() == case["payloadType"]
    assert envelope.public_key.encode().hex() == keys["pubProto"]
    key = PrivateKey.decode(bytes.fromhex(keys["privProto"]), CRYPTO)
    assert seal_peer_record(key, int(case["seq"]), addresses) == data


def test_the_record_computed_from_the_specs() -> None:
    addresses = [Multiaddr(text) for text in RECORD["addrs"]]
    assert seal_peer_record(KEY, RECORD["seq"], addresses) == SEALED
    assert open_peer_record(SEALED, CRYPTO) == PeerRecord(KEY.peer_id, 1, addresses)
    envelope = open_(SEALED, PEER_RECORD_DOMAIN, CRYPTO)
    parts = (PEER_RECORD_DOMAIN.encode(), PEER_RECORD_TYPE, envelope.payload)
    signed = b"".join(map(varint.delimited, parts))
    assert signed.hex() == RECORD["signed"]
    assert KEY.public.verify(SEALED[-64:], signed)


# Envelopes


@pytest.mark.parametrize("key", KEYS, ids=[key["kind"] for key in SPEC])
def test_every_kind_of_key_seals(key: PrivateKey) -> None:
    envelope = open_(seal(key, "domain", b"type", b"payload"), "domain", CRYPTO)
    assert envelope.public_key == key.public
    assert (envelope.payload_type, envelope.payload) == (b"type", b"payload")
    assert open_peer_record(seal_peer_record(key, 7, [ADDRESS]), CRYPTO) == PeerRecord(
        key.peer_id, 7, [ADDRESS]
    )


def test_empty_fields() -> None:
    envelope = open_(seal(KEY, "", b"", b""), "", CRYPTO)
    assert (envelope.payload_type, envelope.payload) == (b"", b"")


def test_the_domain_is_part_of_what_is_signed() -> None:
    data = seal(KEY, "one", b"type", b"payload")
    for domain in ("two", "", "onet", "on"):
        with pytest.raises(DecodeError, match="signature"):
            open_(data, domain, CRYPTO)


def test_row_14_no_bit_of_an_envelope_can_be_changed() -> None:
    """Every bit is signed, or is the signature, or makes the key or the fields invalid."""
    for bit in range(8 * len(SEALED)):
        changed = bytearray(SEALED)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            open_peer_record(bytes(changed), CRYPTO)
    for size in (0, 63, 65):
        end = b"\x2a" + varint.delimited(bytes(size))
        with pytest.raises(DecodeError, match="signature"):
            open_peer_record(SEALED[:-66] + end, CRYPTO)


def test_every_cut_of_an_envelope_is_refused() -> None:
    for size in range(len(SEALED)):
        with pytest.raises(DecodeError):
            open_peer_record(SEALED[:size], CRYPTO)


@pytest.mark.parametrize("tail", [b"\0", b"\x2a", b"\xff" * 10, b"\x2a\x01\0", b"\x1a\0"])
def test_what_follows_an_envelope_must_be_a_field_that_changes_nothing(tail: bytes) -> None:
    with pytest.raises(DecodeError):
        open_peer_record(SEALED + tail, CRYPTO)
    assert open_peer_record(SEALED + b"\x30\x07", CRYPTO).seq == 1  # an unknown field


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for attempt in (data, SEALED[:80] + data, SEALED[:38] + data, SEALED + data[:4]):
        try:
            opened = open_peer_record(attempt, CRYPTO)
        except DecodeError:
            continue
        assert opened == PeerRecord(KEY.peer_id, 1, [ADDRESS])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_that_is_signed(payload: bytes) -> None:
    prefix = b"\x0a" + varint.delimited(bytes(KEY.peer_id))
    for attempt in (payload, prefix + payload, prefix + b"\x1a" + varint.delimited(payload)):
        try:
            opened = open_peer_record(sealed(attempt), CRYPTO)
        except DecodeError:
            continue
        assert opened.peer_id == KEY.peer_id


def test_16_kib_are_the_limit() -> None:
    room = MAX_ENVELOPE - len(seal(KEY, "d", b"t", bytes(MAX_ENVELOPE - 200))) + MAX_ENVELOPE - 200
    data = seal(KEY, "d", b"t", bytes(room))
    assert len(data) == MAX_ENVELOPE
    assert open_(data, "d", CRYPTO).payload == bytes(room)
    with pytest.raises(LocalError, match="16385 bytes"):
        seal(KEY, "d", b"t", bytes(room + 1))
    for tail in (b"\x30\x07", bytes(10**6)):
        with pytest.raises(DecodeError, match="the limit is 16384"):
            open_(data + tail, "d", CRYPTO)


class _NoCrypto(Cryptography):
    """A provider that is asked for more than may be asked before the signature was checked."""

    def load_public(self, *args: object) -> object:  # type: ignore[override]
        raise AssertionError("the key was loaded")


def test_size_and_type_are_judged_before_the_key() -> None:
    with pytest.raises(DecodeError, match="no peer record"):
        open_peer_record(seal(KEY, "d", b"\x81\x06", b""), _NoCrypto())
    with pytest.raises(DecodeError, match="limit"):
        open_(bytes(MAX_ENVELOPE + 1), "d", _NoCrypto())


def test_the_payload_is_not_parsed_before_the_signature_is_checked() -> None:
    broken = sealed(b"\xff" * 20)
    with pytest.raises(DecodeError) as caught:
        open_peer_record(broken, CRYPTO)
    assert "signature" not in str(caught.value)  # signed, and then no record
    with pytest.raises(DecodeError, match="signature"):
        open_peer_record(broken[:-1] + bytes((broken[-1] ^ 1,)), CRYPTO)


# Peer records


def test_row_15_a_record_of_another_peer_is_refused() -> None:
    stolen = record(OTHER.peer_id, 1, bytes(ADDRESS))
    for domain, payload_type in (
        (PEER_RECORD_DOMAIN, PEER_RECORD_TYPE),
        (LEGACY_DOMAIN, LEGACY_TYPE),
    ):
        with pytest.raises(DecodeError, match="somebody else"):
            open_peer_record(seal(KEY, domain, payload_type, stolen), CRYPTO)
    hashed = PeerId(b"\x12\x20" + bytes(32))
    for peer in (hashed, KEYS[2].peer_id):
        with pytest.raises(DecodeError, match="somebody else"):
            open_peer_record(sealed(record(peer, 1)), CRYPTO)


def test_the_domain_of_rfc_0003_is_accepted() -> None:
    data = seal(KEY, LEGACY_DOMAIN, LEGACY_TYPE, record(KEY.peer_id, 3, bytes(ADDRESS)))
    assert open_peer_record(data, CRYPTO) == PeerRecord(KEY.peer_id, 3, [ADDRESS])


@pytest.mark.parametrize(
    ("domain", "payload_type"),
    [
        (PEER_RECORD_DOMAIN, LEGACY_TYPE),
        (LEGACY_DOMAIN, PEER_RECORD_TYPE),
        ("libp2p-relay-rsvp", PEER_RECORD_TYPE),
        (PEER_RECORD_DOMAIN, b"\x03\x02"),
        (PEER_RECORD_DOMAIN, b"\x81\x06"),  # the varint of 0x0301
        (PEER_RECORD_DOMAIN, b""),
    ],
)
def test_other_domains_and_types_are_refused(domain: str, payload_type: bytes) -> None:
    data = seal(KEY, domain, payload_type, record(KEY.peer_id, 1, bytes(ADDRESS)))
    with pytest.raises(DecodeError):
        open_peer_record(data, CRYPTO)


@pytest.mark.parametrize("payload", [b"", b"\x10\x01", b"\x0a\0", b"\x0a\x02\x12\x20"])
def test_records_without_their_peer_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        open_peer_record(sealed(payload), CRYPTO)


def test_seq_has_64_bits_and_may_be_absent() -> None:
    assert open_peer_record(sealed(record(KEY.peer_id, 0)), CRYPTO).seq == 0
    for seq in (0, 1, 2**63, 2**64 - 1):
        assert open_peer_record(seal_peer_record(KEY, seq, []), CRYPTO).seq == seq
    for seq in (-1, 2**64):
        with pytest.raises(LocalError):
            seal_peer_record(KEY, seq, [])


def test_bad_addresses_are_dropped_one_by_one() -> None:
    suffix = bytes(Multiaddr(f"/p2p/{KEY.peer_id}"))
    payload = record(
        KEY.peer_id,
        1,
        b"",
        bytes(ADDRESS)[:-1],
        bytes(ADDRESS),
        b"\xff" * 20,
        bytes(2000),
        bytes(Multiaddr(f"/ip4/192.0.2.2/tcp/1/p2p/{OTHER.peer_id}")),
        bytes(Multiaddr("/ip4/192.0.2.3/tcp/1")) + suffix,
        suffix,
        bytes(Multiaddr(f"/p2p/{OTHER.peer_id}")),
        bytes(Multiaddr(f"/ip4/192.0.2.4/tcp/1/p2p/{OTHER.peer_id}/p2p-circuit")) + suffix,
        bytes(Multiaddr(f"/ip4/192.0.2.5/tcp/1/p2p/{KEY.peer_id}/p2p-circuit")),
        bytes(Multiaddr("/dns/example.com/tcp/443/tls/ws")),
    )
    assert [str(address) for address in open_peer_record(sealed(payload), CRYPTO).addresses] == [
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/192.0.2.3/tcp/1",
        f"/ip4/192.0.2.4/tcp/1/p2p/{OTHER.peer_id}/p2p-circuit",
        f"/ip4/192.0.2.5/tcp/1/p2p/{KEY.peer_id}/p2p-circuit",
        "/dns/example.com/tcp/443/tls/ws",
    ]


def test_our_own_record_is_written_as_others_read_it() -> None:
    mine, theirs = f"/p2p/{KEY.peer_id}", f"/p2p/{OTHER.peer_id}"
    data = seal_peer_record(KEY, 1, [ADDRESS / mine, ADDRESS / theirs, Multiaddr(mine), ADDRESS])
    payload = open_(data, PEER_RECORD_DOMAIN, CRYPTO).payload
    assert payload == record(KEY.peer_id, 1, bytes(ADDRESS), bytes(ADDRESS))


def test_at_most_64_addresses() -> None:
    many = [Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 101)]
    ours = seal_peer_record(KEY, 1, many)
    assert open_(ours, PEER_RECORD_DOMAIN, CRYPTO).payload == record(
        KEY.peer_id, 1, *map(bytes, many[:64])
    )
    theirs = sealed(record(KEY.peer_id, 1, *map(bytes, many)))
    assert open_peer_record(theirs, CRYPTO).addresses == many[:64]
    # As many empty ones as fit into an envelope cost no memory.
    flood = sealed(record(KEY.peer_id, 1) + b"\x1a\0" * 8000)
    assert open_peer_record(flood, CRYPTO).addresses == []
