"""Signed envelopes, and the peer record: a peer's own signed list of its addresses.

Specs: https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md
       https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md

    Envelope     { 1: PublicKey, 2: payload type, 3: payload, 5: signature }
    signed       LP(domain) LP(payload type) LP(payload)       LP: length, then data
    PeerRecord   { 1: peer id, 2: seq, 3: { 1: multiaddr } * }

    bytes --size, fields--> key --signature--> payload --signer is the record's peer--> PeerRecord

The domain is not sent: each use of envelopes has its own, so that one cannot pass for another.
Peer records come with two of them, the one of RFC 0003 and the one that nearly everybody uses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from . import varint
from .crypto import Crypto
from .errors import DecodeError, LocalError
from .keys import PrivateKey, PublicKey
from .multiaddr import Multiaddr
from .peer_id import PeerId
from .protobuf import BYTES, UINT, Field, Schema

MAX_ENVELOPE = 16 * 1024
"""The longest envelope made or read, in bytes."""
MAX_ADDRESSES = 64
"""The most addresses of a record; the rest is dropped."""

PEER_RECORD_DOMAIN = "libp2p-peer-record"
PEER_RECORD_TYPE = b"\x03\x01"
"""Two bytes as they are, not the varint of 0x0301."""

_PEER_RECORD_DOMAINS = {
    PEER_RECORD_TYPE: PEER_RECORD_DOMAIN,
    b"/libp2p/routing-state-record": "libp2p-routing-state",  # rust peers
}


@dataclass(slots=True)
class Envelope:
    """A payload whose signature was good; what it says about its signer is not checked."""

    public_key: PublicKey
    payload_type: bytes
    payload: bytes


@dataclass(slots=True)
class PeerRecord:
    """Where a peer says that it listens. Of two records, the one with the greater ``seq`` counts.

    Signed by the peer itself. Whether that is the peer at hand is for the reader to check.
    """

    peer_id: PeerId
    seq: int
    addresses: list[Multiaddr]


def seal(key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """A signed envelope; LocalError if it would be longer than MAX_ENVELOPE."""
    signature = key.sign(_signed(domain, payload_type, payload))
    data = _ENVELOPE.encode(_Envelope(key.public.encode(), payload_type, payload, signature))
    if len(data) > MAX_ENVELOPE:
        raise LocalError(f"an envelope of {len(data)} bytes; the limit is {MAX_ENVELOPE}")
    return data


def open_(data: bytes, domain: str, crypto: Crypto) -> Envelope:
    """The content of an envelope that was signed for ``domain``; DecodeError if it was not."""
    return _verify(_parse(data), domain, crypto)


def seal_peer_record(key: PrivateKey, seq: int, addresses: Iterable[Multiaddr]) -> bytes:
    """The envelope with our own record. ``seq`` grows with each, also over restarts.

    Addresses are changed and dropped as ``open_peer_record`` does it.
    """
    listed = (_listed(address, key.peer_id) for address in addresses)
    infos = [_AddressInfo(bytes(address)) for address in listed if address is not None]
    del infos[MAX_ADDRESSES:]
    record = _PEER_RECORD.encode(_PeerRecord(bytes(key.peer_id), seq, infos))
    return seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, record)


def open_peer_record(data: bytes, crypto: Crypto) -> PeerRecord:
    """The record in an envelope of either domain; DecodeError unless its own peer signed it.

    Addresses that cannot be read or that end in another peer's id are dropped, and a ``/p2p`` of
    this peer at the end is cut off.
    """
    parsed = _parse(data)
    domain = _PEER_RECORD_DOMAINS.get(parsed.payload_type)
    if domain is None:
        raise DecodeError("the envelope holds no peer record")
    envelope = _verify(parsed, domain, crypto)
    record = _PEER_RECORD.decode(envelope.payload)
    peer_id = envelope.public_key.peer_id
    if record.peer_id != bytes(peer_id):
        raise DecodeError(f"{peer_id} signed the peer record of somebody else")
    addresses: list[Multiaddr] = []
    for info in record.addresses:
        try:
            address = _listed(Multiaddr.from_bytes(info.multiaddr), peer_id)
        except DecodeError:
            continue
        if address is not None:
            addresses.append(address)
    return PeerRecord(peer_id, record.seq, addresses)


@dataclass(slots=True, eq=False)
class _Envelope:
    """The wire message."""

    public_key: bytes  # kept as bytes: PublicKey reads them
    payload_type: bytes
    payload: bytes
    signature: bytes


@dataclass(slots=True, eq=False)
class _AddressInfo:
    """One address of a record."""

    multiaddr: bytes = b""


@dataclass(slots=True, eq=False)
class _PeerRecord:
    """The wire message."""

    peer_id: bytes = b""
    seq: int = 0
    addresses: list[_AddressInfo] = field(default_factory=list)


_ENVELOPE = Schema(
    _Envelope,
    Field(1, "public_key", BYTES, required=True),
    Field(2, "payload_type", BYTES, implicit=True),
    Field(3, "payload", BYTES, implicit=True),
    Field(5, "signature", BYTES, required=True),
)
_PEER_RECORD = Schema(
    _PeerRecord,
    Field(1, "peer_id", BYTES, required=True),
    Field(2, "seq", UINT, implicit=True),
    Field(
        3,
        "addresses",
        Schema(_AddressInfo, Field(1, "multiaddr", BYTES, implicit=True)),
        repeated=True,
        limit=MAX_ADDRESSES,
        overflow="drop",
    ),
)


def _parse(data: bytes) -> _Envelope:
    if len(data) > MAX_ENVELOPE:
        raise DecodeError(f"an envelope of {len(data)} bytes; the limit is {MAX_ENVELOPE}")
    return _ENVELOPE.decode(data)


def _verify(parsed: _Envelope, domain: str, crypto: Crypto) -> Envelope:
    key = PublicKey.decode(parsed.public_key, crypto)
    message = _signed(domain, parsed.payload_type, parsed.payload)
    if not key.verify(parsed.signature, message):
        raise DecodeError("the envelope's signature is wrong, or made for another domain")
    return Envelope(key, parsed.payload_type, parsed.payload)


def _signed(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    return b"".join(map(varint.delimited, (domain.encode(), payload_type, payload)))


def _listed(address: Multiaddr, peer_id: PeerId) -> Multiaddr | None:
    """The address as the peer's own record has it: without its id; None if it is of no use."""
    where, named = address.split_peer()
    return where if named is None or named == bytes(peer_id) else None
