"""IPNS records: a name that is a peer id points to a path, signed by the name's key.

Spec: https://specs.ipfs.tech/ipns/ipns-record/

    key     "/ipns/" + binary peer id
    value   IpnsEntry { 1 value, 2 signatureV1, 3 validityType, 4 validity, 5 sequence, 6 ttl,
                        7 pubKey, 8 signatureV2, 9 data }
    data    CBOR map { TTL, Value, Sequence, Validity, ValidityType }
    signed  "ipns-signature:" + data

Only ``data`` counts. The other fields are copies for old readers and have to agree with it, if
there are any. The first signature is written for them and never verified.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..crypto import Crypto
from ..errors import DecodeError, LocalError
from ..keys import PrivateKey, PublicKey
from ..peer_id import MAX_INLINE, PeerId
from ..protobuf import BYTES, UINT, Field, Schema
from . import cbor, rfc3339

PREFIX = b"/ipns/"
MAX_RECORD = 10 * 1024
LIFETIME = 48 * 3600.0
"""Seconds for which a new record is valid unless told otherwise."""
MAX_LIFETIME = 100 * 366 * 86_400.0
TTL = 300.0
"""Seconds for which readers may keep a new record before they look again."""

_SIGNED = b"ipns-signature:"
_EOL = 0
"""The only kind of validity: a time at which it ends."""


@dataclass(slots=True)
class Entry:
    """The wire message."""

    value: bytes | None = None
    signature_v1: bytes | None = None
    validity_type: int | None = None
    validity: bytes | None = None
    sequence: int | None = None
    ttl: int | None = None
    public_key: bytes | None = None
    signature_v2: bytes | None = None
    data: bytes | None = None


ENTRY = Schema(
    Entry,
    Field(1, "value", BYTES),
    Field(2, "signature_v1", BYTES),
    Field(3, "validity_type", UINT),
    Field(4, "validity", BYTES),
    Field(5, "sequence", UINT),
    Field(6, "ttl", UINT),
    Field(7, "public_key", BYTES),
    Field(8, "signature_v2", BYTES),
    Field(9, "data", BYTES),
)


@dataclass(slots=True)
class IpnsRecord:
    """What a record says."""

    value: bytes
    """A path such as b"/ipfs/bafy..."."""
    sequence: int
    expires: int
    """Nanoseconds since 1970."""
    ttl: int
    """Nanoseconds for which it may be kept."""


def key_for(name: PeerId) -> bytes:
    """Where the record of a name is stored."""
    return PREFIX + bytes(name)


def name_of(key: bytes) -> PeerId:
    """The name that a key stands for; DecodeError if it is none."""
    if not key.startswith(PREFIX):
        raise DecodeError("the key is not that of an IPNS record")
    return PeerId(key[len(PREFIX) :])


def seal(
    key: PrivateKey,
    value: bytes,
    sequence: int,
    wall: float,
    *,
    lifetime: float = LIFETIME,
    ttl: float = TTL,
    legacy: bool = False,
) -> bytes:
    """A record that is valid for ``lifetime`` seconds from ``wall``, seconds since 1970.

    ``legacy`` adds the copies and the signature for readers that know nothing else.
    """
    if not (0 <= lifetime <= MAX_LIFETIME and 0 <= ttl <= MAX_LIFETIME):
        raise LocalError(f"lifetime and ttl are at most {MAX_LIFETIME:.0f} seconds")
    validity = rfc3339.spell(int((wall + lifetime) * rfc3339.SECOND)).encode()
    life = int(ttl * rfc3339.SECOND)
    data = cbor.encode(
        {
            "Value": value,
            "Validity": validity,
            "ValidityType": _EOL,
            "Sequence": sequence,
            "TTL": life,
        }
    )
    entry = Entry(data=data, signature_v2=key.sign(_SIGNED + data))
    public = key.public.encode()
    if len(public) > MAX_INLINE:
        entry.public_key = public
    if legacy:
        entry.value, entry.validity, entry.validity_type = value, validity, _EOL
        entry.sequence, entry.ttl = sequence, life
        entry.signature_v1 = key.sign(value + validity + b"EOL")
    record = ENTRY.encode(entry)
    if len(record) > MAX_RECORD:
        raise LocalError(f"an IPNS record of {len(record)} bytes; the limit is {MAX_RECORD}")
    return record


def open_(name: PeerId, record: bytes, crypto: Crypto) -> IpnsRecord:
    """What a record of this name says; DecodeError unless the name's key signed it.

    Whether it has expired is for the caller to see.
    """
    if len(record) > MAX_RECORD:
        raise DecodeError(f"an IPNS record of {len(record)} bytes; the limit is {MAX_RECORD}")
    entry = ENTRY.decode(record)
    if not entry.signature_v2 or not entry.data:
        raise DecodeError("the IPNS record has no second signature")
    key = _public_key(name, entry.public_key, crypto)
    said = _read(entry.data)
    if not key.verify(entry.signature_v2, _SIGNED + entry.data):
        raise DecodeError("the signature of the IPNS record is not that of its name")
    if entry.signature_v1 or entry.value:
        _compare(entry, entry.data)
    return said


class IpnsValidator:
    """Valid are records that the name's key signed and that have not expired."""

    def __init__(self, crypto: Crypto) -> None:
        self._crypto = crypto

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        """DecodeError unless ``value`` is a record for ``key`` that is valid at ``wall``."""
        said = open_(name_of(key), value, self._crypto)
        if said.expires <= wall * rfc3339.SECOND:
            raise DecodeError("the IPNS record has expired")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The record with the highest sequence, then the longest validity, then the most bytes."""
        return max(range(len(values)), key=lambda index: _rank(values[index]))


def _rank(record: bytes) -> tuple[int, int, bytes]:
    said = _read(ENTRY.decode(record).data or b"")
    return said.sequence, said.expires, record


def _public_key(name: PeerId, encoded: bytes | None, crypto: Crypto) -> PublicKey:
    if not encoded:
        key = PublicKey.from_peer_id(name, crypto)
        if key is None:
            raise DecodeError("the IPNS record lacks the public key of its name")
        return key
    key = PublicKey.decode(encoded, crypto)
    if key.peer_id != name:
        raise DecodeError("the public key of the IPNS record has another name")
    return key


def _read(data: bytes) -> IpnsRecord:
    said = cbor.decode(data)
    value, validity = said.get("Value"), said.get("Validity")
    kind, sequence, ttl = said.get("ValidityType"), said.get("Sequence"), said.get("TTL")
    if not (
        isinstance(value, bytes)
        and isinstance(validity, bytes)
        and kind == _EOL
        and isinstance(sequence, int)
        and isinstance(ttl, int)
    ):
        raise DecodeError("the IPNS record lacks a field, or one is of the wrong kind")
    expires = rfc3339.parse(validity.decode("ascii", "replace"))
    return IpnsRecord(value, sequence, expires, ttl)


def _compare(entry: Entry, data: bytes) -> None:
    said = cbor.decode(data)
    copies: tuple[tuple[str, bytes | int], ...] = (
        ("Value", entry.value or b""),
        ("Validity", entry.validity or b""),
        ("ValidityType", entry.validity_type or 0),
        ("Sequence", entry.sequence or 0),
        ("TTL", entry.ttl or 0),
    )
    for name, copy in copies:
        if said[name] != copy:
            raise DecodeError(f"the IPNS record contradicts itself: {name}")
